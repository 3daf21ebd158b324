package serve

import (
	"context"
	"sync/atomic"
	"time"

	"nac"
)

// batcher gathers images of several requests into one run of the network.
//
// It waits for company only while there is some on its way: requests that were
// admitted and are being decoded. So one client alone is never kept waiting, and
// none is for longer than delay.
type batcher struct {
	detector *nac.Detector
	size     int // values of an image
	most     int // images of a batch
	delay    time.Duration
	observe  func(images int, took time.Duration)

	coming atomic.Int64 // images admitted and not yet queued
	queue  chan *call
	batch  []float32
	out    []nac.Result
}

// call is one image that wants to be scored.
type call struct {
	ctx    context.Context
	input  []float32
	result nac.Result
	err    error
	done   chan struct{}
}

func newBatcher(d *nac.Detector, size, most, queue int, delay time.Duration, observe func(int, time.Duration)) *batcher {
	b := &batcher{detector: d, size: size, most: most, delay: delay, observe: observe, queue: make(chan *call, queue)}
	go b.loop()
	return b
}

// score waits for the result of a transformed image. It returns early if the
// context ends; input then must not be used again, for the batcher may still read it.
func (b *batcher) score(ctx context.Context, input []float32) (nac.Result, error) {
	c := &call{ctx: ctx, input: input, done: make(chan struct{})}
	select {
	case b.queue <- c:
	case <-ctx.Done():
		return nac.Result{}, ctx.Err()
	}
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
		return nac.Result{}, ctx.Err()
	}
}

// close ends the batcher once all calls have been answered. No call may follow.
func (b *batcher) close() { close(b.queue) }

func (b *batcher) loop() {
	calls := make([]*call, 0, b.most)
	timer := time.NewTimer(time.Hour)
	for first := range b.queue {
		calls = append(calls[:0], first)
		timer.Reset(b.delay)
	gather:
		for len(calls) < b.most {
			select {
			case c, ok := <-b.queue:
				if !ok {
					break gather
				}
				calls = append(calls, c)
				continue
			default:
			}
			if b.coming.Load() == 0 {
				break
			}
			select {
			case c, ok := <-b.queue:
				if !ok {
					break gather
				}
				calls = append(calls, c)
			case <-timer.C:
				break gather
			}
		}
		b.run(calls)
	}
}

// run scores the calls whose clients are still there.
func (b *batcher) run(calls []*call) {
	live := calls[:0]
	b.batch = b.batch[:0]
	for _, c := range calls {
		if c.err = c.ctx.Err(); c.err != nil {
			close(c.done)
			continue
		}
		live = append(live, c)
		b.batch = append(b.batch, c.input...)
	}
	if len(live) == 0 {
		return
	}
	if cap(b.out) < len(live) {
		b.out = make([]nac.Result, b.most)
	}
	out := b.out[:len(live)]
	start := time.Now()
	err := b.detector.ScoreTensors(context.Background(), b.batch, out)
	b.observe(len(live), time.Since(start))
	for i, c := range live {
		c.result, c.err = out[i], err
		if err != nil && len(live) > 1 {
			// One image's fault, such as a tensor that overflows, is not the others'.
			c.err = b.detector.ScoreTensors(context.Background(), c.input, out[i:i+1])
			c.result = out[i]
		}
		close(c.done)
	}
}

package serve

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"nac"
)

// batcher gathers images of several requests into one run of the network.
//
// It waits for company only while some is likely: images that were admitted and are
// being decoded, and just after a run the next ones of the clients that it answered.
// So one client alone is never kept waiting, and none is for longer than patience.
// The wait is no loss, for the processors have those images to decode: done
// during a run it would take one of them from the run and leave the others idle
// at its end.
type batcher struct {
	detector *nac.Detector
	size     int // values of an image
	most     int // images of a batch
	delay    time.Duration
	observe  func(images int, took time.Duration)

	coming atomic.Int64  // images announced and not yet queued
	none   chan struct{} // told when coming falls to 0
	queue  chan *call
	batch  []float32
	out    []nac.Result

	// Of the last run:
	ended    time.Time
	took     time.Duration
	expected int // its images, and those that waited for its end
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
	b := &batcher{detector: d, size: size, most: most, delay: delay, observe: observe, none: make(chan struct{}, 1), queue: make(chan *call, queue)}
	go b.loop()
	return b
}

// announce tells that an image is on its way. The caller must call arrived, once or
// more, when it is in the queue or will not come.
func (b *batcher) announce() (arrived func()) {
	b.coming.Add(1)
	return sync.OnceFunc(func() {
		if b.coming.Add(-1) == 0 {
			select {
			case b.none <- struct{}{}:
			default:
			}
		}
	})
}

// score waits for the result of a transformed image; queued is called when it is in the
// queue. It returns early if the context ends; input then must not be used again, for
// the batcher may still read it.
func (b *batcher) score(ctx context.Context, input []float32, queued func()) (nac.Result, error) {
	c := &call{ctx: ctx, input: input, done: make(chan struct{})}
	select {
	case b.queue <- c:
		queued()
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
	for first := range b.queue {
		calls = b.gather(append(calls[:0], first))
		b.run(calls)
	}
}

// gather adds what is in the queue, and what is worth waiting for.
func (b *batcher) gather(calls []*call) []*call {
	begin := time.Now()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for len(calls) < b.most {
		var c *call
		more := true
		select {
		case c, more = <-b.queue:
		default:
			wait := b.wait(len(calls), begin, time.Now())
			if wait <= 0 {
				return calls
			}
			timer.Reset(wait)
			select {
			case c, more = <-b.queue:
			case <-b.none:
			case <-timer.C:
			}
		}
		if !more {
			return calls
		}
		if c != nil {
			calls = append(calls, c)
		}
	}
	return calls
}

// mostPatience bounds what a slow run allows the next one to wait.
const mostPatience = 200 * time.Millisecond

// wait is how much longer a batch that was begun should wait if nothing happens.
func (b *batcher) wait(images int, begin, now time.Time) time.Duration {
	// A part of a run's time costs little beside it, and is what its images take to decode.
	patience := max(b.delay, min(b.took/4, mostPatience))
	switch {
	case b.coming.Load() > 0:
		return begin.Add(patience).Sub(now)
	case images < b.expected:
		return b.ended.Add(patience).Sub(now)
	}
	return 0
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
	b.took = time.Since(start)
	b.observe(len(live), b.took)
	for i, c := range live {
		c.result, c.err = out[i], err
		if err != nil && len(live) > 1 {
			// One image's fault, such as a tensor that overflows, is not the others'.
			c.err = b.detector.ScoreTensors(context.Background(), c.input, out[i:i+1])
			c.result = out[i]
		}
		close(c.done)
	}
	b.ended = time.Now()
	b.expected = len(live) + len(b.queue) + int(b.coming.Load())
}

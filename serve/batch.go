package serve

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"nac"
)

// batcher gathers images of several requests into runs of the network.
//
// Its lanes run side by side, each on its part of the processors: while one answers and
// its clients' next images come in, the others compute. An image that comes alone has all
// processors.
type batcher struct {
	detector *nac.Detector
	lanes    []*lane
	size     int // values of an image
	most     int // images of a batch
	delay    time.Duration
	observe  func(images int, took time.Duration)

	coming  atomic.Int64  // images announced and not yet queued
	inside  atomic.Int64  // images queued or running
	running atomic.Int64  // lanes
	none    chan struct{} // told when coming falls to 0
	queue   chan *call
	calls   sync.Pool // of *call, for the next ones
}

// lane runs one batch after the other.
//
// It waits for company only while some is likely: images that were admitted and are
// being decoded, and just after a run the next ones of the clients that it answered.
// So one client alone is never kept waiting, and none is for longer than patience.
// The wait is no loss, for the processors have those images to decode: done
// during a run it would take one of them from the run and leave the others idle
// at its end.
type lane struct {
	*batcher
	detector *nac.Detector
	batch    []float32
	out      []nac.Result

	// Of the last run:
	ended    time.Time
	took     time.Duration
	expected int // its images, and those that waited for its end
}

// call is one image that wants to be scored, and the memory for it.
//
// It has a timer of its own, to be used again: a context that ends in time would cost more
// than all else that a request waits with.
type call struct {
	ctx    context.Context // of the client
	input  []float32
	result nac.Result
	err    error
	done   chan struct{} // told once
	timer  *time.Timer
	left   atomic.Bool // nobody waits for it any more
}

func newBatcher(d *nac.Detector, size, most, queue int, delay time.Duration, observe func(int, time.Duration)) *batcher {
	b := &batcher{detector: d, size: size, most: most, delay: delay, observe: observe, queue: make(chan *call, queue)}
	for _, half := range d.Split() {
		b.lanes = append(b.lanes, &lane{batcher: b, detector: half})
	}
	b.none = make(chan struct{}, len(b.lanes))
	for _, l := range b.lanes {
		go l.loop()
	}
	return b
}

// announce tells that an image is on its way. The caller must call arrived, once or
// more, when it is in the queue or will not come.
func (b *batcher) announce() (arrived func()) {
	b.coming.Add(1)
	return sync.OnceFunc(func() {
		if b.coming.Add(-1) > 0 {
			return
		}
		for range b.lanes {
			select {
			case b.none <- struct{}{}:
			default:
			}
		}
	})
}

// call is room for an image, to be filled and scored. Forget gives it back if it is not.
func (b *batcher) call() *call {
	if kept, ok := b.calls.Get().(*call); ok {
		return kept
	}
	c := &call{input: make([]float32, b.size), done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	return c
}

// hurry lets the call fail with context.DeadlineExceeded after a time.
func (c *call) hurry(after time.Duration) { c.timer.Reset(after) }

// put sends to a channel, unless the context ends or the call's time is over before there
// is room. That there is room at once is tried first, as it nearly always is.
func put[T any](ctx context.Context, to chan<- T, v T, c *call) error {
	select {
	case to <- v:
		return nil
	default:
	}
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.timer.C:
		return context.DeadlineExceeded
	}
}

func (b *batcher) forget(c *call) {
	c.timer.Stop()
	c.ctx, c.err = nil, nil
	b.calls.Put(c)
}

// score waits for the result of a call, which must not be used after it; queued is called
// when it is in the queue. It returns early if the context ends or the call's time is over.
func (b *batcher) score(ctx context.Context, c *call, queued func()) (nac.Result, error) {
	c.ctx = ctx
	b.inside.Add(1)
	if err := put(ctx, b.queue, c, c); err != nil {
		b.inside.Add(-1)
		b.forget(c)
		return nac.Result{}, err
	}
	queued()
	select {
	case <-c.done:
		r, err := c.result, c.err
		b.forget(c)
		return r, err
	case <-ctx.Done():
		c.timer.Stop()
		c.left.Store(true)
		return nac.Result{}, ctx.Err()
	case <-c.timer.C:
		c.left.Store(true)
		return nac.Result{}, context.DeadlineExceeded
	}
}

// close ends the batcher once all calls have been answered. No call may follow.
func (b *batcher) close() { close(b.queue) }

func (l *lane) loop() {
	calls := make([]*call, 0, l.most)
	for first := range l.queue {
		calls = l.gather(append(calls[:0], first))
		l.run(calls)
	}
}

// enough images make a batch that is as fast as any, near enough.
const enough = 8

// limit is how many images a batch may have: a lane's share of all that are here, in two
// batches if they are enough. Small batches keep lanes out of step, and answers even.
func (b *batcher) limit() int {
	share := b.shareOf(int(b.coming.Load() + b.inside.Load()))
	return min(b.most, max(min(share, enough), (share+1)/2))
}

func (b *batcher) shareOf(images int) int { return (images + len(b.lanes) - 1) / len(b.lanes) }

// gather adds what is in the queue, and what is worth waiting for.
func (l *lane) gather(calls []*call) []*call {
	begin := time.Now()
	var timer *time.Timer
	for len(calls) < l.limit() {
		var c *call
		more := true
		select {
		case c, more = <-l.queue:
		default:
			wait := l.wait(len(calls), begin, time.Now())
			if wait <= 0 {
				return calls
			}
			if timer == nil {
				timer = time.NewTimer(wait)
				defer timer.Stop()
			}
			timer.Reset(wait)
			select {
			case c, more = <-l.queue:
			case <-l.none:
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
func (l *lane) wait(images int, begin, now time.Time) time.Duration {
	// A part of a run's time costs little beside it, and is what its images take to decode.
	patience := max(l.delay, min(l.took/4, mostPatience))
	switch {
	case l.coming.Load() > 0:
		return begin.Add(patience).Sub(now)
	case images < l.expected:
		return l.ended.Add(patience).Sub(now)
	}
	return 0
}

// run scores the calls whose clients are still there.
func (l *lane) run(calls []*call) {
	live := calls[:0]
	l.batch = l.batch[:0]
	for _, c := range calls {
		if c.err = c.ctx.Err(); c.err != nil || c.left.Load() {
			l.inside.Add(-1)
			c.done <- struct{}{}
			continue
		}
		live = append(live, c)
		l.batch = append(l.batch, c.input...)
	}
	if len(live) == 0 {
		return
	}
	if cap(l.out) < len(live) {
		l.out = make([]nac.Result, l.most)
	}
	out := l.out[:len(live)]
	d := l.detector
	if l.running.Add(1) == 1 && len(live) == 1 {
		d = l.batcher.detector // with all processors
	}
	start := time.Now()
	err := d.ScoreTensors(context.Background(), l.batch, out)
	l.took = time.Since(start)
	l.running.Add(-1)
	l.inside.Add(-int64(len(live)))
	l.observe(len(live), l.took)
	for i, c := range live {
		c.result, c.err = out[i], err
		if err != nil && len(live) > 1 {
			// One image's fault, such as a tensor that overflows, is not the others'.
			c.err = d.ScoreTensors(context.Background(), c.input, out[i:i+1])
			c.result = out[i]
		}
		c.done <- struct{}{}
	}
	l.ended = time.Now()
	l.expected = len(live) + l.shareOf(len(l.queue)+int(l.coming.Load()))
}

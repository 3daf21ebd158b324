package nac

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"nac/detector"
	"nac/imageset"
	"nac/probe"
)

// batchImages is the most images of a run unless [Model.WithBatch] says otherwise:
// enough to keep all processors busy.
const batchImages = 64

// engine runs the network for one detector. Jobs that come while it is busy wait and
// are then run together: many callers get the speed of batches, one alone the
// shortest way.
type engine struct {
	probe *probe.Probe
	phase detector.Phase
	size  int // values of an image
	most  int // images of a run
	batch []float32
	// turn is held while the probe runs, for reading by halves of a whole; see split.
	turn *sync.RWMutex
	half bool

	mu      sync.Mutex
	waiting []*job
	running bool
}

// job is at most an engine's most images that want to be run.
type job struct {
	ctx    context.Context
	images []float32
	n      int
	// take is given the job's part of what a run yielded, valid until it returns.
	take func(in *detector.Inputs) error
	done chan error
}

// newEngine makes one for what is needed in a phase; see probe.For.
func newEngine(model *Model, t imageset.Transform, phase detector.Phase, needs func(detector.Network, detector.Phase) detector.Needs) (*engine, error) {
	of := func(n detector.Network, p detector.Phase) (of detector.Needs) {
		if p == phase {
			of = needs(n, p)
		}
		return of
	}
	m := model.network
	p, err := probe.New(m, of, probe.Options{MaxBatch: model.batch, Workers: model.workers, Std: t.Std})
	if err != nil {
		return nil, err
	}
	return &engine{
		probe: p, phase: phase, most: model.batch, size: m.InputSize[0] * m.InputSize[1] * m.InputSize[2],
		turn: &sync.RWMutex{},
	}, nil
}

// split returns two engines that share e's memory and have half of its processors each, or
// none; see probe.Probe.Split. They take turns with e.
func (e *engine) split() (halves []*engine) {
	if e.half {
		return nil
	}
	for _, p := range e.probe.Split() {
		halves = append(halves, &engine{probe: p, phase: e.phase, most: e.most, size: e.size, turn: e.turn, half: true})
	}
	return halves
}

// run runs n images and gives what they yield to take, a batch at a time, in order.
// It may be called by many goroutines at once.
func (e *engine) run(ctx context.Context, images []float32, n int, take func(in *detector.Inputs) error) error {
	if len(images) < n*e.size {
		return fmt.Errorf("nac: %d values are not %d images of %d", len(images), n, e.size)
	}
	for first := 0; first < n; first += e.most {
		k := min(e.most, n-first)
		j := &job{ctx: ctx, images: images[first*e.size : (first+k)*e.size], n: k, take: take, done: make(chan error, 1)}
		e.add(j)
		select {
		case err := <-j.done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			// The job may be running on the caller's memory: it must end first.
			if err := <-j.done; err != nil {
				return err
			}
			return ctx.Err()
		}
	}
	return nil
}

func (e *engine) add(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append(e.waiting, j)
	if !e.running {
		e.running = true
		go e.drain()
	}
}

// drain runs jobs until none waits.
func (e *engine) drain() {
	for {
		jobs := e.next()
		if jobs == nil {
			return
		}
		e.runJobs(jobs)
	}
}

// next takes jobs that fit in a batch, and ends those whose callers have gone.
func (e *engine) next() (jobs []*job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, taken := 0, 0
	for _, j := range e.waiting {
		if err := j.ctx.Err(); err != nil {
			j.done <- err
		} else if n+j.n > e.most {
			break
		} else {
			jobs = append(jobs, j)
			n += j.n
		}
		taken++
	}
	e.waiting = append(e.waiting[:0], e.waiting[taken:]...)
	e.running = jobs != nil
	return jobs
}

func (e *engine) runJobs(jobs []*job) {
	images, n := jobs[0].images, jobs[0].n
	if len(jobs) > 1 {
		e.batch, n = e.batch[:0], 0
		for _, j := range jobs {
			e.batch = append(e.batch, j.images...)
			n += j.n
		}
		images = e.batch
	}
	in, err := e.runProbe(images, n)
	first := 0
	for _, j := range jobs {
		if err == nil {
			j.done <- j.take(in.Rows(first, first+j.n))
		} else {
			j.done <- err
		}
		first += j.n
	}
}

// runProbe runs the probe when it is e's turn. Its results lie in memory that no other
// engine writes to.
func (e *engine) runProbe(images []float32, n int) (*detector.Inputs, error) {
	if e.half {
		e.turn.RLock()
		defer e.turn.RUnlock()
	} else {
		e.turn.Lock()
		defer e.turn.Unlock()
	}
	return e.probe.Run(images, n, e.phase)
}

// errNotFinite is the error for an image that makes the network overflow: its score
// would be a number and look like a result.
var errNotFinite = errors.New("nac: the network's logits are not finite; is the image's normalisation the model's?")

// classify returns the class with the largest logit, and its probability.
func classify(logits []float32) (class int, probability float64, err error) {
	for k, v := range logits {
		if v != v || math.IsInf(float64(v), 0) {
			return 0, 0, errNotFinite
		}
		if v > logits[class] {
			class = k
		}
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - float64(logits[class]))
	}
	return class, 1 / sum, nil
}

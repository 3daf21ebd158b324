package nn

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"nac/internal/kernel"
)

// Result holds what a run computed, image by image, row-major.
type Result struct {
	N       int
	Logits  []float32   // N×K
	Feature []float32   // N×F
	Z, G    [][]float32 // by wanted layer: N×C; G is nil without gradients
	Maps    [][]float32 // by wanted map: N×Size
	// InputGradients are those of the wanted losses: N×C×H×W of the image, or
	// N×H×W×C of the node that the run started from.
	InputGradients [][]float32
}

// Session runs a program. Its memory is fixed by the largest batch and the number
// of workers, and a run allocates nothing. A session is not for concurrent use.
type Session struct {
	program    *Program
	maxBatch   int
	chunk      int
	workers    []*worker
	whole      Result // room for maxBatch images
	result     Result // what the last run filled
	images     []float32
	n, parts   int
	nextPart   atomic.Int64
	together   bool // all workers on one chunk, job by job
	barrier    barrier
	wait       sync.WaitGroup
	gradients  bool
	inputFloat int
}

// worker runs all jobs on one chunk of images at a time.
type worker struct {
	index   int
	ws      workspace
	image   workspace // one image of a chunk
	scratch *scratch
	loop    func()
}

// workspace is the memory of one chunk.
type workspace struct {
	slabs  [][]float32
	layers []int
	images []float32 // the chunk's
	first  int       // index of the chunk's first image in the batch
	result *Result
}

// scratch is a worker's private room.
type scratch struct {
	conv      convScratch
	winograd  winogradScratch
	depthwise kernel.DepthwiseArgs
	layerNorm kernel.LayerNormArgs
	gelu      kernel.GELUArgs
	pool      kernel.PoolArgs
	maximum   kernel.MaxArgs
	pairs     kernel.PairArgs
	attention attentionScratch
	sums      []float32
	totals    []float32
	// activation is one whole activation; values and gradient are a loss's.
	activation       []float32
	values, gradient []float32
	combine          kernel.CombineArgs
	moments          kernel.MomentsArgs
	grad             gradScratch
	third            []float32
	fourth           []float32
	mean             []float64 // of the groups of a group norm
	inverse          []float64
}

// newScratch makes room for jobs on pixels of up to widest floats.
func newScratch(jobs []job, widest int) *scratch {
	s := &scratch{}
	s.conv.in = make([][kernel.Rows]int64, maxBlockTiles)
	s.conv.out = make([][kernel.Rows]int64, maxBlockTiles)
	for _, row := range []*[]float32{&s.sums, &s.totals, &s.third, &s.fourth} {
		*row = make([]float32, widest)
	}
	s.winograd.grow(jobs)
	s.attention.grow(jobs)
	s.grad.grow(jobs)
	return s
}

// chunkBytes is how much working memory a worker's chunk may take: enough
// images to repay reading the weights, few enough to stay small and in the
// third-level cache.
const chunkBytes = 100 << 20

// maxChunk is the most images of a chunk: more gains nothing measurable. minChunk are as
// many as there may be however small the weights are.
const (
	maxChunk = 16
	minChunk = 4
)

// NewSession returns a session with memory of its own.
func (p *Program) NewSession() *Session {
	maxBatch, workers := p.maxBatch, p.workers
	s := &Session{program: p, maxBatch: maxBatch, inputFloat: p.input.C * p.input.H * p.input.W}
	once := p.bytes(0)
	image := max(1, p.bytes(1)-once)
	s.chunk = int(min(maxChunk, max(1, (chunkBytes-once)/image)))
	// A chunk reads all weights once. More images than are half as large would but push
	// each other out of the caches, and balance the workers' shares less well.
	s.chunk = min(s.chunk, int(max(minChunk, p.WeightBytes()/(2*image))))
	s.chunk = min(s.chunk, (maxBatch+workers-1)/workers)
	if maxBatch < workers {
		s.chunk = maxBatch
	}
	widest := 0
	for i := range p.slabs {
		widest = max(widest, p.slabs[i].stride)
	}
	s.barrier.parties = int64(workers)
	for i := range workers {
		w := &worker{index: i}
		w.ws.layers = p.layers
		w.ws.result = &s.whole
		for i := range p.slabs {
			if maxBatch < workers && w.index > 0 {
				break // they only ever work on the first one's
			}
			w.ws.slabs = append(w.ws.slabs, kernel.Aligned(p.slabs[i].size(s.chunk)))
		}
		w.image.slabs = make([][]float32, len(p.slabs))
		w.scratch = newScratch(p.jobs, widest)
		s.add(w)
	}
	s.allocateResults()
	for _, w := range s.workers {
		w.scratch.grow(p)
	}
	return s
}

// allocateResults makes room for the results of the largest batch.
func (s *Session) allocateResults() {
	p, maxBatch := s.program, s.maxBatch
	s.whole = Result{Logits: make([]float32, maxBatch*p.k), Feature: make([]float32, maxBatch*p.f)}
	for _, j := range p.jobs {
		switch j := j.(type) {
		case *poolJob:
			s.gradients = s.gradients || j.gradient
		case *zeroStateJob:
			s.gradients = true
		}
	}
	for _, c := range p.layers {
		s.whole.Z = append(s.whole.Z, make([]float32, maxBatch*c))
		if s.gradients {
			s.whole.G = append(s.whole.G, make([]float32, maxBatch*c))
		}
	}
	for _, m := range p.maps {
		s.whole.Maps = append(s.whole.Maps, make([]float32, maxBatch*m.Size))
	}
	for range p.losses {
		s.whole.InputGradients = append(s.whole.InputGradients, make([]float32, maxBatch*s.inputFloat))
	}
	s.result.Maps = make([][]float32, len(p.maps))
	s.result.InputGradients = make([][]float32, p.losses)
	s.result.Z = make([][]float32, len(s.whole.Z))
	if s.gradients {
		s.result.G = make([][]float32, len(s.whole.G))
	}
}

// Split returns two sessions that have half of the workers each and share the memory
// of s, but for results. They may run side by side, but not while s runs. There are
// none if s has one worker, or batches of fewer images than workers.
func (s *Session) Split() []*Session {
	if len(s.workers) < 2 || s.maxBatch < len(s.workers) {
		return nil
	}
	half := len(s.workers) / 2
	return []*Session{s.of(s.workers[:half]), s.of(s.workers[half:])}
}

// of is a session of some of the workers.
func (s *Session) of(workers []*worker) *Session {
	part := &Session{program: s.program, maxBatch: s.maxBatch, chunk: s.chunk, inputFloat: s.inputFloat}
	part.allocateResults()
	part.barrier.parties = int64(len(workers))
	for i, w := range workers {
		own := &worker{index: i, ws: w.ws, scratch: w.scratch}
		own.ws.result = &part.whole
		own.image.slabs = make([][]float32, len(s.program.slabs))
		part.add(own)
	}
	return part
}

// add gives the session a worker.
func (s *Session) add(w *worker) {
	w.loop = func() {
		s.work(w)
		s.wait.Done()
	}
	s.workers = append(s.workers, w)
}

// Bytes is the session's memory, packed weights not counted.
func (s *Session) Bytes() int64 {
	var n int64
	for _, w := range s.workers {
		for _, slab := range w.ws.slabs {
			n += 4 * int64(len(slab))
		}
	}
	n += 4 * int64(len(s.whole.Logits)+len(s.whole.Feature)+len(s.whole.InputGradients)*s.maxBatch*s.inputFloat)
	for _, m := range s.whole.Maps {
		n += 4 * int64(len(m))
	}
	for i := range s.whole.Z {
		n += 4 * int64(len(s.whole.Z[i]))
	}
	for i := range s.whole.G {
		n += 4 * int64(len(s.whole.G[i]))
	}
	return n
}

// Run computes n images given as float32 NCHW, or as many activations of the node
// that the program starts from as H×W pixels of C channels. The result is valid until the
// next run. What an image yields does not depend on the others, nor on the
// number of workers.
func (s *Session) Run(images []float32, n int) (*Result, error) {
	if n < 1 || n > s.maxBatch {
		return nil, fmt.Errorf("nn: batch of %d images in a session for 1 to %d", n, s.maxBatch)
	}
	if len(images) < n*s.inputFloat {
		return nil, fmt.Errorf("nn: %d values are not %d images of %v", len(images), n, s.program.input)
	}
	s.images, s.n = images, n
	// Fewer images than workers: share out the parts of each job instead.
	s.together = n < len(s.workers) && n <= s.chunk
	s.parts = max((n+s.chunk-1)/s.chunk, min(len(s.workers), n))
	if r := s.parts % len(s.workers); r != 0 && s.parts > len(s.workers) {
		s.parts = min(n, s.parts+len(s.workers)-r) // an equal share for all
	}
	s.nextPart.Store(0)
	s.wait.Add(len(s.workers) - 1)
	for _, w := range s.workers[1:] {
		go w.loop()
	}
	s.work(s.workers[0])
	s.wait.Wait()
	s.images = nil

	p, r := s.program, &s.result
	r.N = n
	r.Logits, r.Feature = s.whole.Logits[:n*p.k], s.whole.Feature[:n*p.f]
	for i, m := range p.maps {
		r.Maps[i] = s.whole.Maps[i][:n*m.Size]
	}
	for i, g := range s.whole.InputGradients {
		r.InputGradients[i] = g[:n*s.inputFloat]
	}
	for i, c := range p.layers {
		r.Z[i] = s.whole.Z[i][:n*c]
		if s.gradients {
			r.G[i] = s.whole.G[i][:n*c]
		}
	}
	return r, nil
}

// barrier lets each of parties goroutines go on when all have arrived. It spins:
// what lies between two barriers takes microseconds.
type barrier struct {
	parties int64
	arrived atomic.Int64
	phase   atomic.Int64
}

func (b *barrier) wait() {
	phase := b.phase.Load()
	if b.arrived.Add(1) == b.parties {
		b.arrived.Store(0)
		b.phase.Add(1)
		return
	}
	for spins := 0; b.phase.Load() == phase; spins++ {
		switch {
		case spins > 3<<10:
			// The system has taken the processor of one that is awaited: it may need this one.
			time.Sleep(20 * time.Microsecond)
		case spins > 1<<10:
			runtime.Gosched() // there may be fewer processors than workers
		}
	}
}

// share runs a worker's part of every job on the one chunk that is the batch.
func (s *Session) share(w *worker) {
	ws := &s.workers[0].ws
	if w.index == 0 {
		ws.first, ws.images = 0, s.images[:s.n*s.inputFloat]
	}
	s.barrier.wait()
	s.pass(w, ws, s.n, len(s.workers))
}

// pass runs all jobs, or their parts that are w's if several workers share them.
func (s *Session) pass(w *worker, ws *workspace, n, workers int) {
	p := s.program
	s.imageByImage(w, ws, n, workers, p.jobs[:p.head])
	s.jobs(w, ws, n, workers, p.jobs[p.head:p.tail])
	s.imageByImage(w, ws, n, workers, p.jobs[p.tail:])
}

func (s *Session) jobs(w *worker, ws *workspace, n, workers int, jobs []job) {
	first := 0
	if workers > 1 {
		first = w.index
	}
	for _, j := range jobs {
		for t := first; t < tasks(j, n, workers); t += workers {
			j.run(ws, n, t, workers, w.scratch)
		}
		if workers > 1 {
			s.barrier.wait()
		}
	}
}

func (s *Session) imageByImage(w *worker, ws *workspace, n, workers int, jobs []job) {
	one := &w.image
	one.layers, one.result = ws.layers, ws.result
	for i := range n {
		for k, slab := range s.program.slabs {
			one.slabs[k] = ws.slabs[k]
			if !slab.once {
				one.slabs[k] = ws.slabs[k][i*slab.floats:]
			}
		}
		one.first, one.images = ws.first+i, ws.images[i*s.inputFloat:]
		s.jobs(w, one, 1, workers, jobs)
	}
	one.images = nil
}

// work runs chunks until none is left.
func (s *Session) work(w *worker) {
	if s.together {
		s.share(w)
		return
	}
	for {
		part := int(s.nextPart.Add(1)) - 1
		if part >= s.parts {
			return
		}
		first, last := part*s.n/s.parts, (part+1)*s.n/s.parts
		w.ws.first = first
		w.ws.images = s.images[first*s.inputFloat : last*s.inputFloat]
		s.pass(w, &w.ws, last-first, 1)
		w.ws.images = nil
	}
}

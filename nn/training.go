package nn

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"nac/internal/kernel"
)

// Parameter is a tensor that training changes. Value is the graph's own memory:
// a step of an optimizer writes to it, and the next Forward uses what it wrote.
type Parameter struct {
	Value, Grad []float32
}

// TrainOptions are how a graph is to be trained.
type TrainOptions struct {
	// Kernel, and Workers: as in Options.
	Kernel  string
	Workers int
	// MaxBatch is the most images of a step.
	MaxBatch int
	// FrozenNorm keeps batch norms' running statistics and normalises with them;
	// weights and biases are trained nevertheless (PyTorch's eval mode).
	FrozenNorm bool
	// Momentum is the weight of a batch in the running statistics; PyTorch's, and
	// the one taken for 0, is 0.1.
	Momentum float64
	// InputGradient asks for the gradient with respect to the images.
	InputGradient bool
}

// Training is a graph compiled for training: a forward pass in train mode, and
// a backward pass from the outputs to the gradient of every parameter. All
// images of a batch go through it together. It holds its memory and is not for
// concurrent use. Results do not depend on the number of workers.
type Training struct {
	jobs     []job
	backward int // the first job of the backward pass
	slabs    []slab
	input    Shape
	maxBatch int

	parameters []*Parameter
	outputs    []*output
	inputGrad  []float32
	dropout    *dropoutSeed
	momentum   *float64

	ws      workspace
	workers []*scratch
	next    []atomic.Int64
	meeting *meeting
	n       int
	ran     bool
}

// output is a node that is read after the forward pass and fed before the
// backward pass.
type output struct {
	channels int
	value    []float32 // [image][channel]
	grad     []float32 // the same; nil for zeros
}

// CompileTraining plans training of the graph's nodes that outputs depend on; each
// output is 1x1. Parameters are the weights and biases of convolutions and linear
// layers, of norms and scales, and tokens. The graph must have been built
// with slices that may be written to.
func CompileTraining(g *Graph, outputs []*Node, o TrainOptions) (*Training, error) {
	if o.MaxBatch < 1 {
		return nil, fmt.Errorf("nn: batch of %d images", o.MaxBatch)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Momentum == 0 {
		o.Momentum = 0.1
	}
	set, err := kernel.ByName(o.Kernel)
	if err != nil {
		return nil, fmt.Errorf("nn: %w", err)
	}
	if set.Pairs() {
		return nil, fmt.Errorf("nn: training is in float32 and not in %s", set.Name())
	}
	if len(outputs) == 0 {
		return nil, errors.New("nn: training without an output")
	}
	pinned := map[*Node]bool{}
	for _, n := range outputs {
		if n.shape.H != 1 || n.shape.W != 1 {
			return nil, fmt.Errorf("nn: output of %v in training; want 1x1", n.shape)
		}
		pinned[n] = true
	}
	c := &trainCompiler{
		compiler: compiler{
			Program:  &Program{kernel: set, maxBatch: o.MaxBatch, workers: o.Workers, chunk: min(maxChunk, o.MaxBatch)},
			stages:   fuse(g, pinned, nil, true),
			training: true,
		},
		options: o,
		train:   &Training{maxBatch: o.MaxBatch, dropout: &dropoutSeed{}, momentum: &o.Momentum},
		owner:   map[*float32]*Parameter{},
	}
	if err := c.compile(outputs); err != nil {
		return nil, err
	}
	return c.finish(), nil
}

type trainCompiler struct {
	compiler
	options TrainOptions
	train   *Training
	owner   map[*float32]*Parameter
	// back plans the backward pass of stages that keep something from the forward
	// pass, by stage.
	back map[*stage]func()
	err  error
}

// parameter returns the gradient's place for a tensor of the graph; nil for no
// tensor.
func (c *trainCompiler) parameter(value []float32) []float32 {
	if len(value) == 0 {
		return nil
	}
	if c.owner[&value[0]] != nil {
		c.fail(errors.New("nn: two layers share a weight, which training cannot do"))
	}
	p := &Parameter{Value: value, Grad: make([]float32, len(value))}
	c.owner[&value[0]] = p
	c.train.parameters = append(c.train.parameters, p)
	return p.Grad
}

func (c *trainCompiler) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *trainCompiler) compile(outputs []*Node) error {
	c.of = map[*Node]*value{}
	for _, s := range c.stages {
		v := s.out
		c.of[v.node] = v
		c.all = append(c.all, v)
		_, isInput := s.op.(inputOp)
		v.wantGrad = hasParameters(s.op) || isInput && c.options.InputGradient
		for _, in := range append(s.in, s.res) {
			v.wantGrad = v.wantGrad || in != nil && in.wantGrad
		}
	}
	c.geometries()
	c.back = map[*stage]func(){}
	repack := &repackJob{}
	c.emit(repack)
	for _, s := range c.stages {
		c.forwardStage(s)
	}
	for _, n := range outputs {
		v := c.of[n]
		out := &output{channels: n.shape.C, value: make([]float32, c.maxBatch*n.shape.C)}
		c.train.outputs = append(c.train.outputs, out)
		c.emit(&outputJob{v.act, out})
	}
	c.train.backward = len(c.jobs)
	for i, n := range outputs {
		v := c.of[n]
		if !v.wantGrad {
			continue
		}
		c.prepare(v) // zeros; an output may be asked for twice
		c.emit(&outputGradJob{v.grad, v.mask(), c.train.outputs[i]})
	}
	for i := len(c.stages) - 1; i >= 0; i-- {
		s := c.stages[i]
		if !s.out.wantGrad {
			continue
		}
		c.settle(s.out, Want{}, true)
		c.backwardStage(s)
	}
	repack.gather(c.packings)
	c.head, c.tail = 0, len(c.jobs)
	c.plan()
	return c.err
}

func hasParameters(o op) bool {
	switch o := o.(type) {
	case convOp, depthwiseOp, layerNormOp, groupNormOp, tokensOp:
		return true
	case affineOp:
		return o.source != nil
	}
	return false
}

// forwardStage plans a stage's activation in train mode.
func (c *trainCompiler) forwardStage(s *stage) {
	switch op := s.op.(type) {
	case affineOp:
		if op.source == nil {
			c.compute(s)
			return
		}
		c.norm(s, op.source)
		if s.ceiling > 0 {
			c.emit(newAffineJob(c.kernel, affineOp{}, s.out.act, s.out.act, false, s.ceiling))
		}
	case convOp:
		c.compute(s)
		// A sum's ceiling is a job behind the convolution.
		for i := len(c.jobs) - 1; ; i-- {
			if j, ok := c.jobs[i].(convolution); ok {
				c.refreshBias(j.end().bias, op.bias)
				break
			}
		}
	case depthwiseOp:
		c.compute(s)
		c.refreshBias(c.jobs[len(c.jobs)-1].(*depthwiseJob).bias, op.bias)
	case attentionOp:
		if op.bias != nil {
			c.fail(errors.New("nn: attention with a relative position bias cannot be trained yet"))
		}
		c.compute(s)
	case dropoutOp:
		c.emit(&dropoutJob{op: op, node: s.out.node.id, seed: c.train.dropout, from: s.in[0].act, to: s.out.act})
	default:
		c.compute(s)
	}
}

// refreshBias has the copy that a job reads follow the parameter.
func (c *trainCompiler) refreshBias(copied, bias []float32) {
	if bias != nil {
		c.packings = append(c.packings, &packing{1, func(int) { copy(copied, bias) }})
	}
}

// backwardStage plans the gradients of a stage's parameters and inputs; that of
// its output is complete.
func (c *trainCompiler) backwardStage(s *stage) {
	if back := c.back[s]; back != nil {
		back()
		return
	}
	g, x := s.out.grad, (*value)(nil)
	if len(s.in) > 0 {
		x = s.in[0]
	}
	switch op := s.op.(type) {
	case inputOp:
		c.train.inputGrad = make([]float32, c.maxBatch*s.out.node.shape.C*s.out.node.shape.H*s.out.node.shape.W)
		c.emit(&inputGradJob{g, c.train.inputGrad})
		return
	case convOp:
		weight := c.parameter(op.weight)
		if winogradGrad(op.k, x.geom, g.geom) {
			c.emit(newWinogradGradJob(c.kernel, c.kernel.Outer, op, x.act, g, weight))
		} else {
			c.emit(newConvGradJob(c.kernel.Outer, op, x.act, g, c.maxBatch, weight))
		}
		if op.bias != nil {
			c.biasGradient(g, c.parameter(op.bias))
		}
	case depthwiseOp:
		c.depthwiseGradient(op, x.act, g)
	case layerNormOp:
		c.layerNormGradient(op, x.act, g)
	case groupNormOp:
		c.groupNormBackward(op, x, g)
		return
	case tokensOp:
		c.emit(&tokensGradJob{g, c.parameter(op.class), c.parameter(op.position)})
	case dropoutOp:
		c.prepare(x)
		c.emit(&dropoutJob{op: op, node: s.out.node.id, seed: c.train.dropout, from: g, to: x.grad, mask: x.mask(), accumulate: true})
		return
	}
	further := s.res != nil && s.res.wantGrad
	for _, in := range s.in {
		further = further || in.wantGrad
	}
	if further {
		c.propagate(s)
	}
}

func (c *trainCompiler) finish() *Training {
	t := c.train
	t.jobs, t.slabs, t.input = c.jobs, c.slabs, c.input
	t.next = make([]atomic.Int64, len(t.jobs))
	t.meeting = newMeeting(c.workers)
	widest := 0
	for i := range t.slabs {
		widest = max(widest, t.slabs[i].stride)
		t.ws.slabs = append(t.ws.slabs, kernel.Aligned(t.slabs[i].size(c.maxBatch)))
	}
	for range c.workers {
		t.workers = append(t.workers, newScratch(t.jobs, widest))
	}
	return t
}

// Bytes is the working memory of the passes, weights and gradients not counted.
func (t *Training) Bytes() int64 {
	n := int64(0)
	for _, s := range t.ws.slabs {
		n += 4 * int64(len(s))
	}
	return n
}

// Parameters are the tensors that training changes, from the outputs to the
// image. The list is the training's own.
func (t *Training) Parameters() []*Parameter { return t.parameters }

// SetMomentum changes the weight of a batch in the running statistics; see
// TrainOptions. A weight of 1/i at the i-th batch makes them plain means.
func (t *Training) SetMomentum(momentum float64) { *t.momentum = momentum }

// Forward runs n images, float32 NCHW, in train mode. seed decides which values
// dropout drops.
func (t *Training) Forward(images []float32, n int, seed uint64) error {
	if n < 1 || n > t.maxBatch {
		return fmt.Errorf("nn: batch of %d images in a training for 1 to %d", n, t.maxBatch)
	}
	if want := n * t.input.C * t.input.H * t.input.W; len(images) < want {
		return fmt.Errorf("nn: %d values are not %d images of %v", len(images), n, t.input)
	}
	t.n, t.ran, t.dropout.seed = n, true, seed
	t.ws.images = images
	t.run(0, t.backward)
	t.ws.images = nil
	return nil
}

// Output is what the last Forward yielded for an output: a row for each image. It is
// valid until the next Forward.
func (t *Training) Output(i int) []float32 {
	o := t.outputs[i]
	return o.value[:t.n*o.channels]
}

// Backward fills every parameter's Grad, given the gradient of the loss with
// respect to each output of the last Forward; nil is zero.
func (t *Training) Backward(grads ...[]float32) error {
	if !t.ran {
		return errors.New("nn: a backward pass without a forward pass")
	}
	if len(grads) != len(t.outputs) {
		return fmt.Errorf("nn: gradients of %d outputs, of which there are %d", len(grads), len(t.outputs))
	}
	for i, g := range grads {
		if want := t.n * t.outputs[i].channels; g != nil && len(g) != want {
			return fmt.Errorf("nn: a gradient of %d values for an output of %d", len(g), want)
		}
		t.outputs[i].grad = g
	}
	t.ran = false // what the forward pass kept has been overwritten
	t.run(t.backward, len(t.jobs))
	return nil
}

// InputGradient is the gradient with respect to the images of the last Backward,
// as NCHW, if it was asked for.
func (t *Training) InputGradient() []float32 {
	if t.inputGrad == nil {
		return nil
	}
	return t.inputGrad[:t.n*t.input.C*t.input.H*t.input.W]
}

// run does jobs one after the other, all workers on the tasks of each.
func (t *Training) run(first, last int) {
	for i := first; i < last; i++ {
		t.next[i].Store(0)
	}
	work := func(s *scratch) {
		for i := first; i < last; i++ {
			j := t.jobs[i]
			for total := tasks(j, t.n, len(t.workers)); ; {
				task := int(t.next[i].Add(1)) - 1
				if task >= total {
					break
				}
				j.run(&t.ws, t.n, task, len(t.workers), s)
			}
			t.meeting.wait()
		}
	}
	var wait sync.WaitGroup
	for _, s := range t.workers[1:] {
		wait.Go(func() { work(s) })
	}
	work(t.workers[0])
	wait.Wait()
}

// meeting is a barrier whose parties sleep: a pass over a batch takes milliseconds,
// and another program may have the processor of the last to arrive.
type meeting struct {
	mu               sync.Mutex
	all              *sync.Cond
	parties, arrived int
	phase            int
}

func newMeeting(parties int) *meeting {
	m := &meeting{parties: parties}
	m.all = sync.NewCond(&m.mu)
	return m
}

func (m *meeting) wait() {
	m.mu.Lock()
	defer m.mu.Unlock()
	phase := m.phase
	if m.arrived++; m.arrived == m.parties {
		m.arrived = 0
		m.phase++
		m.all.Broadcast()
		return
	}
	for m.phase == phase {
		m.all.Wait()
	}
}

// repackJob lays the weights out again after they changed.
type repackJob struct {
	packings []*packing
	first    []int // of each packing, the number of parts before it
	parts    int
}

func (j *repackJob) gather(packings []*packing) {
	j.packings = packings
	for _, p := range packings {
		j.first = append(j.first, j.parts)
		j.parts += p.parts
	}
}

func (j *repackJob) uses() []*buffer { return nil }

// repackTasks is into how many tasks repacking falls.
const repackTasks = 256

func (j *repackJob) tasks(int, int) int { return min(j.parts, repackTasks) }

func (j *repackJob) run(_ *workspace, _, task, _ int, _ *scratch) {
	count := min(j.parts, repackTasks)
	for i, p := range j.packings {
		first := max(task*j.parts/count, j.first[i])
		last := min((task+1)*j.parts/count, j.first[i]+p.parts)
		for part := first; part < last; part++ {
			p.fill(part - j.first[i])
		}
	}
}

// outputJob copies an output for the caller.
type outputJob struct {
	in  *buffer
	out *output
}

func (j *outputJob) uses() []*buffer { return []*buffer{j.in} }

func (j *outputJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	c := j.out.channels
	copy(j.out.value[image*c:][:c], ws.pixel(j.in, image, 0, 0))
}

// outputGradJob adds the gradient that the caller gives.
type outputGradJob struct {
	to, mask *buffer
	out      *output
}

func (j *outputGradJob) uses() []*buffer { return []*buffer{j.to, j.mask} }

func (j *outputGradJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	if j.out.grad == nil {
		return
	}
	c := j.out.channels
	to := ws.pixel(j.to, image, 0, 0)
	for i, v := range j.out.grad[image*c:][:c] {
		if j.mask == nil || ws.pixel(j.mask, image, 0, 0)[i] > 0 {
			to[i] += v
		}
	}
}

// inputGradJob unpacks the images' gradient to NCHW.
type inputGradJob struct {
	from *buffer
	to   []float32
}

func (j *inputGradJob) uses() []*buffer { return []*buffer{j.from} }

func (j *inputGradJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.from.geom
	plane := g.height * g.width
	dst := j.to[image*g.channels*plane:][:g.channels*plane]
	for y := range g.height {
		row := ws.row(j.from, image, y)
		for x := range g.width {
			for c := range g.channels {
				dst[c*plane+y*g.width+x] = row[x*g.stride+c]
			}
		}
	}
}

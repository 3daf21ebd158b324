package nn

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"nac/internal/kernel"
)

// Want says what a program is to compute.
type Want struct {
	// Logits is the last linear layer; Feature is a 1x1 activation to copy out. Nil
	// ones are left out, and with them what only they need.
	Logits, Feature *Node
	// Layers are the nodes whose activations are summed over space.
	Layers []*Node
	// Gradients asks for the gradient of KL(uniform || softmax(Logits)) with
	// respect to Layers, summed likewise.
	Gradients bool
	// Maps are functions of whole activations.
	Maps []Map
	// From, if not nil, is a node whose activation is given instead of the image.
	From *Node
	// Losses asks for the gradient of each with respect to what is given, the image or
	// From's activation: one forward pass, and a backward pass for each. They exclude
	// Gradients.
	Losses []Loss
}

// Program is a graph compiled for a set of wanted activations: jobs in order,
// each with its operands' places in memory, and the packed weights. It is
// read-only and may be shared by sessions.
type Program struct {
	kernel *kernel.Set
	jobs   []job
	// The jobs before head and from tail on go through a chunk image by image: their
	// activations are large and their weights small. Those between read their
	// weights once for the whole chunk.
	head, tail int
	slabs      []slab
	input      Shape
	layers     []int // channels of each wanted layer
	k, f       int   // classes, features
	// maxBatch and workers are what sessions are made for. chunk is the most images
	// a worker may have at once; it decides between algorithms, so it must not
	// depend on the number of workers.
	maxBatch, workers, chunk int
	maps                     []Map
	losses                   int
	// packed is the size of the weights in floats.
	packed int64
}

// job is one pass over the memory of a chunk of images.
type job interface {
	// uses lists the buffers read or written; nil entries are ignored.
	uses() []*buffer
	// run does one task of the job for n images; see tasks.
	run(ws *workspace, n, task, workers int, s *scratch)
}

// divisible is a job whose tasks are not simply the images.
type divisible interface{ tasks(n, workers int) int }

// tasks returns into how many independent parts a job for n images falls.
func tasks(j job, n, workers int) int {
	if d, ok := j.(divisible); ok {
		return d.tasks(n, workers)
	}
	return n
}

// Options are how a program is to run.
type Options struct {
	// Kernel is a name of package kernel ("avx512", "avx2", "portable", "bf16"), or empty
	// for the best in float32 that this machine runs.
	Kernel string
	// MaxBatch is the most images of a run.
	MaxBatch int
	// Workers is the number of goroutines; 0 means all processors.
	Workers int
}

// Compile plans the passes for want. The algorithm of a convolution depends on
// MaxBatch: results of programs for other batches may differ by rounding.
func Compile(g *Graph, want Want, o Options) (*Program, error) {
	if o.MaxBatch < 1 {
		return nil, fmt.Errorf("nn: batch of %d images", o.MaxBatch)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	set, err := kernel.ByName(o.Kernel)
	if err != nil {
		return nil, fmt.Errorf("nn: %w", err)
	}
	if len(want.Losses) > 0 && want.Gradients {
		return nil, errors.New("nn: losses and the KL gradients in one pass")
	}
	if want.Logits == nil && want.Gradients {
		return nil, errors.New("nn: KL gradients without logits")
	}
	pinned := map[*Node]bool{}
	for _, n := range want.nodes() {
		pinned[n] = true
	}
	c := &compiler{
		Program: &Program{
			kernel: set, maxBatch: o.MaxBatch, workers: o.Workers, chunk: min(maxChunk, o.MaxBatch),
			maps: want.Maps, losses: len(want.Losses),
		},
		stages: fuse(g, pinned, want.From, false),
	}
	if want.Logits != nil {
		c.k = want.Logits.shape.C
	}
	if want.Feature != nil {
		c.f = want.Feature.shape.C
	}
	if err := c.cut(want); err != nil {
		return nil, err
	}
	c.values(want)
	c.geometries()
	c.forward(want)
	if want.Gradients && len(want.Layers) > 0 {
		c.backward(want)
	}
	for i, l := range want.Losses {
		c.lossBackward(want, i, l)
	}
	c.divide()
	c.plan()
	return c.Program, nil
}

type compiler struct {
	*Program
	stages []*stage
	of     map[*Node]*value
	all    []*value // in topological order
	// training asks for jobs whose weights may change; packings are how to lay
	// them out again.
	training bool
	packings []*packing
}

// values finds the values, and which of them need a gradient.
func (c *compiler) values(want Want) {
	c.of = map[*Node]*value{}
	for _, s := range c.stages {
		c.of[s.out.node] = s.out
		c.all = append(c.all, s.out)
	}
	for i, n := range want.Layers {
		v := c.of[n]
		if v.layer < 0 {
			v.layer = i
		}
		v.wantGrad = want.Gradients
		c.layers = append(c.layers, n.shape.C)
	}
	for _, s := range c.stages {
		switch s.op.(type) {
		case inputOp, givenOp:
			s.out.wantGrad = s.out.wantGrad || len(want.Losses) > 0
		}
		for _, in := range append(s.in, s.res) {
			if in != nil && in.wantGrad {
				s.out.wantGrad = true
			}
		}
	}
}

// geometries gives every value its place's layout. Values that are added to
// each other, or whose gradients may be one another's, share a layout.
func (c *compiler) geometries() {
	parent := map[*value]*value{}
	var find func(v *value) *value
	find = func(v *value) *value {
		if p := parent[v]; p != nil {
			r := find(p)
			parent[v] = r
			return r
		}
		return v
	}
	union := func(a, b *value) {
		if a, b := find(a), find(b); a != b {
			parent[a] = b
		}
	}
	for _, s := range c.stages {
		if s.res != nil {
			union(s.res, s.out)
		}
		switch s.op.(type) {
		case dropoutOp, groupNormOp, leakyOp, addOp, affineOp, mulOp, pointwiseOp, layerNormOp:
			for _, in := range s.in {
				if in.node.shape == s.out.node.shape {
					union(in, s.out)
				}
			}
		}
	}
	padded := map[*value]bool{} // read by whole vectors
	for _, s := range c.stages {
		switch s.op.(type) {
		case depthwiseOp, maxOp:
			padded[s.in[0]] = true
		}
	}
	members := map[*value]int{}
	for _, v := range c.all {
		members[find(v)]++
	}
	for _, v := range c.all {
		r := find(v)
		if r.geom == nil {
			r.geom = newGeometry(v.node.shape)
			if _, ok := v.node.op.(inputOp); ok && members[r] == 1 && !v.wantGrad && !padded[v] {
				// Packed without gaps, so that a row of taps is one long tap.
				r.geom.stride = v.node.shape.C
			}
		}
		v.geom = r.geom
	}
	p := c.convPlan()
	for _, s := range c.stages {
		switch op := s.op.(type) {
		case convOp:
			p.growForward(op.k, s.in[0].geom, s.out.geom)
			if s.in[0].wantGrad {
				p.growBackward(op.k, s.in[0].geom, s.out.geom)
			}
			if c.training && winogradGrad(op.k, s.in[0].geom, s.out.geom) {
				growWinogradGrad(op.k, s.in[0].geom, s.out.geom)
			}
		case depthwiseOp:
			growDirect(op.k, s.in[0].geom, s.out.geom)
			if s.in[0].wantGrad {
				growDirectBack(op.k, s.in[0].geom, s.out.geom)
			}
		}
	}
	for _, v := range c.all {
		v.act = &buffer{geom: v.geom}
	}
}

func (c *compiler) convPlan() convPlan { return convPlan{c.kernel, c.chunk, c.pairUp} }

func (c *compiler) emit(j job) { c.jobs = append(c.jobs, j) }

func (c *compiler) emitConv(j convolution) {
	c.packed += int64(j.packed())
	j.pack().all(c.workers)
	c.keep(j.repack())
	c.emit(j)
}

// keep notes how a job's weights are laid out, or lets go of the graph's weights
// where they cannot change.
func (c *compiler) keep(p *packing) {
	if !c.training {
		p.fill = nil
		return
	}
	c.packings = append(c.packings, p)
}

func (c *compiler) forward(want Want) {
	for _, s := range c.stages {
		v := s.out
		c.compute(s)
		for i, n := range want.Layers {
			if n == v.node {
				c.emit(&poolJob{pool: c.kernel.Pool(), from: v.act, layer: i})
			}
		}
		for i, m := range want.Maps {
			if m.Node == v.node {
				c.emit(&mapJob{i, m, v.act})
			}
		}
		if v.node == want.Feature {
			c.emit(&copyJob{v.act, false})
		}
		if v.node == want.Logits {
			c.emit(&copyJob{v.act, true})
		}
	}
}

// compute plans a stage's activation.
func (c *compiler) compute(s *stage) {
	v := s.out
	switch op := s.op.(type) {
	case inputOp:
		c.input = v.node.shape
		c.emit(&inputJob{v.act})
	case givenOp:
		c.input = v.node.shape
		c.emit(&givenJob{v.act})
	case convOp:
		j := forwardConv(c.convPlan(), op, s.in[0].act, v.act)
		if s.res != nil {
			j.end().res = s.res.act
		}
		if s.relu {
			j.end().flags |= kernel.ReLU
		}
		c.emitConv(j)
	case depthwiseOp:
		j := forwardDepthwise(c.kernel, op, s.in[0].act, v.act)
		if s.relu {
			j.flags |= kernel.ReLU
		}
		if s.ceiling > 0 {
			j.flags, j.ceiling = j.flags|kernel.Clip, s.ceiling
		}
		c.emitDepthwise(j)
	case mulOp:
		c.emit(&mulJob{s.in[0].act, s.in[1].act, v.act})
	case pointwiseOp:
		if op.f == GELU {
			c.geluForward(s.in[0], v)
			break
		}
		c.emit(&pointwiseJob{s.in[0].act, v.act, functions[op.f].value})
	case selectOp:
		c.emit(&selectJob{op, s.in[0].act, v.act})
	case layerNormOp:
		c.emit(&layerNormJob{norm: c.kernel.Transformer().LayerNorm, op: op, in: s.in[0].act, out: v.act})
	case attentionOp:
		c.emit(newAttentionJob(c.kernel, op, s.in[0].act, v.act))
	case pixelsOp:
		c.emit(&pixelsJob{op, s.in[0].act, v.act})
	case tokensOp:
		c.emit(&tokensJob{op, s.in[0].act, v.act})
	case tokenOp:
		c.emit(&tokenJob{op, s.in[0].act, v.act})
	case mergeOp:
		c.emit(&mergeJob{s.in[0].act, v.act})
	case groupNormOp:
		c.emit(&groupNormJob{op, c.kernel, s.in[0].act, v.act})
	case leakyOp:
		c.emit(&leakyJob{op, s.in[0].act, v.act})
	case gatherOp:
		c.emit(newGatherJob(c.kernel, op, s.in, v.act, s.relu, s.ceiling))
	case affineOp:
		c.emit(newAffineJob(c.kernel, op, s.in[0].act, v.act, s.relu, s.ceiling))
	case addOp:
		c.emit(newAddJob(c.kernel, s.in[0].act, s.in[1].act, v.act, s.relu))
	case meanOp:
		c.emit(&meanJob{c.kernel.Pool(), s.in[0].act, v.act})
	case maxOp:
		c.emit(&maxJob{op.window, c.kernel.Max(), s.in[0].act, v.act})
	case avgOp:
		c.emit(&avgJob{op, s.in[0].act, v.act})
	case shortcutOp:
		c.emit(&shortcutJob{op, s.in[0].act, v.act})
	default:
		panic(fmt.Sprintf("nn: no forward pass for %T", op))
	}
	switch s.op.(type) {
	case convOp, addOp:
		if s.ceiling > 0 {
			c.emit(newAffineJob(c.kernel, affineOp{}, v.act, v.act, false, s.ceiling))
		}
	}
}

// backward plans the pass from the logits down to the shallowest wanted layer.
// Stages come in reverse, so a value's gradient is complete when it is reached.
func (c *compiler) backward(want Want) {
	logits := c.of[want.Logits]
	if !logits.wantGrad {
		c.zeroGradients(want)
		return
	}
	logits.grad = &buffer{geom: logits.geom}
	logits.written = true
	c.emit(&lossJob{logits.act, logits.grad})
	c.findLone(logits)
	c.descend(want, logits)
}

// findLone finds which gradients will be zero at all pixels but one, as they are where
// of a sequence only the class token is read on.
func (c *compiler) findLone(from *value) {
	reached := map[*value]bool{from: true}
	contribute := func(x *value, lone bool, pixel int) {
		if x == nil || !x.wantGrad {
			return
		}
		x.lone = lone && (!reached[x] || x.lone && x.pixel == pixel)
		x.pixel = pixel
		reached[x] = true
	}
	for _, s := range slices.Backward(c.stages) {
		v := s.out
		if !reached[v] {
			continue
		}
		contribute(s.res, v.lone, v.pixel)
		for _, in := range s.in {
			switch op := s.op.(type) {
			case tokenOp:
				contribute(in, true, op.index)
			case addOp, affineOp, layerNormOp, pointwiseOp: // pixel by pixel
				contribute(in, v.lone, v.pixel)
			case convOp:
				contribute(in, v.lone && op.k.point(), v.pixel)
			default:
				contribute(in, false, 0)
			}
		}
	}
}

// descend plans the backward pass from a value whose gradient is written.
func (c *compiler) descend(want Want, from *value) {
	reached := false
	for i := len(c.stages) - 1; i >= 0; i-- {
		s := c.stages[i]
		v := s.out
		reached = reached || v == from
		if !reached || !v.wantGrad {
			continue
		}
		further := s.res != nil && s.res.wantGrad
		for _, in := range s.in {
			further = further || in.wantGrad
		}
		c.settle(v, want, further)
		if further {
			c.propagate(s)
		}
	}
}

// zeroGradients is for layers that do not feed the logits.
func (c *compiler) zeroGradients(want Want) {
	for i := range want.Layers {
		c.emit(&zeroStateJob{i})
	}
}

// settle makes v.grad the whole gradient of v, masked if further stages are to
// read it, and pools it if v is a wanted layer.
func (c *compiler) settle(v *value, want Want, further bool) {
	maskHere := (v.layer >= 0 || v.ceiling > 0) && v.relu && further
	if !v.written {
		if v.pending != nil && !v.masked() && !maskHere {
			v.grad, v.pending, v.borrowed = v.pending, nil, true
		} else {
			c.prepare(v)
		}
	} else if v.pending != nil {
		panic("nn: a pending gradient beside a written one")
	}
	for i, n := range want.Layers {
		if n == v.node && i != v.layer {
			c.emit(&poolJob{pool: c.kernel.Pool(), from: v.grad, layer: i, gradient: true})
		}
	}
	if v.layer >= 0 {
		j := &poolJob{pool: c.kernel.Pool(), from: v.grad, layer: v.layer, gradient: true}
		if maskHere && v.ceiling == 0 {
			j.mask = v.act
		}
		c.emit(j)
	}
	if maskHere && v.ceiling > 0 {
		c.emit(&clipBackJob{v.grad, v.act, v.ceiling})
	}
}

// prepare makes v.grad hold what has been contributed so far, zero if nothing,
// so that more can be accumulated.
func (c *compiler) prepare(v *value) {
	if v.written {
		return
	}
	if v.grad == nil {
		v.grad = &buffer{geom: v.geom}
	}
	if v.pending != nil {
		c.emit(&identityJob{newAdder(c.kernel, v.geom.stride), v.pending, v.grad, v.mask(), 0})
		v.pending = nil
	} else {
		c.emit(&zeroJob{v.grad})
	}
	v.written = true
}

// mask returns what contributions to v's gradient are masked by, or nil.
func (v *value) mask() *buffer {
	if v.masked() {
		return v.act
	}
	return nil
}

// propagate contributes the gradient of a stage's output to its inputs.
func (c *compiler) propagate(s *stage) {
	g := s.out.grad
	if s.res != nil && s.res.wantGrad {
		c.identity(s.res, g)
	}
	if _, ok := s.op.(addOp); ok {
		for _, in := range s.in {
			if in.wantGrad {
				c.identity(in, g)
			}
		}
		return
	}
	switch op := s.op.(type) {
	case gatherOp:
		c.spread(op, g, s.in)
		return
	case mulOp:
		c.product(g, s.in[0], s.in[1])
		return
	}
	x := s.in[0]
	if !x.wantGrad {
		return
	}
	switch op := s.op.(type) {
	case convOp:
		c.convContribution(op, s.out, x)
	case depthwiseOp:
		c.depthwiseContribution(op, g, x)
	case pointwiseOp:
		if op.f == GELU {
			c.geluContribution(s.out, x)
			return
		}
		c.prepare(x)
		c.emit(&pointwiseBackJob{g, x.grad, x.act, x.mask(), functions[op.f].gradient})
	case layerNormOp:
		c.layerNormContribution(op, g, x)
	case groupNormOp:
		c.groupNormContribution(op, g, x)
	case leakyOp:
		c.prepare(x)
		c.emit(&leakyBackJob{op, g, x.grad, x.act, x.mask()})
	case attentionOp:
		c.attentionContribution(op, s.out, x)
	case pixelsOp:
		c.prepare(x)
		c.emit(&pixelsBackJob{op, g, x.grad, x.mask()})
	case tokensOp:
		c.prepare(x)
		c.emit(&tokensBackJob{g, x.grad, x.mask()})
	case tokenOp:
		c.prepare(x)
		c.emit(&tokenBackJob{op, g, x.grad, x.mask()})
	case mergeOp:
		c.prepare(x)
		c.emit(&mergeBackJob{g, x.grad, x.mask()})
	case selectOp:
		c.prepare(x)
		c.emit(&selectBackJob{op, g, x.grad, x.mask()})
	case affineOp:
		if op.scale == nil {
			c.identity(x, g)
			return
		}
		c.prepare(x)
		c.emit(newScaleJob(op, g, x))
	case meanOp:
		c.prepare(x)
		c.emit(&meanBackJob{newAdder(c.kernel, x.grad.geom.stride), g, x.grad, x.mask()})
	case maxOp:
		c.prepare(x)
		c.emit(&maxBackJob{op.window, g, x.grad, x.act, x.masked()})
	case avgOp:
		c.prepare(x)
		c.emit(&avgBackJob{op, g, x.grad, x.mask()})
	case shortcutOp:
		c.prepare(x)
		c.emit(&shortcutBackJob{op, newAdder(c.kernel, x.grad.geom.stride), g, x.grad, x.mask()})
	default:
		panic(fmt.Sprintf("nn: no backward pass for %T", op))
	}
}

// identity contributes g unchanged: it waits for a convolution that can add it
// in passing, unless there is something to add it to already.
func (c *compiler) identity(v *value, g *buffer) {
	if !v.written && v.pending == nil {
		v.pending = g
		return
	}
	c.prepare(v)
	c.emit(&identityJob{newAdder(c.kernel, v.geom.stride), g, v.grad, v.mask(), kernel.Accumulate})
}

// convContribution contributes the gradient of a convolution's output v to its input.
func (c *compiler) convContribution(op convOp, v, x *value) {
	if x.grad == nil {
		x.grad = &buffer{geom: x.geom}
	}
	jobs := backwardConv(c.convPlan(), op, v.grad, x.grad)
	if v.lone && op.k.point() {
		jobs[0].(*convJob).only(v.pixel)
	}
	covered := 0
	for _, j := range jobs {
		covered += j.pixels()
	}
	if covered < x.geom.pixels() {
		c.prepare(x)
	}
	for _, j := range jobs {
		j.end().mask = x.mask()
		if x.written {
			j.end().flags |= kernel.Accumulate
		} else {
			j.end().res = x.pending
		}
		c.emitConv(j)
	}
	x.written, x.pending = true, nil
}

// plan finds each buffer's life and gives it a slab.
func (c *compiler) plan() {
	seen := map[*buffer]bool{}
	var buffers []*buffer
	for i, j := range c.jobs {
		for _, b := range j.uses() {
			if b == nil {
				continue
			}
			if !seen[b] {
				seen[b] = true
				b.first = i
				buffers = append(buffers, b)
			}
			b.last = i
		}
	}
	c.slabs = assignSlabs(buffers, len(c.jobs), c.head, c.tail)
}

// manyPixels is how many floats of input and output make a convolution go image by
// image, if they are also more than its weights.
const manyPixels = 1 << 18

// divide finds head and tail.
func (c *compiler) divide() {
	c.head, c.tail = len(c.jobs), 0
	for i, j := range c.jobs {
		conv, ok := j.(convolution)
		if !ok {
			continue
		}
		floats := 0
		for _, b := range conv.uses()[:2] {
			floats += b.geom.image()
		}
		if floats < manyPixels || floats < conv.packed() {
			c.head, c.tail = min(c.head, i), i+1
		}
	}
	c.tail = max(c.tail, c.head)
}

// bytes is the working memory of a chunk of images.
func (p *Program) bytes(chunk int) int64 {
	var n int64
	for _, s := range p.slabs {
		n += 4 * int64(s.size(chunk))
	}
	return n
}

// size is the floats of a slab for a chunk of images.
func (s slab) size(chunk int) int {
	if s.once {
		return s.floats
	}
	return chunk * s.floats
}

// WeightBytes is the memory of the packed weights.
func (p *Program) WeightBytes() int64 { return 4 * p.packed }

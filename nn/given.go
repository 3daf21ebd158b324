package nn

import "fmt"

// Map asks for what a function makes of the whole activation of a node, image by
// image, so that activations need not be kept.
type Map struct {
	Node *Node
	// Size is the number of values that Reduce yields.
	Size int
	// Reduce writes them for one image, whose activation comes as H×W pixels of C
	// channels and may be written to. It is called from several goroutines at once.
	Reduce func(activation, dst []float32)
}

// Loss is a function of an image's activation of a node, averaged over space.
type Loss struct {
	Node *Node
	// Gradient writes the gradient of the loss with respect to C values. It is
	// called from several goroutines at once.
	Gradient func(values, gradient []float32)
}

// givenOp stands for a node whose activation is given.
type givenOp struct{}

// nodes are those whose activation is read or given.
func (w Want) nodes() (nodes []*Node) {
	add := func(n *Node) {
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	add(w.Logits)
	add(w.Feature)
	add(w.From)
	for _, n := range w.Layers {
		add(n)
	}
	for _, m := range w.Maps {
		add(m.Node)
	}
	for _, l := range w.Losses {
		add(l.Node)
	}
	return nodes
}

// cut checks that nothing wanted needs the image beside the node that a run starts
// from.
func (c *compiler) cut(want Want) error {
	if want.From == nil {
		return nil
	}
	for _, s := range c.stages {
		if _, ok := s.op.(inputOp); ok {
			return fmt.Errorf("nn: what is wanted needs more of the image than the activation of %v that is given", want.From.shape)
		}
	}
	return nil
}

// lossBackward plans the backward pass of the i-th loss, behind those before it.
func (c *compiler) lossBackward(want Want, i int, l Loss) {
	for _, v := range c.all {
		v.grad, v.pending, v.written, v.borrowed = nil, nil, false, false
	}
	v := c.of[l.Node]
	v.grad, v.written = &buffer{geom: v.geom}, true
	c.emit(&meanLossJob{gradient: l.Gradient, act: v.act, grad: v.grad, mask: v.mask()})
	c.descend(want, v)
	for _, s := range c.stages {
		switch s.op.(type) {
		case inputOp:
			c.emit(&inputGradientJob{i, s.out.grad, true})
		case givenOp:
			c.emit(&inputGradientJob{i, s.out.grad, false})
		}
	}
}

func (s *scratch) grow(p *Program) {
	size, channels := 0, 0
	for _, m := range p.maps {
		size = max(size, m.Node.shape.C*m.Node.shape.H*m.Node.shape.W)
	}
	for _, j := range p.jobs {
		if j, ok := j.(*meanLossJob); ok {
			channels = max(channels, j.act.geom.channels)
		}
	}
	s.activation, s.values, s.gradient = make([]float32, size), make([]float32, channels), make([]float32, channels)
}

// givenJob packs a given activation, pixels of C channels.
type givenJob struct{ out *buffer }

func (j *givenJob) uses() []*buffer { return []*buffer{j.out} }

func (j *givenJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.out.geom
	src := ws.images[image*g.pixels()*g.channels:]
	for y := range g.height {
		row := ws.row(j.out, image, y)
		for x := range g.width {
			dst := row[x*g.stride:][:g.stride]
			copy(dst[:g.channels], src)
			clear(dst[g.channels:]) // the slab may have held something else
			src = src[g.channels:]
		}
	}
}

// mapJob reduces an activation.
type mapJob struct {
	index int
	Map
	from *buffer
}

func (j *mapJob) uses() []*buffer { return []*buffer{j.from} }

func (j *mapJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.from.geom
	activation := s.activation[:g.pixels()*g.channels]
	ws.unpack(j.from, image, activation)
	j.Reduce(activation, ws.result.Maps[j.index][(ws.first+image)*j.Size:][:j.Size])
}

// unpack copies an activation out, pixels of C channels.
func (ws *workspace) unpack(b *buffer, image int, dst []float32) {
	g := b.geom
	for y := range g.height {
		row := ws.row(b, image, y)
		if g.stride == g.channels {
			dst = dst[copy(dst, row):]
			continue
		}
		for x := range g.width {
			dst = dst[copy(dst, row[x*g.stride:][:g.channels]):]
		}
	}
}

// meanLossJob is the gradient of a loss at its node: each pixel has an equal share of
// the mean's.
type meanLossJob struct {
	gradient        func(values, gradient []float32)
	act, grad, mask *buffer
}

func (j *meanLossJob) uses() []*buffer { return []*buffer{j.act, j.grad, j.mask} }

func (j *meanLossJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.act.geom
	values, gradient := s.values[:g.channels], s.gradient[:g.channels]
	clear(values)
	pixels := float32(g.pixels())
	for y := range g.height {
		// Rows first, then their sum: the error of a float32 sum grows with its length.
		sums := s.sums[:g.channels]
		clear(sums)
		row := ws.row(j.act, image, y)
		for p := 0; p < len(row); p += g.stride {
			for c, v := range row[p:][:len(sums)] {
				sums[c] += v
			}
		}
		for c, v := range sums {
			values[c] += v / pixels
		}
	}
	j.gradient(values, gradient)
	share := s.sums[:g.stride]
	clear(share)
	for c, v := range gradient {
		share[c] = v / pixels
	}
	for y := range g.height {
		to := ws.row(j.grad, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p := 0; p < len(to); p += g.stride {
			for c, v := range share {
				if mask != nil && !(mask[p+c] > 0) {
					v = 0
				}
				to[p+c] = v
			}
		}
	}
}

// inputGradientJob copies out a loss's gradient of what was given: of an image as NCHW.
type inputGradientJob struct {
	loss  int
	from  *buffer
	image bool
}

func (j *inputGradientJob) uses() []*buffer { return []*buffer{j.from} }

func (j *inputGradientJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.from.geom
	plane := g.pixels()
	dst := ws.result.InputGradients[j.loss][(ws.first+image)*g.channels*plane:][:g.channels*plane]
	if !j.image {
		ws.unpack(j.from, image, dst)
		return
	}
	for y := range g.height {
		row := ws.row(j.from, image, y)
		for c := range g.channels {
			to := dst[c*plane+y*g.width:][:g.width]
			for x := range to {
				to[x] = row[x*g.stride+c]
			}
		}
	}
}

// Convolutions returns the nodes that are convolutions of images, in order; linear
// layers, which are convolutions of a pixel, are not among them.
func (g *Graph) Convolutions() (nodes []*Node) {
	for _, n := range g.nodes {
		switch n.op.(type) {
		case convOp, depthwiseOp:
			if s := n.inputs[0].shape; s.H*s.W > 1 {
				nodes = append(nodes, n)
			}
		}
	}
	return nodes
}

package nn

import (
	"cmp"
	"slices"
)

// stage is what remains of the graph after fusion: one pass over memory.
// A convolution takes with it the batch norm, the addition and the ReLU that
// follow, so that their work is done at its last write.
type stage struct {
	op   op
	in   []*value
	res  *value // added before the ReLU; convolutions, and batch norms in training
	relu bool
	// ceiling is what a ReLU6 clips at, beside relu; 0 if nothing.
	ceiling float32
	out     *value
}

// value is an activation that exists in memory.
type value struct {
	node *Node
	relu bool // its gradient passes where it is above zero
	// ceiling, if not 0, is the least value at which the gradient does not pass.
	ceiling float32
	// layer is the index of the wanted layer that this is, or -1. A wanted layer's
	// gradient is unmasked: it is taken behind the ReLU.
	layer int
	// wantGrad: a wanted layer is this value or feeds it.
	wantGrad bool
	geom     *geometry
	act      *buffer
	grad     *buffer
	// pending is a gradient that is to be added to this one unchanged, and that
	// the next convolution to write here takes up as its residual.
	pending *buffer
	written bool
	// borrowed: grad is another value's too.
	borrowed bool
	// lone: the gradient is zero at all pixels but the one of this number.
	lone  bool
	pixel int
}

// masked reports whether contributions to the gradient are masked as they are
// written. The mask of a sum is the sum of the masked. Where the mask is not
// simply what is above zero, it is applied to the sum.
func (v *value) masked() bool { return v.relu && v.layer < 0 && v.ceiling == 0 }

// fuse turns the pinned nodes and their ancestors into stages. Pinned nodes keep
// an activation of their own. From, if not nil, is given: its ancestors are not
// needed. In training a batch norm is a stage by itself, which takes the sum and the
// ReLU with it.
func fuse(g *Graph, pinned map[*Node]bool, from *Node, training bool) []*stage {
	needed := make([]bool, len(g.nodes))
	for i := len(g.nodes) - 1; i >= 0; i-- {
		n := g.nodes[i]
		if !needed[i] && !pinned[n] {
			continue
		}
		needed[i] = true
		if n == from {
			continue
		}
		for _, in := range n.inputs {
			needed[in.id] = true
		}
	}
	next := make([][]*Node, len(g.nodes)) // needed consumers
	for _, n := range g.nodes {
		if needed[n.id] && n != from {
			for _, in := range n.inputs {
				next[in.id] = append(next[in.id], n)
			}
		}
	}
	only := func(n *Node) *Node {
		if pinned[n] || len(next[n.id]) != 1 {
			return nil
		}
		return next[n.id][0]
	}

	gathered := func(n *Node) bool { return !training && virtual(n, pinned, next[n.id]) }
	values := make([]*value, len(g.nodes))
	at := func(n *Node) *value {
		if values[n.id] == nil {
			values[n.id] = &value{node: n, layer: -1}
		}
		return values[n.id]
	}
	taken := make([]bool, len(g.nodes))
	var stages []*stage
	for _, n := range g.nodes {
		if !needed[n.id] || taken[n.id] || gathered(n) {
			continue
		}
		if n == from {
			stages = append(stages, &stage{op: givenOp{}, out: at(n)})
			continue
		}
		s := &stage{op: n.op}
		last := n
		take := func(m *Node) { taken[m.id], last = true, m }
		takeSum := func() {
			m := only(last)
			if m == nil || taken[m.id] {
				return
			}
			if _, ok := m.op.(addOp); ok && m.inputs[0] != m.inputs[1] {
				other := m.inputs[0]
				if other == last {
					other = m.inputs[1]
				}
				s.res = at(other)
				take(m)
			}
		}
		var read func(inputs []*Node)
		read = func(inputs []*Node) {
			for _, in := range inputs {
				if gathered(in) {
					read(in.inputs)
					continue
				}
				s.in = append(s.in, at(in))
			}
		}
		read(n.inputs)
		switch o := n.op.(type) {
		case convOp:
			c := o
			for m := only(last); m != nil && !training; m = only(last) {
				a, ok := m.op.(affineOp)
				if !ok {
					break
				}
				c = c.fold(a)
				take(m)
			}
			takeSum()
			s.op = c
		case depthwiseOp:
			for m := only(last); m != nil && !training; m = only(last) {
				a, ok := m.op.(affineOp)
				if !ok {
					break
				}
				o = o.fold(a)
				take(m)
			}
			s.op = o
		case affineOp:
			if training && o.source != nil {
				takeSum()
			}
		case reluOp:
			s.op, s.relu = affineOp{}, true
		case clipOp:
			s.op, s.relu, s.ceiling = affineOp{}, true, o.ceiling
		case concatOp:
			s.op = gatherOp{}
		case dropoutOp:
			if !training {
				s.op = affineOp{}
			}
		}
		if a, ok := s.op.(affineOp); ok && gathered(n.inputs[0]) {
			s.op = gatherOp(a)
		}
		switch s.op.(type) {
		case convOp, depthwiseOp, affineOp, addOp, gatherOp:
			if m := only(last); m != nil && !s.relu {
				switch o := m.op.(type) {
				case reluOp:
					s.relu = true
					take(m)
				case clipOp:
					s.relu, s.ceiling = true, o.ceiling
					take(m)
				}
			}
		}
		s.out = at(last)
		s.out.relu, s.out.ceiling = s.relu, s.ceiling
		stages = append(stages, s)
	}
	// A fused addition needs its other operand first.
	slices.SortStableFunc(stages, func(a, b *stage) int { return cmp.Compare(a.out.node.id, b.out.node.id) })
	return stages
}

// fold returns the convolution followed by a batch norm as one convolution. Its weights
// are scaled when they are laid out: a copy of them all would cost as much as reading them.
func (c convOp) fold(a affineOp) convOp {
	if c.scale != nil {
		c = c.scaled()
	}
	f := convOp{weight: c.weight, bias: make([]float32, len(a.scale)), k: c.k, scale: a.scale}
	for o, s := range a.scale {
		b := a.shift[o]
		if c.bias != nil {
			b += float64(c.bias[o]) * s
		}
		f.bias[o] = float32(b)
	}
	return f
}

// scaled returns the convolution with scaled weights.
func (c convOp) scaled() convOp {
	weight := make([]float32, len(c.weight))
	per := len(weight) / len(c.scale)
	for o, s := range c.scale {
		for i := o * per; i < (o+1)*per; i++ {
			weight[i] = float32(float64(c.weight[i]) * s)
		}
	}
	return convOp{weight: weight, bias: c.bias, k: c.k}
}

package onnx

import (
	"errors"
	"math"
	"slices"
)

// Before operator set 17 a layer norm is written as means, a square and a root:
//
//	(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)
//
// A moment is one of its steps.
type moment struct {
	of   *view // x, with its channels in order
	axis int   // which dimension they are
	step step
	eps  float64
}

type step int

const (
	mean step = iota
	centred
	squared
	variance
	deviation
)

func (*moment) want() string {
	return "a mean over the channels is supported within a layer norm only"
}

// momentOf returns what a value is if it is a moment.
func momentOf(x *value) *moment {
	if x == nil || x.view == nil {
		return nil
	}
	m, _ := x.view.part.(*moment)
	return m
}

// then is the next step of a moment.
func (m *moment) then(s step, eps float64) ([]*value, error) {
	next := *m
	next.step, next.eps = s, eps
	dims := slices.Clone(m.of.dims)
	if s != centred && s != squared {
		dims[m.axis] = nil
	}
	return []*value{{view: &view{node: m.of.node, dims: dims, part: &next}}}, nil
}

// norm is a step of a layer norm, if a call is one; nil if it is none.
func (c *call) norm() ([]*value, error) {
	a := momentOf(c.in[0])
	if a == nil {
		if c.op == "Sub" && len(c.in) == 2 {
			if b := momentOf(c.in[1]); b != nil && b.step == mean && c.in[0].view != nil && c.in[0].view.part == nil {
				v, err := c.plain(c.in[0].view, b.axis)
				if err != nil {
					return nil, err
				}
				if v.node == b.of.node && same(v, b.of) {
					return b.then(centred, 0)
				}
			}
		}
		return nil, nil
	}
	number := func() (float64, bool) {
		t := input(c.konst, 1)
		if t == nil || t.len() != 1 {
			return 0, false
		}
		return t.at(0), true
	}
	switch x, ok := number(); {
	case c.op == "Pow" && a.step == centred && ok && x == 2:
		return a.then(squared, 0)
	case c.op == "Mul" && a.step == centred && len(c.in) == 2 && c.in[0].view == c.in[1].view:
		return a.then(squared, 0)
	case c.op == "ReduceMean" && a.step == squared:
		axes, err := c.axes(len(c.in[0].view.dims), c.konst)
		if err == nil && slices.Equal(axes, []int{a.axis}) && c.int("keepdims", 1) == 1 {
			return a.then(variance, 0)
		}
	case c.op == "Add" && a.step == variance && ok:
		return a.then(variance, a.eps+x)
	case c.op == "Sqrt" && a.step == variance:
		return a.then(deviation, a.eps)
	case c.op == "Div" && a.step == centred && len(c.in) == 2:
		if b := momentOf(c.in[1]); b != nil && b.step == deviation && b.of.node == a.of.node && same(a.of, b.of) && b.eps >= 0 && b.eps < math.MaxFloat32 {
			channels := a.of.node.Shape().C
			if err := c.account(a.of.node.Shape()); err != nil {
				return nil, err
			}
			weight, bias := fill(channels, 1), make([]float32, channels)
			n := c.graph.LayerNorm(a.of.node, weight, bias, b.eps)
			c.norms[n] = norm{a.of.node, weight, bias, b.eps}
			return pointwise(a.of, n), nil
		}
	}
	return nil, errors.New(a.want())
}

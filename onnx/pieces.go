package onnx

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nac/nn"
)

// The operators of this file take activations apart and put them together.

// concat lays activations beside each other: over their channels, or pieces of one
// over its rows or columns, or tokens that are constants before and behind pixels.
func concat(c *call) ([]*value, error) {
	if slices.ContainsFunc(c.in, func(x *value) bool { return x == nil || (x.view != nil && x.view.part != nil) }) {
		return nil, errors.New("a concatenation of what is no activation")
	}
	rank := -1
	for i := range c.in {
		n := len(c.shapeOf(i))
		if rank >= 0 && n != rank {
			return nil, fmt.Errorf("shapes %v and %v do not fit", c.shapeOf(0), c.shapeOf(i))
		}
		rank = n
	}
	a, err := axis(c.int("axis", 0), rank)
	if err != nil {
		return nil, err
	}
	axes := ""
	for _, x := range c.in {
		if x.view == nil {
			return c.tokens(a)
		}
		axes += axesOf(x.view.dims[a])
	}
	switch {
	case strings.Trim(axes, "H") == "" && axes != "":
		return c.pieces(a, 'H')
	case strings.Trim(axes, "W") == "" && axes != "":
		return c.pieces(a, 'W')
	case strings.Trim(axes, "C") != "":
		return nil, fmt.Errorf("a concatenation over axis %d of %v is not supported", a, c.shapeOf(0))
	}
	var nodes []*nn.Node
	var first *view
	s := nn.Shape{}
	for i, x := range c.in {
		v, err := c.whole(x.view)
		if err != nil {
			return nil, err
		}
		if v, err = c.plain(v, a); err != nil {
			return nil, err
		}
		if i == 0 {
			first, s = v, v.node.Shape()
		} else {
			n := v.node.Shape()
			for k, d := range v.dims {
				if k != a && !alike(d, first.dims[k]) || n.H != s.H || n.W != s.W {
					return nil, fmt.Errorf("shapes %v and %v do not fit", c.shapeOf(0), c.shapeOf(i))
				}
			}
			s.C += n.C
		}
		nodes = append(nodes, v.node)
	}
	if err := c.account(s); err != nil {
		return nil, err
	}
	return []*value{{view: first.with(c.graph.Concat(nodes...), a)}}, nil
}

func (c *call) shapeOf(i int) []int {
	if t := c.konst[i]; t != nil {
		return t.shape
	}
	return c.in[i].view.shape()
}

// pieces puts pieces of one activation together along its rows or columns.
func (c *call) pieces(a int, along byte) ([]*value, error) {
	first := c.in[0].view
	var index []int
	for i, x := range c.in {
		v := x.view
		places := v.places(along)
		other := v.cols
		was := first.cols
		if along == 'W' {
			other, was = v.rows, first.rows
		}
		fits := v.node == first.node && slices.Equal(other, was) && slices.Equal(v.dims[a], run(along, len(places)))
		for k, d := range v.dims {
			fits = fits && (k == a || alike(d, first.dims[k]))
		}
		if !fits {
			return nil, fmt.Errorf("a concatenation of %v and %v over rows or columns is not supported: they are not pieces of one activation", first.shape(), c.shapeOf(i))
		}
		index = append(index, places...)
	}
	if len(index) > maxSide {
		return nil, fmt.Errorf("a concatenation of %d rows or columns", len(index))
	}
	r := first.as(slices.Clone(first.dims))
	r.place(along, index)
	r.dims[a] = run(along, len(index))
	return []*value{{view: r}}, nil
}

// tokens puts constants before and behind the pixels of an activation.
func (c *call) tokens(a int) ([]*value, error) {
	var v *view
	before := 0
	var constants []float32
	for i, x := range c.in {
		if x.view != nil && v != nil {
			return nil, errors.New("a concatenation of several activations and constants is not supported")
		}
		if x.view != nil {
			v, before = x.view, len(constants)
			continue
		}
		t := c.konst[i]
		if t.isInt() || len(t.shape) != 3 || a != 1 || t.shape[0] < 1 {
			return nil, fmt.Errorf("a concatenation with a constant of shape %v over axis %d is not supported", t.shape, a)
		}
		image := t.floats[:t.len()/t.shape[0]]
		for i, x := range t.floats {
			if x != image[i%len(image)] {
				return nil, errors.New("a constant that differs from image to image")
			}
		}
		constants = append(constants, image...)
	}
	v, err := c.strung(v, 1)
	if err != nil {
		return nil, err
	}
	order, err := v.channels(2)
	if err != nil {
		return nil, err
	}
	s := v.node.Shape()
	for i := range c.in {
		if t := c.konst[i]; t != nil && t.shape[2] != s.C {
			return nil, fmt.Errorf("shapes %v and %v do not fit", t.shape, v.shape())
		}
	}
	pixels, first := s.W, before/s.C
	s.W += len(constants) / s.C
	if err := c.account(s); err != nil {
		return nil, err
	}
	from := c.strings[v.node]
	r := tokens{of: from.of, table: make([]float32, s.W*s.C)}
	for i := range s.W {
		k := i - first
		if k >= 0 && k < pixels {
			r.index = append(r.index, from.index[k])
			continue
		}
		if k >= pixels {
			k = i - pixels // the constants behind follow those in front
		} else {
			k = i
		}
		r.index = append(r.index, -1)
		for p, channel := range order {
			r.table[i*s.C+channel] = constants[k*s.C+p]
		}
	}
	n := c.graph.Pixels(r.of, 1, s.W, r.index, r.table)
	c.tables[n] = r
	dims := slices.Clone(v.dims)
	dims[1] = run('W', s.W)
	return []*value{{view: &view{node: n, dims: dims}}}, nil
}

func split(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	a, err := axis(c.int("axis", 0), len(v.dims))
	if err != nil {
		return nil, err
	}
	all := size(v.dims[a])
	parts := c.ints("split")
	if t := input(c.konst, 1); t != nil {
		parts = t.ints
	}
	if parts == nil {
		n := int(c.int("num_outputs", int64(len(c.outputs))))
		if n < 1 || n > all || n != len(c.outputs) {
			return nil, fmt.Errorf("%d positions in %d parts", all, n)
		}
		each := (all + n - 1) / n
		for rest := all; rest > 0; rest -= each {
			parts = append(parts, int64(min(each, rest)))
		}
	}
	if len(parts) != len(c.outputs) {
		return nil, fmt.Errorf("%d parts for %d outputs", len(parts), len(c.outputs))
	}
	var r []*value
	first := 0
	for _, n := range parts {
		if n < 1 || n > int64(all-first) {
			return nil, fmt.Errorf("parts %v of %d positions", parts, all)
		}
		list := make([]int, n)
		for i := range list {
			list[i] = first + i
		}
		w, err := c.taken(v, a, list)
		if err != nil {
			return nil, err
		}
		r, first = append(r, &value{view: w}), first+int(n)
	}
	return r, nil
}

func slice(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	cuts, err := c.cuts(v.shape(), c.konst)
	if err != nil {
		return nil, err
	}
	for a, cut := range cuts {
		if cut == nil {
			continue
		}
		list := make([]int, len(cut))
		for i, k := range cut {
			list[i] = int(k)
		}
		if v, err = c.taken(v, a, list); err != nil {
			return nil, err
		}
	}
	return []*value{{view: v}}, nil
}

func gather(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	a, err := axis(c.int("axis", 0), len(v.dims))
	if err != nil {
		return nil, err
	}
	index := input(c.konst, 1)
	if index == nil || !index.isInt() {
		return nil, errors.New("want indices")
	}
	n := size(v.dims[a])
	if len(index.ints) > n {
		return nil, errors.New("positions taken more than once are not supported")
	}
	list := make([]int, len(index.ints))
	for i, k := range index.ints {
		if list[i], err = axis(k, n); err != nil {
			return nil, fmt.Errorf("index %d of %d", k, n)
		}
	}
	if v, err = c.taken(v, a, list); err != nil {
		return nil, err
	}
	if len(index.shape) == 1 {
		return []*value{{view: v}}, nil
	}
	shape := v.shape()
	v, err = v.reshaped(slices.Concat(shape[:a], index.shape, shape[a+1:]))
	return []*value{{view: v}}, err
}

// maxSide bounds what an image may be padded to.
const maxSide = 1 << 14

// pad adds rows and columns of zeros, or takes some away.
func pad(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	if m := c.attributes["mode"]; m != nil && string(m.s) != "constant" {
		return nil, fmt.Errorf("padding in mode %q is not supported", m.s)
	}
	pads := input(c.konst, 1)
	if pads == nil || !pads.isInt() {
		return nil, errors.New("want pads that are constant")
	}
	axes := make([]int, len(v.dims))
	for i := range axes {
		axes[i] = i
	}
	if t := input(c.konst, 3); t != nil {
		axes = axes[:0]
		for _, k := range t.ints {
			a, err := axis(k, len(v.dims))
			if err != nil {
				return nil, err
			}
			axes = append(axes, a)
		}
	}
	if len(pads.ints) != 2*len(axes) {
		return nil, fmt.Errorf("pads %v for %d axes", pads.ints, len(axes))
	}
	for i, a := range axes {
		before, after := pads.ints[i], pads.ints[i+len(axes)]
		if before == 0 && after == 0 {
			continue
		}
		if t := input(c.konst, 2); t != nil && (t.len() != 1 || t.at(0) != 0) {
			return nil, errors.New("padding with something else than zeros is not supported")
		}
		d := v.dims[a]
		along := byte('H')
		if axesOf(d) == "W" || (len(d) == 0 && a == len(v.dims)-1) {
			along = 'W'
		}
		places := v.places(along)
		if v.part != nil || !slices.Equal(d, run(along, len(places))) {
			return nil, fmt.Errorf("padding of axis %d of %v is not supported: it is not height or width", a, v.shape())
		}
		if min(before, after) < -maxSide || max(before, after) > maxSide || before+after+int64(len(places)) > maxSide {
			return nil, fmt.Errorf("pads %v", pads.ints)
		}
		for _, n := range []int64{before, after} {
			if -n >= int64(len(places)) {
				return nil, fmt.Errorf("pads %v of %v", pads.ints, v.shape())
			}
			if n < 0 {
				places = places[-n:]
			}
			for range n {
				places = append([]int{-1}, places...)
			}
			slices.Reverse(places) // once for each end
		}
		v = v.as(slices.Clone(v.dims))
		v.place(along, places)
		v.dims[a] = run(along, len(places))
	}
	return []*value{{view: v}}, nil
}

// expand is an activation broadcast to its own shape.
func expand(c *call) ([]*value, error) {
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	t := input(c.konst, 1)
	if t == nil {
		return nil, errors.New("want a constant shape")
	}
	to, err := ints64(t)
	if err != nil {
		return nil, err
	}
	if shape, _, err := broadcast(v.shape(), to); err != nil || !slices.Equal(shape, v.shape()) {
		return nil, fmt.Errorf("expanding %v to %v is not supported", v.shape(), to)
	}
	return []*value{{view: v}}, nil
}

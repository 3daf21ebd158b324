package onnx

import (
	"errors"
	"fmt"
	"slices"

	"nac/nn"
)

// atom is a part of a dimension that lies along one axis of an activation: size
// positions, step apart. N is the image's place in the batch and never cut.
type atom struct {
	axis       byte // 'N', 'C', 'H' or 'W'
	size, step int
}

// view is how the model sees an activation: each of its dimensions as atoms,
// slowest first. Reshape and Transpose change the view and compute nothing.
type view struct {
	node *nn.Node
	dims [][]atom
}

// image is the view N, C, H, W of a node.
func image(n *nn.Node, batch int) *view {
	s := n.Shape()
	v := &view{node: n, dims: [][]atom{{{'N', batch, 1}}, nil, nil, nil}}
	for i, d := range []struct {
		axis byte
		size int
	}{{'C', s.C}, {'H', s.H}, {'W', s.W}} {
		if d.size > 1 {
			v.dims[i+1] = []atom{{d.axis, d.size, 1}}
		}
	}
	return v
}

func size(atoms []atom) int {
	n := 1
	for _, a := range atoms {
		n *= a.size
	}
	return n
}

func (v *view) shape() []int {
	s := make([]int, len(v.dims))
	for i, d := range v.dims {
		s[i] = size(d)
	}
	return s
}

// reshaped regroups the atoms into dimensions of the given sizes.
func (v *view) reshaped(shape []int) (*view, error) {
	var rest []atom
	for _, d := range v.dims {
		rest = append(rest, d...)
	}
	r := &view{node: v.node, dims: make([][]atom, len(shape))}
	for i, need := range shape {
		for need > 1 || (need == 1 && len(rest) > 0 && rest[0].axis == 'N' && rest[0].size == 1 && len(r.dims[i]) == 0) {
			if len(rest) == 0 {
				return nil, fmt.Errorf("shape %v of %v", shape, v.shape())
			}
			a := rest[0]
			switch {
			case need%a.size == 0:
				r.dims[i] = append(r.dims[i], a)
				need /= a.size
				rest = rest[1:]
			case a.size%need == 0 && a.axis != 'N':
				tail := a.size / need
				r.dims[i] = append(r.dims[i], atom{a.axis, need, a.step * tail})
				rest = append([]atom{{a.axis, tail, a.step}}, rest[1:]...)
				need = 1
			default:
				return nil, fmt.Errorf("reshaping %v to %v cuts across axes", v.shape(), shape)
			}
		}
		r.dims[i] = merged(r.dims[i])
	}
	if len(rest) == 1 && rest[0].axis == 'N' && rest[0].size == 1 && len(shape) > 0 {
		r.dims[len(shape)-1] = append(r.dims[len(shape)-1], rest[0])
		rest = nil
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("shape %v of %v", shape, v.shape())
	}
	return r, nil
}

// merged joins neighbours that are parts of one run.
func merged(atoms []atom) []atom {
	var r []atom
	for _, a := range atoms {
		if k := len(r) - 1; k >= 0 && r[k].axis == a.axis && a.axis != 'N' && r[k].step == a.size*a.step {
			r[k] = atom{a.axis, r[k].size * a.size, a.step}
			continue
		}
		r = append(r, a)
	}
	return r
}

func (v *view) transposed(perm []int) *view {
	r := &view{node: v.node}
	for _, p := range perm {
		r.dims = append(r.dims, v.dims[p])
	}
	return r
}

// with returns the view of another node in which dimension i is all its channels
// and the others are as in v.
func (v *view) with(n *nn.Node, i int) *view {
	r := &view{node: n, dims: slices.Clone(v.dims)}
	r.dims[i] = nil
	if c := n.Shape().C; c > 1 {
		r.dims[i] = []atom{{'C', c, 1}}
	}
	return r
}

// axes returns which axes a dimension lies along, each once.
func axesOf(atoms []atom) string {
	var r []byte
	for _, a := range atoms {
		if !slices.Contains(r, a.axis) {
			r = append(r, a.axis)
		}
	}
	return string(r)
}

// channels returns the channel of each position of a dimension that lies along
// the channels alone; an error if it does not hold all of them.
func (v *view) channels(dim int) ([]int, error) {
	atoms := v.dims[dim]
	c := v.node.Shape().C
	if axes := axesOf(atoms); (axes != "C" && axes != "") || size(atoms) != c {
		return nil, fmt.Errorf("dimension %d of %v is not the channels", dim, v.shape())
	}
	index := []int{0}
	for _, a := range atoms {
		next := make([]int, 0, len(index)*a.size)
		for _, i := range index {
			for k := range a.size {
				next = append(next, i+k*a.step)
			}
		}
		index = next
	}
	return index, nil
}

func identity(index []int) bool {
	for i, k := range index {
		if i != k {
			return false
		}
	}
	return true
}

// plain returns v with the channels of a dimension in the order of memory, which
// takes a pass over memory if they are not.
func (m *importer) plain(v *view, dim int) (*view, error) {
	index, err := v.channels(dim)
	if err != nil {
		return nil, err
	}
	if identity(index) {
		return v, nil
	}
	return v.with(m.graph.Select(v.node, index), dim), nil
}

// nchw returns the node of a view that is N, C, H, W; or N, C of a 1x1 node.
func (m *importer) nchw(v *view) (*nn.Node, error) {
	s := v.node.Shape()
	if len(v.dims) != 4 && (len(v.dims) != 2 || s.H != 1 || s.W != 1) {
		return nil, fmt.Errorf("an input of shape %v that is no image", v.shape())
	}
	if axesOf(v.dims[0]) != "N" {
		return nil, fmt.Errorf("an input of shape %v whose first dimension is not the batch", v.shape())
	}
	v, err := m.plain(v, 1)
	if err != nil {
		return nil, err
	}
	if len(v.dims) == 4 {
		for i, want := range []int{s.H, s.W} {
			d := v.dims[2+i]
			if size(d) != want || (want > 1 && (len(d) != 1 || d[0] != atom{"HW"[i], want, 1})) {
				return nil, errors.New("height and width are not where they should be")
			}
		}
	}
	return v.node, nil
}

// same reports whether two views order their values alike.
func same(v, w *view) bool {
	if v.node.Shape() != w.node.Shape() || len(v.dims) != len(w.dims) {
		return false
	}
	for i := range v.dims {
		if !slices.Equal(v.dims[i], w.dims[i]) {
			return false
		}
	}
	return true
}

// perChannel lays a constant that is broadcast to v out as a factor or term for
// each channel.
func (v *view) perChannel(t *tensor) ([]float32, error) {
	if t.isInt() {
		return nil, errors.New("a constant of whole numbers")
	}
	c := v.node.Shape().C
	r := make([]float32, c)
	shape := t.shape
	for len(shape) > 0 && shape[0] == 1 && len(shape) > len(v.dims) {
		shape = shape[1:]
	}
	if len(shape) > len(v.dims) {
		return nil, fmt.Errorf("a constant of shape %v beside %v", t.shape, v.shape())
	}
	dim := -1
	for i, d := range shape {
		if d == 1 {
			continue
		}
		k := i + len(v.dims) - len(shape)
		if dim >= 0 || d != size(v.dims[k]) {
			return nil, fmt.Errorf("a constant of shape %v beside %v", t.shape, v.shape())
		}
		dim = k
	}
	if dim < 0 {
		if t.len() != 1 {
			return nil, fmt.Errorf("a constant of shape %v", t.shape)
		}
		for i := range r {
			r[i] = t.floats[0]
		}
		return r, nil
	}
	index, err := v.channels(dim)
	if err != nil {
		return nil, err
	}
	for i, k := range index {
		r[k] = t.floats[i]
	}
	return r, nil
}

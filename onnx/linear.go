package onnx

import (
	"errors"
	"fmt"

	"nac/nn"
)

// gemm is alpha*A*B + beta*C with constant B and C: a linear layer.
func gemm(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, err
	}
	if w == nil || len(w.shape) != 2 || len(v.dims) != 2 || c.int("transA", 0) != 0 {
		return nil, errors.New("want a matrix and constant weights of two dimensions, the former not transposed")
	}
	if c.int("transB", 0) == 0 {
		w = permuted(w, []int{1, 0})
	}
	alpha, beta := c.float("alpha", 1), c.float("beta", 1)
	if alpha != 1 {
		scaled := w.empty(w.shape)
		for i, x := range w.floats {
			scaled.floats[i] = alpha * x
		}
		w = scaled
	}
	var bias []float32
	if b, err := c.floats(2); err != nil {
		return nil, err
	} else if b != nil {
		out := w.shape[0]
		if b.len() != 1 && (b.len() != out || b.shape[len(b.shape)-1] != out) {
			return nil, fmt.Errorf("a bias of %v for %d outputs", b.shape, out)
		}
		bias = make([]float32, out)
		for i := range bias {
			bias[i] = beta * b.floats[i%b.len()]
		}
	}
	return c.linear(v, w, bias)
}

// matMul is a linear layer on the last dimension, or a part of attention.
func matMul(c *call) ([]*value, error) {
	if len(c.in) != 2 || c.in[0] == nil || c.in[1] == nil {
		return nil, errors.New("want two inputs")
	}
	if c.in[0].view != nil && c.in[1].view != nil {
		return c.multiply()
	}
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, err
	}
	if w == nil || len(w.shape) != 2 {
		return nil, errors.New("want weights of two dimensions")
	}
	return c.linear(v, permuted(w, []int{1, 0}), nil)
}

// linear is a linear layer on the last dimension of v, with weight [out][in].
func (c *call) linear(v *view, w *tensor, bias []float32) (_ []*value, err error) {
	last := len(v.dims) - 1
	if last < 0 || w.len() == 0 || size(v.dims[last]) != w.shape[1] {
		return nil, fmt.Errorf("weights of %v for %v", w.shape, v.shape())
	}
	s := v.node.Shape()
	k := nn.ConvShape{Size: 1, Stride: 1}
	weight := w.floats
	out := nn.Shape{C: w.shape[0], H: s.H, W: s.W}
	if size(v.dims[last]) == s.C*s.H*s.W && s.H*s.W > 1 {
		// A flattened image: a convolution of its whole size, made square by zeros.
		k.Size = max(s.H, s.W)
		for _, axis := range []byte{'H', 'W'} {
			places := v.places(axis)
			for len(places) < k.Size {
				places = append(places, -1)
			}
			v = v.as(v.dims)
			v.place(axis, places)
		}
		order := v.flattened(last, k.Size)
		if int64(out.C)*int64(s.C*k.Size*k.Size) > maxWeights {
			return nil, fmt.Errorf("weights of %v are too large", w.shape)
		}
		weight = make([]float32, out.C*s.C*k.Size*k.Size)
		for o := range out.C {
			for i, at := range order {
				weight[o*s.C*k.Size*k.Size+at] = w.floats[o*len(order)+i]
			}
		}
		if v, err = c.whole(v); err != nil {
			return nil, err
		}
		out.H, out.W = 1, 1
	} else if v, err = c.plain(v, last); err != nil {
		return nil, err
	} else {
		s = v.node.Shape()
		out.H, out.W = s.H, s.W
	}
	if err := c.account(out); err != nil {
		return nil, err
	}
	y := c.graph.Conv(v.node, weight, bias, k)
	if y.Shape().H == 1 && y.Shape().W == 1 && k.Size == 1 {
		c.linears[y] = linear{v.node, weight, bias}
	}
	return []*value{{view: v.with(y, last)}}, nil
}

// maxWeights bounds weights that are laid out anew.
const maxWeights = 1 << 31

// flattened returns the place in C, H, W order, of a square of the given side, of
// each position of a dimension that holds a whole image.
func (v *view) flattened(dim, side int) []int {
	unit := map[byte]int{'C': side * side, 'H': side, 'W': 1}
	index := []int{0}
	for _, a := range v.dims[dim] {
		next := make([]int, 0, len(index)*a.size)
		for _, i := range index {
			for k := range a.size {
				next = append(next, i+k*a.step*unit[a.axis])
			}
		}
		index = next
	}
	return index
}

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

// matMul is a linear layer on the last dimension.
func matMul(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	if len(c.in) != 2 {
		return nil, errors.New("want two inputs")
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, fmt.Errorf("a product of two activations is not supported: %w", err)
	}
	if w == nil || len(w.shape) != 2 {
		return nil, errors.New("want weights of two dimensions")
	}
	return c.linear(v, permuted(w, []int{1, 0}), nil)
}

// linear is a linear layer on the last dimension of v, with weight [out][in].
func (c *call) linear(v *view, w *tensor, bias []float32) ([]*value, error) {
	last := len(v.dims) - 1
	if last < 0 || w.len() == 0 || size(v.dims[last]) != w.shape[1] {
		return nil, fmt.Errorf("weights of %v for %v", w.shape, v.shape())
	}
	s := v.node.Shape()
	k := nn.ConvShape{Size: 1, Stride: 1}
	weight := w.floats
	out := nn.Shape{C: w.shape[0], H: s.H, W: s.W}
	switch axes := axesOf(v.dims[last]); {
	case s.H == 1 && s.W == 1, axes == "C":
		plain, err := c.plain(v, last)
		if err != nil {
			return nil, err
		}
		v = plain
	default:
		// A flattened image: a convolution of its whole size.
		order, err := v.flattened(last)
		if err != nil {
			return nil, err
		}
		if s.H != s.W {
			return nil, fmt.Errorf("a linear layer on a flattened %v is not supported: want a square", s)
		}
		k.Size = s.H
		out.H, out.W = 1, 1
		weight = make([]float32, len(w.floats))
		for o := range w.shape[0] {
			for i, at := range order {
				weight[o*len(order)+at] = w.floats[o*len(order)+i]
			}
		}
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

// flattened returns the place in C, H, W order of each position of a dimension
// that holds a whole image.
func (v *view) flattened(dim int) ([]int, error) {
	s := v.node.Shape()
	if size(v.dims[dim]) != s.C*s.H*s.W {
		return nil, fmt.Errorf("dimension %d of %v is neither the channels nor a whole image", dim, v.shape())
	}
	unit := map[byte]int{'C': s.H * s.W, 'H': s.W, 'W': 1}
	index := []int{0}
	for _, a := range v.dims[dim] {
		if a.axis == 'N' && a.size == 1 {
			continue
		}
		if a.axis == 'N' {
			return nil, errors.New("the batch is flattened too")
		}
		next := make([]int, 0, len(index)*a.size)
		for _, i := range index {
			for k := range a.size {
				next = append(next, i+k*a.step*unit[a.axis])
			}
		}
		index = next
	}
	return index, nil
}

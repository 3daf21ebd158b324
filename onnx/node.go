package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// node is an operation with what its constant inputs are.
type node struct{ *nodeProto }

func (n *node) int(name string, otherwise int64) int64 {
	if a := n.attributes[name]; a != nil {
		return a.i
	}
	return otherwise
}

func (n *node) float(name string, otherwise float32) float32 {
	if a := n.attributes[name]; a != nil {
		return a.f
	}
	return otherwise
}

func (n *node) ints(name string) []int64 {
	if a := n.attributes[name]; a != nil {
		return a.ints
	}
	return nil
}

// input returns a constant input, nil if it is absent.
func input(in []*tensor, i int) *tensor {
	if i < len(in) {
		return in[i]
	}
	return nil
}

// axes returns the axes of a reduction, a squeeze or an unsqueeze, an attribute
// or the second input, sorted; nil if there are none.
func (n *node) axes(rank int, in []*tensor) ([]int, error) {
	list := n.ints("axes")
	if t := input(in, 1); t != nil {
		if !t.isInt() {
			return nil, errors.New("axes that are no whole numbers")
		}
		list = t.ints
	}
	var axes []int
	for _, a := range list {
		i, err := axis(a, rank)
		if err != nil {
			return nil, err
		}
		if slices.Contains(axes, i) {
			return nil, fmt.Errorf("axis %d twice", i)
		}
		axes = append(axes, i)
	}
	slices.Sort(axes)
	return axes, nil
}

// newShape is the shape that Reshape, Flatten, Squeeze and Unsqueeze yield.
func (n *node) newShape(shape []int, in []*tensor) ([]int, error) {
	switch n.op {
	case "Flatten":
		a := n.int("axis", 1)
		if a < 0 {
			a += int64(len(shape))
		}
		if a < 0 || a > int64(len(shape)) {
			return nil, fmt.Errorf("axis %d of %d", a, len(shape))
		}
		return []int{elements(shape[:a]), elements(shape[a:])}, nil
	case "Squeeze":
		axes, err := n.axes(len(shape), in)
		if err != nil {
			return nil, err
		}
		r := []int{}
		for i, d := range shape {
			if slices.Contains(axes, i) && d != 1 {
				return nil, fmt.Errorf("squeeze of axis %d of %v", i, shape)
			}
			if !slices.Contains(axes, i) && (axes != nil || d != 1) {
				r = append(r, d)
			}
		}
		return r, nil
	case "Unsqueeze":
		extra := len(n.ints("axes"))
		if t := input(in, 1); t != nil {
			extra = len(t.ints)
		}
		axes, err := n.axes(len(shape)+extra, in)
		if err != nil {
			return nil, err
		}
		r := []int{}
		rest := shape
		for i := range len(shape) + extra {
			if slices.Contains(axes, i) {
				r = append(r, 1)
				continue
			}
			r, rest = append(r, rest[0]), rest[1:]
		}
		return r, nil
	}
	t := input(in, 1)
	if t == nil {
		return nil, errors.New("a shape that is not constant")
	}
	r, err := ints64(t)
	if err != nil {
		return nil, err
	}
	known, free := 1, -1
	for i, d := range r {
		switch {
		case d == -1 && free >= 0:
			return nil, fmt.Errorf("shape %v has two free sizes", r)
		case d == -1:
			free = i
			continue
		case d == 0 && n.int("allowzero", 0) == 0:
			if i >= len(shape) {
				return nil, fmt.Errorf("shape %v of %v", r, shape)
			}
			r[i] = shape[i]
		}
		if r[i] > 0 && known > math.MaxInt32/r[i] {
			return nil, fmt.Errorf("shape %v is too large", r)
		}
		known *= r[i]
	}
	all := elements(shape)
	if free >= 0 {
		if known == 0 || all%known != 0 {
			return nil, fmt.Errorf("shape %v of %v", r, shape)
		}
		r[free] = all / known
		known *= r[free]
	}
	if known != all {
		return nil, fmt.Errorf("shape %v of %v", r, shape)
	}
	return r, nil
}

func (n *node) permutation(rank int) ([]int, error) {
	list := n.ints("perm")
	perm := make([]int, rank)
	if list == nil {
		for i := range perm {
			perm[i] = rank - 1 - i
		}
		return perm, nil
	}
	seen := make([]bool, rank)
	if len(list) != rank {
		return nil, fmt.Errorf("permutation %v of %d axes", list, rank)
	}
	for i, p := range list {
		if p < 0 || p >= int64(rank) || seen[p] {
			return nil, fmt.Errorf("permutation %v of %d axes", list, rank)
		}
		perm[i], seen[p] = int(p), true
	}
	return perm, nil
}

// cuts are the indices that a Slice takes from each axis; nil for all.
func (n *node) cuts(shape []int, in []*tensor) ([][]int64, error) {
	if len(in) < 3 {
		return nil, errors.New("want data, starts and ends")
	}
	for _, t := range in[1:] {
		if t != nil && (!t.isInt() || len(t.ints) != len(in[1].ints)) {
			return nil, errors.New("starts, ends, axes and steps of several lengths")
		}
	}
	starts, ends := in[1], in[2]
	if starts == nil || ends == nil {
		return nil, errors.New("starts or ends that are not constant")
	}
	cuts := make([][]int64, len(shape))
	for i := range starts.ints {
		a, step := i, int64(1)
		if t := input(in, 3); t != nil {
			var err error
			if a, err = axis(t.ints[i], len(shape)); err != nil {
				return nil, err
			}
		}
		if t := input(in, 4); t != nil {
			step = t.ints[i]
		}
		if a >= len(shape) || step == 0 {
			return nil, fmt.Errorf("slice of axis %d by steps of %d", a, step)
		}
		size := int64(shape[a])
		clamp := func(v, low, high int64) int64 {
			if v < 0 {
				v += size
			}
			return min(max(v, low), high)
		}
		taken := []int64{}
		if step > 0 {
			for k, end := clamp(starts.ints[i], 0, size), clamp(ends.ints[i], 0, size); k < end; {
				taken = append(taken, k)
				if step >= size {
					break
				}
				k += step
			}
		} else {
			for k, end := clamp(starts.ints[i], -1, size-1), clamp(ends.ints[i], -1, size-1); k > end; {
				taken = append(taken, k)
				if -step >= size {
					break
				}
				k += step
			}
		}
		cuts[a] = taken
	}
	return cuts, nil
}

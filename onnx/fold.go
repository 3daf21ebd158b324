package onnx

import (
	"errors"
	"fmt"
	"math"
)

// maxFolded bounds a constant that is computed and not stored: shapes and small
// tables are, weights are not.
const maxFolded = 1 << 25

// foldable are the operations that are computed at import when all their inputs
// are constants.
var foldable = map[string]func(n *node, in []*tensor) (*tensor, error){
	"Identity":        func(_ *node, in []*tensor) (*tensor, error) { return in[0], nil },
	"Cast":            foldCast,
	"Gather":          foldGather,
	"Concat":          foldConcat,
	"Unsqueeze":       foldReshape,
	"Squeeze":         foldReshape,
	"Reshape":         foldReshape,
	"Flatten":         foldReshape,
	"Slice":           foldSlice,
	"Transpose":       foldTranspose,
	"ConstantOfShape": foldConstantOfShape,
	"Expand":          foldExpand,
	"Range":           foldRange,
	"Where":           foldWhere,
	"ReduceProd":      foldReduceProd,
	"Add":             foldBinary(func(a, b int64) int64 { return a + b }, func(a, b float64) float64 { return a + b }),
	"Sub":             foldBinary(func(a, b int64) int64 { return a - b }, func(a, b float64) float64 { return a - b }),
	"Mul":             foldBinary(func(a, b int64) int64 { return a * b }, func(a, b float64) float64 { return a * b }),
	"Div": foldBinary(func(a, b int64) int64 {
		if b == 0 {
			return 0
		}
		return a / b
	}, func(a, b float64) float64 { return a / b }),
	"Mod": foldBinary(func(a, b int64) int64 {
		if b == 0 {
			return 0
		}
		return ((a % b) + b) % b
	}, math.Mod),
	"Pow":        foldBinary(func(a, b int64) int64 { return int64(math.Pow(float64(a), float64(b))) }, math.Pow),
	"Max":        foldBinary(func(a, b int64) int64 { return max(a, b) }, math.Max),
	"Min":        foldBinary(func(a, b int64) int64 { return min(a, b) }, math.Min),
	"Equal":      foldCompare(func(a, b float64) bool { return a == b }),
	"Less":       foldCompare(func(a, b float64) bool { return a < b }),
	"Greater":    foldCompare(func(a, b float64) bool { return a > b }),
	"Not":        foldUnary(func(x float64) float64 { return 1 - x }),
	"ScatterND":  foldScatterND,
	"Clip":       foldClip,
	"Sqrt":       foldUnary(math.Sqrt),
	"Floor":      foldUnary(math.Floor),
	"Ceil":       foldUnary(math.Ceil),
	"Neg":        foldUnary(func(x float64) float64 { return -x }),
	"Exp":        foldUnary(math.Exp),
	"Reciprocal": foldUnary(func(x float64) float64 { return 1 / x }),
}

func checkFolded(shape []int) error {
	n := 1
	for _, d := range shape {
		if d < 0 || (d > 0 && n > maxFolded/d) {
			return fmt.Errorf("a computed constant of shape %v is too large", shape)
		}
		n *= d
	}
	return nil
}

// empty returns a tensor of t's type with room for the shape.
func (t *tensor) empty(shape []int) *tensor {
	r := &tensor{shape: append([]int{}, shape...)}
	if t.isInt() {
		r.ints = make([]int64, elements(shape))
	} else {
		r.floats = make([]float32, elements(shape))
	}
	return r
}

// take copies element i of from to element j.
func (t *tensor) take(j int, from *tensor, i int) {
	if t.isInt() {
		t.ints[j] = from.ints[i]
	} else {
		t.floats[j] = from.floats[i]
	}
}

func (t *tensor) at(i int) float64 {
	if t.isInt() {
		return float64(t.ints[i])
	}
	return float64(t.floats[i])
}

// broadcast returns the shape of an operation of a and b, and for each element
// of it the indices in a and b.
func broadcast(a, b []int) (shape []int, index func(i int) (int, int), err error) {
	rank := max(len(a), len(b))
	pad := func(s []int) []int {
		r := make([]int, rank)
		for i := range r {
			r[i] = 1
			if k := i - (rank - len(s)); k >= 0 {
				r[i] = s[k]
			}
		}
		return r
	}
	pa, pb := pad(a), pad(b)
	shape = make([]int, rank)
	for i := range shape {
		switch {
		case pa[i] == pb[i], pb[i] == 1:
			shape[i] = pa[i]
		case pa[i] == 1:
			shape[i] = pb[i]
		default:
			return nil, nil, fmt.Errorf("shapes %v and %v do not fit", a, b)
		}
	}
	if err := checkFolded(shape); err != nil {
		return nil, nil, err
	}
	return shape, func(i int) (int, int) {
		ia, ib, sa, sb := 0, 0, 1, 1
		for d := rank - 1; d >= 0; d-- {
			k := i % shape[d]
			i /= shape[d]
			if pa[d] > 1 {
				ia += k * sa
			}
			if pb[d] > 1 {
				ib += k * sb
			}
			sa, sb = sa*pa[d], sb*pb[d]
		}
		return ia, ib
	}, nil
}

func foldBinary(ints func(a, b int64) int64, floats func(a, b float64) float64) func(*node, []*tensor) (*tensor, error) {
	return func(_ *node, in []*tensor) (*tensor, error) {
		if len(in) != 2 {
			return nil, errors.New("want two inputs")
		}
		a, b := in[0], in[1]
		shape, index, err := broadcast(a.shape, b.shape)
		if err != nil {
			return nil, err
		}
		if a.isInt() != b.isInt() {
			return nil, errors.New("inputs of two types")
		}
		r := a.empty(shape)
		for i := range elements(shape) {
			ia, ib := index(i)
			if a.isInt() {
				r.ints[i] = ints(a.ints[ia], b.ints[ib])
			} else {
				r.floats[i] = float32(floats(float64(a.floats[ia]), float64(b.floats[ib])))
			}
		}
		return r, nil
	}
}

func foldCompare(f func(a, b float64) bool) func(*node, []*tensor) (*tensor, error) {
	return func(_ *node, in []*tensor) (*tensor, error) {
		if len(in) != 2 {
			return nil, errors.New("want two inputs")
		}
		shape, index, err := broadcast(in[0].shape, in[1].shape)
		if err != nil {
			return nil, err
		}
		r := &tensor{shape: shape, ints: make([]int64, elements(shape))}
		for i := range r.ints {
			if ia, ib := index(i); f(in[0].at(ia), in[1].at(ib)) {
				r.ints[i] = 1
			}
		}
		return r, nil
	}
}

func foldUnary(f func(x float64) float64) func(*node, []*tensor) (*tensor, error) {
	return func(_ *node, in []*tensor) (*tensor, error) {
		r := in[0].empty(in[0].shape)
		for i := range r.len() {
			if v := f(in[0].at(i)); r.isInt() {
				r.ints[i] = int64(v)
			} else {
				r.floats[i] = float32(v)
			}
		}
		return r, nil
	}
}

// foldClip bounds values; either bound may be absent, and the upper one wins.
func foldClip(_ *node, in []*tensor) (*tensor, error) {
	bounds := [2]float64{math.Inf(-1), math.Inf(1)}
	for i := range bounds {
		t := input(in, i+1)
		if t == nil {
			continue
		}
		if t.len() != 1 || t.isInt() != in[0].isInt() {
			return nil, errors.New("bounds that are not single values of the data's type")
		}
		bounds[i] = t.at(0)
	}
	return foldUnary(func(x float64) float64 { return min(max(x, bounds[0]), bounds[1]) })(nil, in)
}

func foldCast(n *node, in []*tensor) (*tensor, error) {
	to, t := n.int("to", 0), in[0]
	if _, ok := sizes[to]; !ok {
		return nil, fmt.Errorf("cast to element type %d is not supported", to)
	}
	if isFloatType(to) != t.isInt() {
		return t, nil
	}
	r := &tensor{shape: t.shape}
	if t.isInt() {
		r.floats = make([]float32, t.len())
		for i, v := range t.ints {
			r.floats[i] = float32(v)
		}
		return r, nil
	}
	r.ints = make([]int64, t.len())
	for i, v := range t.floats {
		r.ints[i] = int64(v)
	}
	return r, nil
}

// axis brings a possibly negative axis into 0..rank-1.
func axis(a int64, rank int) (int, error) {
	if a < 0 {
		a += int64(rank)
	}
	if a < 0 || a >= int64(rank) {
		return 0, fmt.Errorf("axis %d of %d", a, rank)
	}
	return int(a), nil
}

func foldGather(n *node, in []*tensor) (*tensor, error) {
	if len(in) != 2 || !in[1].isInt() {
		return nil, errors.New("want data and whole indices")
	}
	t, index := in[0], in[1]
	a, err := axis(n.int("axis", 0), len(t.shape))
	if err != nil {
		return nil, err
	}
	shape := append(append(append([]int{}, t.shape[:a]...), index.shape...), t.shape[a+1:]...)
	if err := checkFolded(shape); err != nil {
		return nil, err
	}
	outer, inner, size := elements(t.shape[:a]), elements(t.shape[a+1:]), t.shape[a]
	r := t.empty(shape)
	at := 0
	for o := range outer {
		for _, k := range index.ints {
			if k < 0 {
				k += int64(size)
			}
			if k < 0 || k >= int64(size) {
				return nil, fmt.Errorf("index %d of %d", k, size)
			}
			for i := range inner {
				r.take(at, t, (o*size+int(k))*inner+i)
				at++
			}
		}
	}
	return r, nil
}

func foldConcat(n *node, in []*tensor) (*tensor, error) {
	a, err := axis(n.int("axis", 0), len(in[0].shape))
	if err != nil {
		return nil, err
	}
	shape := append([]int{}, in[0].shape...)
	shape[a] = 0
	for _, t := range in {
		if len(t.shape) != len(shape) || t.isInt() != in[0].isInt() {
			return nil, errors.New("inputs of several ranks or types")
		}
		for i, d := range t.shape {
			if i != a && d != shape[i] {
				return nil, fmt.Errorf("shapes %v and %v do not fit", in[0].shape, t.shape)
			}
		}
		shape[a] += t.shape[a]
	}
	if err := checkFolded(shape); err != nil {
		return nil, err
	}
	r := in[0].empty(shape)
	at := 0
	for o := range elements(shape[:a]) {
		for _, t := range in {
			run := elements(t.shape[a:])
			for i := range run {
				r.take(at, t, o*run+i)
				at++
			}
		}
	}
	return r, nil
}

// foldReshape is every operation that changes the shape alone.
func foldReshape(n *node, in []*tensor) (*tensor, error) {
	shape, err := n.newShape(in[0].shape, in)
	if err != nil {
		return nil, err
	}
	r := *in[0]
	r.shape = shape
	return &r, nil
}

func foldSlice(n *node, in []*tensor) (*tensor, error) {
	t := in[0]
	cuts, err := n.cuts(t.shape, in)
	if err != nil {
		return nil, err
	}
	for a, c := range cuts {
		if c != nil {
			index := &tensor{shape: []int{len(c)}, ints: c}
			if t, err = foldGather(&nodeAxis0, []*tensor{moved(t, a), index}); err != nil {
				return nil, err
			}
			t = movedBack(t, a)
		}
	}
	return t, nil
}

var nodeAxis0 = node{nodeProto: &nodeProto{}}

// moved brings axis a to the front, movedBack back.
func moved(t *tensor, a int) *tensor {
	perm := []int{a}
	for i := range t.shape {
		if i != a {
			perm = append(perm, i)
		}
	}
	return permuted(t, perm)
}

func movedBack(t *tensor, a int) *tensor {
	perm := make([]int, len(t.shape))
	next := 1
	for i := range perm {
		if i != a {
			perm[i] = next
			next++
		}
	}
	return permuted(t, perm)
}

func permuted(t *tensor, perm []int) *tensor {
	shape, steps := make([]int, len(perm)), make([]int, len(perm))
	for i, p := range perm {
		shape[i], steps[i] = t.shape[p], elements(t.shape[p+1:])
	}
	r := t.empty(shape)
	if len(perm) == 2 && perm[0] == 1 && !t.isInt() {
		// The weights of linear layers, in blocks that stay in the cache.
		rows, columns := t.shape[0], t.shape[1]
		for top := 0; top < rows; top += 16 {
			for c := range columns {
				for y := top; y < min(top+16, rows); y++ {
					r.floats[c*rows+y] = t.floats[y*columns+c]
				}
			}
		}
		return r
	}
	for i := range r.len() {
		from, rest := 0, i
		for d := len(shape) - 1; d >= 0; d-- {
			from += rest % shape[d] * steps[d]
			rest /= shape[d]
		}
		r.take(i, t, from)
	}
	return r
}

func foldTranspose(n *node, in []*tensor) (*tensor, error) {
	perm, err := n.permutation(len(in[0].shape))
	if err != nil {
		return nil, err
	}
	return permuted(in[0], perm), nil
}

// ints64 checks that a shape is whole numbers of one dimension.
func ints64(t *tensor) ([]int, error) {
	if !t.isInt() || len(t.shape) > 1 {
		return nil, errors.New("a shape that is no list of whole numbers")
	}
	r := make([]int, len(t.ints))
	for i, v := range t.ints {
		if v < -1 || v > math.MaxInt32 {
			return nil, fmt.Errorf("a shape with %d", v)
		}
		r[i] = int(v)
	}
	return r, nil
}

func foldConstantOfShape(n *node, in []*tensor) (*tensor, error) {
	shape, err := ints64(in[0])
	if err != nil {
		return nil, err
	}
	if err := checkFolded(shape); err != nil {
		return nil, err
	}
	fill := &tensor{shape: []int{1}, floats: []float32{0}}
	if a := n.attributes["value"]; a != nil && a.t != nil {
		if fill, err = a.t.decode(""); err != nil {
			return nil, err
		}
		if fill.len() != 1 {
			return nil, errors.New("a fill value that is not one value")
		}
	}
	r := fill.empty(shape)
	for i := range r.len() {
		r.take(i, fill, 0)
	}
	return r, nil
}

func foldExpand(_ *node, in []*tensor) (*tensor, error) {
	if len(in) != 2 {
		return nil, errors.New("want two inputs")
	}
	to, err := ints64(in[1])
	if err != nil {
		return nil, err
	}
	shape, index, err := broadcast(in[0].shape, to)
	if err != nil {
		return nil, err
	}
	r := in[0].empty(shape)
	for i := range r.len() {
		from, _ := index(i)
		r.take(i, in[0], from)
	}
	return r, nil
}

func foldRange(_ *node, in []*tensor) (*tensor, error) {
	if len(in) != 3 || in[0].len() != 1 || in[1].len() != 1 || in[2].len() != 1 {
		return nil, errors.New("want a start, a limit and a step")
	}
	start, limit, step := in[0].at(0), in[1].at(0), in[2].at(0)
	count := math.Ceil((limit - start) / step)
	if !(count < maxFolded) {
		return nil, fmt.Errorf("a range of %v values", count)
	}
	r := in[0].empty([]int{int(max(count, 0))})
	for i := range r.len() {
		if v := start + float64(i)*step; r.isInt() {
			r.ints[i] = int64(v)
		} else {
			r.floats[i] = float32(v)
		}
	}
	return r, nil
}

func foldWhere(_ *node, in []*tensor) (*tensor, error) {
	if len(in) != 3 || in[1].isInt() != in[2].isInt() {
		return nil, errors.New("want a condition and two of one type")
	}
	shape, _, err := broadcast(in[1].shape, in[2].shape)
	if err != nil {
		return nil, err
	}
	if shape, _, err = broadcast(shape, in[0].shape); err != nil {
		return nil, err
	}
	r := in[1].empty(shape)
	var index [3]func(int) (int, int)
	for k, t := range in {
		if _, index[k], err = broadcast(shape, t.shape); err != nil {
			return nil, err
		}
	}
	for i := range r.len() {
		_, condition := index[0](i)
		k := 1
		if in[0].at(condition) == 0 {
			k = 2
		}
		_, from := index[k](i)
		r.take(i, in[k], from)
	}
	return r, nil
}

func foldReduceProd(n *node, in []*tensor) (*tensor, error) {
	t := in[0]
	axes, err := n.axes(len(t.shape), in)
	if err != nil {
		return nil, err
	}
	if axes != nil && len(axes) != len(t.shape) {
		return nil, errors.New("the product over some axes only is not supported")
	}
	shape := []int{}
	if n.int("keepdims", 1) == 1 {
		for range t.shape {
			shape = append(shape, 1)
		}
	}
	r := t.empty(shape)
	product, whole := 1.0, int64(1)
	for i := range t.len() {
		if t.isInt() {
			whole *= t.ints[i]
		} else {
			product *= t.at(i)
		}
	}
	if t.isInt() {
		r.ints[0] = whole
	} else {
		r.floats[0] = float32(product)
	}
	return r, nil
}

// foldScatterND is data with slices, named by their first indices, replaced.
func foldScatterND(n *node, in []*tensor) (*tensor, error) {
	if len(in) != 3 || in[2] == nil || !in[1].isInt() || in[0].isInt() != in[2].isInt() || len(in[1].shape) == 0 {
		return nil, errors.New("want data, whole indices and updates")
	}
	if a := n.attributes["reduction"]; a != nil && string(a.s) != "none" {
		return nil, fmt.Errorf("the reduction %q is not supported", a.s)
	}
	data, index, updates := in[0], in[1], in[2]
	depth := index.shape[len(index.shape)-1]
	if depth > len(data.shape) || depth == 0 {
		return nil, fmt.Errorf("indices of %d axes of %v", depth, data.shape)
	}
	run, count := elements(data.shape[depth:]), index.len()/depth
	if updates.len() != run*count {
		return nil, fmt.Errorf("updates of %v for %d slices of %v", updates.shape, count, data.shape[depth:])
	}
	r := data.empty(data.shape)
	copy(r.ints, data.ints)
	copy(r.floats, data.floats)
	for i := range count {
		at := 0
		for d, k := range index.ints[i*depth:][:depth] {
			j, err := axis(k, data.shape[d])
			if err != nil {
				return nil, fmt.Errorf("index %d of %d", k, data.shape[d])
			}
			at = at*data.shape[d] + j
		}
		for j := range run {
			r.take(at*run+j, updates, i*run+j)
		}
	}
	return r, nil
}

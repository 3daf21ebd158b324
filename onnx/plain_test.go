package onnx

import (
	"fmt"
	"math"
	"slices"
)

// A plain float64 interpreter of ONNX models of one image, by the operators'
// definitions, to compare with.

type array struct {
	shape []int
	data  []float64
}

func newArray(shape ...int) *array {
	return &array{shape, make([]float64, elements(shape))}
}

// each calls f with every index of a shape.
func each(shape []int, f func(i int, at []int)) {
	at := make([]int, len(shape))
	for i := range elements(shape) {
		rest := i
		for d := len(shape) - 1; d >= 0; d-- {
			at[d] = rest % shape[d]
			rest /= shape[d]
		}
		f(i, at)
	}
}

func (a *array) at(index ...int) float64 {
	i := 0
	for d, k := range index {
		i = i*a.shape[d] + k
	}
	return a.data[i]
}

// wide reads with the broadcast rule.
func (a *array) wide(index []int) float64 {
	i := 0
	for d, size := range a.shape {
		k := index[len(index)-len(a.shape)+d]
		if size == 1 {
			k = 0
		}
		i = i*size + k
	}
	return a.data[i]
}

// bump is added to every place of one channel, along an axis, of one value.
type bump struct {
	value         string
	axis, channel int
	by            float64
}

func interpret(p *modelProto, input *array, b bump) map[string]*array {
	values := map[string]*array{"input": input}
	touch := func(name string) {
		a := values[name]
		if name != b.value || a == nil {
			return
		}
		c := &array{a.shape, append([]float64{}, a.data...)}
		each(a.shape, func(i int, at []int) {
			if at[b.axis] == b.channel {
				c.data[i] += b.by
			}
		})
		values[name] = c
	}
	for _, t := range p.graph.initializers {
		d, err := t.decode("")
		if err != nil {
			panic(err)
		}
		a := newArray(d.shape...)
		for i := range a.data {
			a.data[i] = d.at(i)
		}
		values[t.name] = a
	}
	touch("input")
	for _, raw := range p.graph.nodes {
		n := &node{raw}
		var in []*array
		for _, name := range n.inputs {
			in = append(in, values[name])
		}
		for i, a := range evaluate(n, in) {
			values[n.outputs[i]] = a
			touch(n.outputs[i])
		}
	}
	return values
}

func longs(a *array) []int64 {
	var r []int64
	for _, v := range a.data {
		if v >= 1<<62 {
			v = 1 << 62 // "to the end" is the largest whole number, which has no float64
		}
		r = append(r, int64(v))
	}
	return r
}

func evaluate(n *node, in []*array) []*array {
	x := in[0]
	unary := func(f func(float64) float64) []*array {
		y := newArray(x.shape...)
		for i, v := range x.data {
			y.data[i] = f(v)
		}
		return []*array{y}
	}
	binary := func(f func(a, b float64) float64) []*array {
		shape, _, err := broadcast(x.shape, in[1].shape)
		if err != nil {
			panic(err)
		}
		y := newArray(shape...)
		each(shape, func(i int, at []int) { y.data[i] = f(x.wide(at), in[1].wide(at)) })
		return []*array{y}
	}
	ints := func(name string, otherwise ...int64) []int64 {
		if v := n.ints(name); v != nil {
			return v
		}
		return otherwise
	}
	window := func(out []int, kernel []int64, average bool) []*array {
		strides, pads := ints("strides", 1, 1), ints("pads", 0, 0, 0, 0)
		y := newArray(out...)
		each(out, func(i int, at []int) {
			sum, best, count := 0.0, math.Inf(-1), 0
			for ky := range int(kernel[0]) {
				for kx := range int(kernel[1]) {
					iy, ix := at[2]*int(strides[0])+ky-int(pads[0]), at[3]*int(strides[1])+kx-int(pads[1])
					if iy >= 0 && ix >= 0 && iy < x.shape[2] && ix < x.shape[3] {
						v := x.at(at[0], at[1], iy, ix)
						sum, best, count = sum+v, max(best, v), count+1
					}
				}
			}
			if y.data[i] = best; average {
				if n.int("count_include_pad", 0) != 0 {
					count = int(kernel[0] * kernel[1])
				}
				y.data[i] = sum / float64(count)
			}
		})
		return []*array{y}
	}
	switch n.op {
	case "Relu":
		return unary(func(v float64) float64 { return max(v, 0) })
	case "Clip":
		return unary(func(v float64) float64 {
			if v = max(v, in[1].data[0]); in[2] != nil {
				v = min(v, in[2].data[0])
			}
			return v
		})
	case "Sigmoid":
		return unary(func(v float64) float64 { return 1 / (1 + math.Exp(-v)) })
	case "Erf":
		return unary(math.Erf)
	case "Gelu":
		return unary(func(v float64) float64 { return v / 2 * (1 + math.Erf(v/math.Sqrt2)) })
	case "LayerNormalization": // over the last axis
		y := newArray(x.shape...)
		n := x.shape[len(x.shape)-1]
		for p := 0; p < len(x.data); p += n {
			mean, square := 0.0, 0.0
			for _, v := range x.data[p : p+n] {
				mean += v / float64(n)
			}
			for _, v := range x.data[p : p+n] {
				square += (v - mean) * (v - mean) / float64(n)
			}
			for c, v := range x.data[p : p+n] {
				y.data[p+c] = (v-mean)/math.Sqrt(square+1e-6)*in[1].data[c] + in[2].data[c]
			}
		}
		return []*array{y}
	case "Tanh":
		return unary(math.Tanh)
	case "HardSigmoid":
		alpha := float64(n.float("alpha", 0.2))
		return unary(func(v float64) float64 { return min(max(alpha*v+0.5, 0), 1) })
	case "HardSwish":
		return unary(func(v float64) float64 { return v * min(max(v/6+0.5, 0), 1) })
	case "Add":
		return binary(func(a, b float64) float64 { return a + b })
	case "Sub":
		return binary(func(a, b float64) float64 { return a - b })
	case "Mul":
		return binary(func(a, b float64) float64 { return a * b })
	case "Div":
		return binary(func(a, b float64) float64 { return a / b })
	case "BatchNormalization":
		y := newArray(x.shape...)
		each(x.shape, func(i int, at []int) {
			c := at[1]
			y.data[i] = (x.data[i]-in[3].data[c])/math.Sqrt(in[4].data[c]+float64(n.float("epsilon", 1e-5)))*in[1].data[c] + in[2].data[c]
		})
		return []*array{y}
	case "Conv":
		w := in[1]
		strides, pads, dilations := ints("strides", 1, 1), ints("pads", 0, 0, 0, 0), ints("dilations", 1, 1)
		groups := int(n.int("group", 1))
		out := []int{1, w.shape[0], 0, 0}
		for d := range 2 {
			reach := (w.shape[2+d]-1)*int(dilations[d]) + 1
			out[2+d] = (x.shape[2+d]+int(pads[d]+pads[d+2])-reach)/int(strides[d]) + 1
		}
		y := newArray(out...)
		each(out, func(i int, at []int) {
			sum := 0.0
			if len(in) > 2 {
				sum = in[2].data[at[1]]
			}
			first := at[1] / (w.shape[0] / groups) * w.shape[1]
			for c := range w.shape[1] {
				for ky := range w.shape[2] {
					for kx := range w.shape[3] {
						iy := at[2]*int(strides[0]) + ky*int(dilations[0]) - int(pads[0])
						ix := at[3]*int(strides[1]) + kx*int(dilations[1]) - int(pads[1])
						if iy >= 0 && ix >= 0 && iy < x.shape[2] && ix < x.shape[3] {
							sum += w.at(at[1], c, ky, kx) * x.at(0, first+c, iy, ix)
						}
					}
				}
			}
			y.data[i] = sum
		})
		return []*array{y}
	case "Gemm":
		w := in[1]
		out := w.shape[0]
		if n.int("transB", 0) == 0 {
			out = w.shape[1]
		}
		y := newArray(x.shape[0], out)
		each(y.shape, func(i int, at []int) {
			sum := 0.0
			for k := range x.shape[1] {
				if n.int("transB", 0) == 0 {
					sum += x.at(at[0], k) * w.at(k, at[1])
				} else {
					sum += x.at(at[0], k) * w.at(at[1], k)
				}
			}
			y.data[i] = float64(n.float("alpha", 1)) * sum
			if len(in) > 2 {
				y.data[i] += float64(n.float("beta", 1)) * in[2].wide(at)
			}
		})
		return []*array{y}
	case "MatMul":
		w, last := in[1], len(x.shape)-1
		rows := len(w.shape) - 2
		shape := append(append([]int{}, x.shape[:last]...), w.shape[rows+1])
		y := newArray(shape...)
		each(shape, func(i int, at []int) {
			for k := range x.shape[last] {
				from := append(append([]int{}, at[:rows]...), k, at[last])
				y.data[i] += x.at(append(append([]int{}, at[:last]...), k)...) * w.at(from...)
			}
		})
		return []*array{y}
	case "MaxPool", "AveragePool":
		kernel, strides, pads := n.ints("kernel_shape"), ints("strides", 1, 1), ints("pads", 0, 0, 0, 0)
		out := []int{1, x.shape[1], 0, 0}
		for d := range 2 {
			room := float64(x.shape[2+d]+int(pads[d]+pads[d+2]-kernel[d])) / float64(strides[d])
			if n.int("ceil_mode", 0) != 0 {
				room = math.Ceil(room)
			}
			out[2+d] = int(room) + 1
		}
		return window(out, kernel, n.op == "AveragePool")
	case "GlobalAveragePool":
		return window([]int{1, x.shape[1], 1, 1}, []int64{int64(x.shape[2]), int64(x.shape[3])}, true)
	case "ReduceMean":
		shape, kept, pixels := append([]int{}, x.shape...), []int{}, 1
		for d := range shape {
			if slices.ContainsFunc(n.ints("axes"), func(a int64) bool { return (int(a)+len(shape))%len(shape) == d }) {
				pixels *= shape[d]
				shape[d] = 1
			} else {
				kept = append(kept, shape[d])
			}
		}
		y := newArray(shape...)
		each(x.shape, func(i int, at []int) {
			to := 0
			for d, k := range at {
				if to *= shape[d]; shape[d] > 1 {
					to += k
				}
			}
			y.data[to] += x.data[i] / float64(pixels)
		})
		if n.int("keepdims", 1) == 0 {
			y.shape = kept
		}
		return []*array{y}
	case "Flatten":
		return []*array{{[]int{x.shape[0], len(x.data) / x.shape[0]}, x.data}}
	case "Reshape":
		shape := []int{}
		free := -1
		known := 1
		for i, d := range longs(in[1]) {
			if d == 0 {
				d = int64(x.shape[i])
			}
			if d < 0 {
				free, d = i, 1
			}
			known *= int(d)
			shape = append(shape, int(d))
		}
		if free >= 0 {
			shape[free] = len(x.data) / known
		}
		return []*array{{shape, x.data}}
	case "Transpose":
		perm := n.ints("perm")
		var shape []int
		for _, p := range perm {
			shape = append(shape, x.shape[p])
		}
		y := newArray(shape...)
		each(shape, func(i int, at []int) {
			from := make([]int, len(at))
			for d, p := range perm {
				from[p] = at[d]
			}
			y.data[i] = x.at(from...)
		})
		return []*array{y}
	case "Concat":
		a := int(n.int("axis", 0))
		shape := append([]int{}, x.shape...)
		for _, b := range in[1:] {
			shape[a] += b.shape[a]
		}
		y := newArray(shape...)
		each(shape, func(i int, at []int) {
			from := append([]int{}, at...)
			for _, b := range in {
				if from[a] < b.shape[a] {
					y.data[i] = b.at(from...)
					return
				}
				from[a] -= b.shape[a]
			}
		})
		return []*array{y}
	case "Split":
		var r []*array
		a, first := int(n.int("axis", 0)), 0
		for _, size := range longs(in[1]) {
			var index []int
			for k := range int(size) {
				index = append(index, first+k)
			}
			r, first = append(r, x.chosen(a, index)), first+int(size)
		}
		return r
	case "Slice":
		for i, a := range longs(in[3]) {
			step := int64(1)
			if len(in) > 4 {
				step = longs(in[4])[i]
			}
			var index []int
			for k := longs(in[1])[i]; k < min(longs(in[2])[i], int64(x.shape[a])); k += step {
				index = append(index, int(k))
			}
			x = x.chosen(int(a), index)
		}
		return []*array{x}
	case "Gather":
		a := int(n.int("axis", 0))
		var index []int
		for _, k := range longs(in[1]) {
			index = append(index, int(k))
		}
		y := x.chosen(a, index)
		y.shape = slices.Concat(x.shape[:a], in[1].shape, x.shape[a+1:])
		return []*array{y}
	case "Pad":
		shape := append([]int{}, x.shape...)
		before := longs(in[1])
		for d := range shape {
			shape[d] += int(before[d] + before[d+len(shape)])
		}
		y := newArray(shape...)
		each(shape, func(i int, at []int) {
			from := append([]int{}, at...)
			for d := range from {
				if from[d] -= int(before[d]); from[d] < 0 || from[d] >= x.shape[d] {
					return
				}
			}
			y.data[i] = x.at(from...)
		})
		return []*array{y}
	case "Sqrt":
		return unary(math.Sqrt)
	case "Pow":
		return binary(math.Pow)
	case "Shape":
		y := newArray(len(x.shape))
		for i, d := range x.shape {
			y.data[i] = float64(d)
		}
		return []*array{y}
	case "Unsqueeze":
		return []*array{{slices.Insert(slices.Clone(x.shape), int(in[1].data[0]), 1), x.data}}
	case "Cast":
		if isFloatType(n.int("to", 0)) {
			return unary(func(v float64) float64 { return v })
		}
		return unary(math.Trunc)
	case "Ceil":
		return unary(math.Ceil)
	case "Attention":
		return []*array{attend(n, in)}
	case "Softmax": // over the last axis
		y := newArray(x.shape...)
		n := x.shape[len(x.shape)-1]
		for p := 0; p < len(x.data); p += n {
			sum := 0.0
			for _, v := range x.data[p : p+n] {
				sum += math.Exp(v)
			}
			for i, v := range x.data[p : p+n] {
				y.data[p+i] = math.Exp(v) / sum
			}
		}
		return []*array{y}
	}
	panic(fmt.Sprintf("the test's interpreter lacks %s", n.op))
}

// chosen is some positions of an axis.
func (a *array) chosen(axis int, index []int) *array {
	shape := append([]int{}, a.shape...)
	shape[axis] = len(index)
	y := newArray(shape...)
	each(shape, func(i int, at []int) {
		from := append([]int{}, at...)
		from[axis] = index[at[axis]]
		y.data[i] = a.at(from...)
	})
	return y
}

// attend is the operator Attention of one image: each query's mean of the values, weighted by
// the softmax of its products with the keys.
func attend(n *node, in []*array) *array {
	at := func(a *array, heads int64, head, token, channel int) float64 {
		if len(a.shape) == 4 {
			return a.at(0, head, token, channel)
		}
		return a.at(0, token, head*(a.shape[2]/int(heads))+channel)
	}
	q, heads := in[0], n.int("q_num_heads", 0)
	count, dim := q.shape[1], q.shape[len(q.shape)-1]
	tokens := q.shape[len(q.shape)-2]
	if len(q.shape) == 3 {
		count, dim = int(heads), dim/int(heads)
	}
	scale := float64(n.float("scale", float32(1/math.Sqrt(float64(dim)))))
	y := newArray(q.shape...)
	for h := range count {
		for i := range tokens {
			weights, sum := make([]float64, tokens), 0.0
			for j := range weights {
				s := 0.0
				for c := range dim {
					s += at(q, heads, h, i, c) * at(in[1], heads, h, j, c)
				}
				s *= scale
				if len(in) > 3 {
					s += in[3].wide([]int{0, h, i, j})
				}
				weights[j] = math.Exp(s)
				sum += weights[j]
			}
			for c := range dim {
				v := 0.0
				for j, w := range weights {
					v += w / sum * at(in[2], heads, h, j, c)
				}
				if len(q.shape) == 4 {
					y.data[(h*tokens+i)*dim+c] = v
				} else {
					y.data[i*count*dim+h*dim+c] = v
				}
			}
		}
	}
	return y
}

package onnx

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"nac/arch"
)

func normal(r *rand.Rand, n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * scale)
	}
	return v
}

// builder adds layers with random weights.
type builder struct {
	testModel
	r *rand.Rand
}

func newBuilder(shape ...int64) *builder {
	return &builder{testModel{shape: shape}, rand.New(rand.NewPCG(1, 2))}
}

func (b *builder) conv(name, x string, out, in, kh, kw int, a attributes) string {
	weight := b.floats(name+".w", normal(b.r, out*in*kh*kw, 1/math.Sqrt(float64(in*kh*kw))), int64(out), int64(in), int64(kh), int64(kw))
	return b.node("Conv", name, a, x, weight, b.floats(name+".b", normal(b.r, out, 0.2), int64(out)))
}

func (b *builder) norm(name, x string, channels int) string {
	c := int64(channels)
	variance := normal(b.r, channels, 1)
	for i, v := range variance {
		variance[i] = 0.5 + v*v
	}
	return b.node("BatchNormalization", name, attributes{"epsilon": float32(1e-3)}, x,
		b.floats(name+".s", normal(b.r, channels, 1), c), b.floats(name+".t", normal(b.r, channels, 0.3), c),
		b.floats(name+".m", normal(b.r, channels, 0.3), c), b.floats(name+".v", variance, c))
}

func (b *builder) gemm(name, x string, out, in int) string {
	return b.node("Gemm", name, attributes{"transB": 1}, x,
		b.floats(name+".w", normal(b.r, out*in, 1/math.Sqrt(float64(in))), int64(out), int64(in)),
		b.floats(name+".b", normal(b.r, out, 0.2), int64(out)))
}

func (b *builder) scalar(name string, v float32) string { return b.floats(name, []float32{v}) }

// models are what exporters write, in small.
var models = []struct {
	name   string
	layers []string
	build  func() *builder
}{
	{"plain", []string{"relu", "conv", "input"}, func() *builder {
		b := newBuilder(0, 3, 9, 9)
		x := b.conv("conv", "input", 12, 3, 3, 3, attributes{"strides": []int{2, 2}, "pads": []int{1, 1, 1, 1}})
		x = b.node("Relu", "relu", nil, b.norm("norm", x, 12))
		x = b.node("MaxPool", "pool", attributes{"kernel_shape": []int{2, 2}, "strides": []int{2, 2}, "ceil_mode": 1}, x)
		x = b.node("Flatten", "flat", attributes{"axis": 1}, x)
		x = b.node("Relu", "hidden", nil, b.gemm("fc1", x, 20, 12*3*3))
		b.node("Softmax", "softmax", nil, b.gemm("fc2", x, 5, 20))
		return b
	}},
	{"odd filters", []string{"d", "c", "b", "a"}, func() *builder {
		// Rectangular, dilated, and padded unevenly, at most of which torch.nn allows.
		b := newBuilder(1, 3, 11, 10)
		x := b.conv("a", "input", 8, 3, 1, 5, attributes{"pads": []int{0, 2, 0, 2}})
		x = b.conv("b", x, 8, 8, 3, 3, attributes{"dilations": []int{2, 1}, "pads": []int{2, 1, 2, 1}})
		x = b.conv("c", b.node("Tanh", "tanh", nil, x), 12, 4, 3, 2, attributes{"group": 2, "strides": []int{2, 2}, "pads": []int{0, 0, 1, 1}})
		x = b.conv("d", x, 12, 1, 3, 3, attributes{"group": 12, "pads": []int{0, 1, 1, 0}})
		x = b.node("AveragePool", "pool", attributes{"kernel_shape": []int{3, 3}, "strides": []int{2, 2}, "pads": []int{1, 1, 1, 1}}, x)
		x = b.node("ReduceMean", "mean", attributes{"axes": []int{-1, -2}, "keepdims": 0}, x)
		b.gemm("fc", x, 4, 12)
		return b
	}},
	{"shuffle", []string{"cat", "first", "stem"}, func() *builder {
		b := newBuilder(1, 3, 6, 6)
		x := b.conv("stem", "input", 12, 3, 3, 3, attributes{"pads": []int{1, 1, 1, 1}})
		b.nodeOf("Split", "split", attributes{"axis": 1}, []string{"first", "second"}, x, b.longs("sizes", 4, 8))
		y := b.node("Relu", "relu", nil, b.conv("branch", "second", 8, 8, 1, 1, nil))
		x = b.node("Concat", "cat", attributes{"axis": 1}, "first", y)
		x = b.node("Reshape", "apart", nil, x, b.longs("five", 1, 2, 6, 6, 6))
		x = b.node("Transpose", "swap", attributes{"perm": []int{0, 2, 1, 3, 4}}, x)
		x = b.node("Reshape", "together", nil, x, b.longs("four", 0, -1, 6, 6))
		x = b.node("Slice", "slice", nil, x, b.longs("from", 1), b.longs("to", math.MaxInt64), b.longs("axis", 1), b.longs("step", 2))
		x = b.conv("last", x, 9, 6, 3, 3, nil)
		x = b.node("GlobalAveragePool", "mean", nil, x)
		b.gemm("fc", b.node("Flatten", "flat", nil, x), 4, 9)
		return b
	}},
	{"excitation", []string{"scaled", "swish", "stem"}, func() *builder {
		b := newBuilder(2, 3, 6, 6)
		x := b.conv("stem", "input", 12, 3, 3, 3, attributes{"strides": []int{2, 2}})
		x = b.node("Mul", "swish", nil, x, b.node("Sigmoid", "sigmoid", nil, x))
		s := b.node("GlobalAveragePool", "squeeze", nil, x)
		s = b.node("HardSwish", "inner", nil, b.conv("se1", s, 4, 12, 1, 1, nil))
		s = b.node("HardSigmoid", "gate", attributes{"alpha": float32(1. / 6)}, b.conv("se2", s, 12, 4, 1, 1, nil))
		x = b.node("Mul", "scaled", nil, s, x)
		x = b.node("Clip", "six", nil, b.conv("wide", x, 16, 12, 1, 1, nil), b.scalar("zero", 0), b.scalar("top", 1))
		x = b.node("GlobalAveragePool", "mean", nil, x)
		x = b.node("Reshape", "flat", nil, x, b.longs("rows", -1, 16))
		x = b.node("MatMul", "product", nil, x, b.floats("w", normal(b.r, 16*4, 0.3), 16, 4))
		b.node("Add", "logits", nil, b.floats("bias", normal(b.r, 4, 0.3), 4), x)
		return b
	}},
	{"channels last", []string{"whole", "sum", "half", "wide", "stem"}, func() *builder {
		// A block of ConvNeXt: norm and linear layers on N, H, W, C; GELU in parts and whole.
		b := newBuilder(1, 3, 8, 8)
		stem := b.conv("stem", "input", 8, 3, 2, 2, attributes{"strides": []int{2, 2}})
		x := b.conv("dw", stem, 8, 1, 3, 3, attributes{"group": 8, "pads": []int{1, 1, 1, 1}})
		x = b.node("Transpose", "last", attributes{"perm": []int{0, 2, 3, 1}}, x)
		x = b.node("LayerNormalization", "norm", attributes{"axis": -1, "epsilon": float32(1e-6)}, x,
			b.floats("ln.w", normal(b.r, 8, 1), 8), b.floats("ln.b", normal(b.r, 8, 0.3), 8))
		x = b.node("MatMul", "product", nil, x, b.floats("w", normal(b.r, 8*24, 0.4), 8, 24))
		x = b.node("Add", "wide", nil, x, b.floats("bias", normal(b.r, 24, 0.3), 24))
		y := b.node("Erf", "erf", nil, b.node("Div", "root", nil, x, b.scalar("sqrt2", math.Sqrt2)))
		y = b.node("Add", "one", nil, y, b.scalar("unit", 1))
		x = b.node("Mul", "half", nil, b.node("Mul", "gelu", nil, x, y), b.scalar("0.5", 0.5))
		x = b.node("MatMul", "narrow", nil, x, b.floats("w2", normal(b.r, 24*8, 0.2), 24, 8))
		x = b.node("Transpose", "first", attributes{"perm": []int{0, 3, 1, 2}}, x)
		x = b.node("Mul", "scale", nil, b.floats("gamma", normal(b.r, 8, 1), 8, 1, 1), x)
		x = b.node("Add", "sum", nil, x, stem)
		x = b.node("Gelu", "whole", nil, x)
		x = b.node("Sub", "minus", nil, x, b.node("Relu", "positive", nil, x))
		x = b.node("GlobalAveragePool", "mean", nil, x)
		b.gemm("fc", b.node("Flatten", "flat", nil, x), 4, 8)
		return b
	}},
	{"vision transformer", []string{"token", "norm", "sum2", "joined2", "sum1", "half1", "wide1", "joined1", "qkv", "in steps", "placed", "stem"}, func() *builder {
		b := newBuilder(1, 3, 8, 8)
		x := b.conv("stem", "input", 12, 3, 4, 4, attributes{"strides": []int{4, 4}})
		x = b.node("Reshape", "row", nil, x, b.longs("row.shape", 1, 12, 4))
		x = b.node("Transpose", "tokens", attributes{"perm": []int{0, 2, 1}}, x)
		x = b.node("Concat", "cat", attributes{"axis": 1}, b.floats("class", normal(b.r, 12, 1), 1, 1, 12), x)
		x = b.node("Add", "placed", nil, x, b.floats("position", normal(b.r, 5*12, 1), 1, 5, 12))
		// A block as timm's is exported, with a layer norm in steps, as before operator set 17.
		y := b.linear("qkv", b.steps("in steps", x, 12), 36, 12)
		y = b.node("Reshape", "parts", nil, y, b.longs("parts.shape", 1, 5, 3, 2, 6))
		y = b.node("Transpose", "parts first", attributes{"perm": []int{2, 0, 3, 1, 4}}, y)
		q := b.node("Mul", "scaled", nil, b.node("Gather", "q", nil, y, b.long("0", 0)), b.scalar("0.4", 0.4))
		k := b.node("Transpose", "turned", attributes{"perm": []int{0, 1, 3, 2}}, b.node("Gather", "k", nil, y, b.long("1", 1)))
		w := b.node("Softmax", "weights1", attributes{"axis": -1}, b.node("MatMul", "scores1", nil, q, k))
		y = b.node("MatMul", "product1", nil, w, b.node("Gather", "v", nil, y, b.long("2", 2)))
		y = b.node("Transpose", "heads last", attributes{"perm": []int{0, 2, 1, 3}}, y)
		y = b.node("Reshape", "joined1", nil, y, b.longs("joined.shape", 1, 5, 12))
		x = b.node("Add", "sum1", nil, x, b.linear("proj1", y, 12, 12))
		y = b.linear("wide1", b.steps("again in steps", x, 12), 24, 12)
		e := b.node("Erf", "erf1", nil, b.node("Div", "root1", nil, y, b.scalar("sqrt2", math.Sqrt2)))
		e = b.node("Mul", "gate1", nil, b.scalar("half", 0.5), b.node("Add", "one1", nil, e, b.scalar("unit", 1)))
		x = b.node("Add", "mlp1", nil, x, b.linear("narrow1", b.node("Mul", "half1", nil, y, e), 12, 24))
		// A block as torch.nn.MultiheadAttention's is: tokens first, heads beside the images; queries,
		// keys and values of layers of their own.
		y = b.node("Transpose", "first2", attributes{"perm": []int{1, 0, 2}}, x)
		heads := func(name, x string) string {
			x = b.node("Reshape", name+".split", nil, b.linear(name, x, 12, 12), b.longs(name+".shape", 5, 3, 4))
			return b.node("Transpose", name+".heads", attributes{"perm": []int{1, 0, 2}}, x)
		}
		k = b.node("Transpose", "turned2", attributes{"perm": []int{0, 2, 1}}, heads("k2", y))
		w = b.node("Div", "scaled2", nil, b.node("MatMul", "scores2", nil, heads("q2", y), k), b.scalar("two", 2))
		y = b.node("MatMul", "product2", nil, b.node("Softmax", "weights2", attributes{"axis": 2}, w), heads("v2", y))
		y = b.node("Transpose", "back2", attributes{"perm": []int{1, 0, 2}}, y)
		y = b.node("Reshape", "flat2", nil, y, b.longs("flat2.shape", 5, 12))
		y = b.node("Reshape", "joined2", nil, b.gemm("proj2", y, 12, 12), b.longs("joined2.shape", 5, 1, 12))
		x = b.node("Add", "sum2", nil, b.node("Transpose", "last2", attributes{"perm": []int{1, 0, 2}}, y), x)
		x = b.node("LayerNormalization", "norm", attributes{"axis": -1, "epsilon": float32(1e-6)}, x,
			b.floats("ln.w", normal(b.r, 12, 1), 12), b.floats("ln.b", normal(b.r, 12, 0.3), 12))
		b.gemm("fc", b.node("Gather", "token", attributes{"axis": 1}, x, b.long("first", 0)), 4, 12)
		return b
	}},
	{"attention operator", []string{"sum2", "attended2", "sum1", "qkv1", "stem"}, func() *builder {
		b := newBuilder(1, 3, 6, 6)
		b.opset = 23
		x := b.conv("stem", "input", 12, 3, 2, 2, attributes{"strides": []int{2, 2}})
		x = b.node("Reshape", "row", nil, x, b.longs("row.shape", 1, 12, 9))
		x = b.node("Transpose", "tokens", attributes{"perm": []int{0, 2, 1}}, x)
		// Heads apart, as PyTorch writes it, and a scale of its own.
		y := b.node("Reshape", "parts", nil, b.linear("qkv1", x, 36, 12), b.longs("parts.shape", 1, 9, 3, 2, 6))
		y = b.node("Transpose", "parts first", attributes{"perm": []int{2, 0, 3, 1, 4}}, y)
		part := func(name string, i int64) string { return b.node("Gather", name, nil, y, b.long(name+".at", i)) }
		y = b.node("Attention", "attended1", attributes{"scale": float32(0.6)}, part("q", 0), part("k", 1), part("v", 2))
		y = b.node("Reshape", "joined", nil, b.node("Transpose", "back", attributes{"perm": []int{0, 2, 1, 3}}, y), b.longs("joined.shape", 1, 9, 12))
		x = b.node("Add", "sum1", nil, x, b.linear("proj1", y, 12, 12))
		// Heads within the channels, and a constant for each pair of tokens.
		y = b.node("Attention", "attended2", attributes{"q_num_heads": 3, "kv_num_heads": 3},
			b.linear("q2", x, 12, 12), b.linear("k2", x, 12, 12), b.linear("v2", x, 12, 12), b.floats("bias", normal(b.r, 3*81, 1), 1, 3, 9, 9))
		x = b.node("Add", "sum2", nil, x, b.linear("proj2", y, 12, 12))
		x = b.node("Transpose", "channels", attributes{"perm": []int{0, 2, 1}}, x)
		x = b.node("ReduceMean", "mean", attributes{"axes": []int{2}, "keepdims": 0}, x)
		b.gemm("fc", x, 4, 12)
		return b
	}},
	{"computed padding", []string{"relu", "padded conv"}, func() *builder {
		// TensorFlow's SAME padding as timm computes it, from the input's size.
		b := newBuilder(1, 3, 9, 8)
		size := b.node("Shape", "shape", nil, "input")
		var before, after []string
		for _, axis := range []int64{2, 3} {
			name := fmt.Sprint(axis)
			s := b.node("Cast", "float"+name, attributes{"to": typeFloat}, b.node("Gather", "size"+name, nil, size, b.long("axis"+name, axis)))
			out := b.node("Ceil", "out"+name, nil, b.node("Div", "strided"+name, nil, s, b.scalar("stride"+name, 2)))
			out = b.node("Sub", "reach"+name, nil, b.node("Mul", "all"+name, nil, out, b.scalar("stride again"+name, 2)), s)
			all := b.node("Clip", "needed"+name, nil, b.node("Add", "missing"+name, nil, out, b.scalar("kernel less stride"+name, 1)), b.scalar("none"+name, 0), "")
			half := b.node("Cast", "before"+name, attributes{"to": typeInt64}, b.node("Div", "half"+name, nil, all, b.scalar("two"+name, 2)))
			rest := b.node("Sub", "after"+name, nil, b.node("Cast", "whole"+name, attributes{"to": typeInt64}, all), half)
			for i, v := range []string{half, rest} {
				v = b.node("Unsqueeze", fmt.Sprint("row", i, name), nil, v, b.longs(fmt.Sprint("zero", i, name), 0))
				if i == 0 {
					before = append(before, v)
				} else {
					after = append(after, v)
				}
			}
		}
		channels := b.longs("channels", 0, 0)
		pads := b.node("Concat", "pads", attributes{"axis": 0}, channels, before[0], before[1], channels, after[0], after[1])
		x := b.conv("padded conv", b.node("Pad", "pad", nil, "input", pads), 8, 3, 3, 3, attributes{"strides": []int{2, 2}})
		x = b.node("GlobalAveragePool", "mean", nil, b.node("Relu", "relu", nil, x))
		b.gemm("fc", b.node("Flatten", "flat", nil, x), 4, 8)
		return b
	}},
	{"shifted windows", []string{"mean", "block2", "merged1", "sum1", "image1", "joined1", "windows2", "joined0", "stem"}, func() *builder {
		b := newBuilder(1, 3, 8, 8)
		x := b.conv("stem", "input", 8, 3, 2, 2, attributes{"strides": []int{2, 2}})
		x = b.node("Transpose", "last", attributes{"perm": []int{0, 2, 3, 1}}, x)
		x = b.windows("0", x, 4, false, true)
		// Rolled by one, with a mask; and back.
		y := b.rolled("there", x, 1, 4)
		y = b.windows("1", y, 4, true, true)
		y = b.rolled("back", y, 3, 4)
		x = b.node("Add", "sum1", nil, x, y)
		// Patch merging, in torchvision's way and in timm's.
		var quarters []string
		for _, c := range [][2]int64{{0, 0}, {1, 0}, {0, 1}, {1, 1}} {
			name := fmt.Sprintf("quarter%d%d", c[0], c[1])
			quarters = append(quarters, b.node("Slice", name, nil, x, b.longs(name+".from", c[0], c[1]), b.longs(name+".to", 9, 9),
				b.longs(name+".axes", 1, 2), b.longs(name+".steps", 2, 2)))
		}
		x = b.node("Concat", "merged1", attributes{"axis": -1 + 4}, quarters...)
		x = b.linear("reduced1", x, 8, 32)
		// Padded to three, and windows that are the whole image; rolled windows without a mask.
		x = b.node("Pad", "padded", nil, x, b.longs("pads", 0, 0, 0, 0, 0, 2, 2, 0))
		x = b.rolled("last roll", b.windows("2", b.rolled("roll", x, 1, 4), 4, false, false), 3, 4)
		x = b.node("Relu", "block2", nil, x)
		x = b.node("Reshape", "apart", nil, x, b.longs("apart.shape", 1, 2, 2, 2, 2, 8))
		x = b.node("Transpose", "together", attributes{"perm": []int{0, 1, 3, 4, 2, 5}}, x)
		x = b.node("Reshape", "merged2", nil, x, b.longs("merged2.shape", 1, 2, 2, 32))
		x = b.linear("reduced2", x, 6, 32)
		x = b.node("ReduceMean", "mean", attributes{"axes": []int{1, 2}, "keepdims": 0}, x)
		b.gemm("fc", x, 4, 6)
		return b
	}},
}

// linear is a linear layer on the last axis, as a product and a sum.
func (b *builder) linear(name, x string, out, in int) string {
	x = b.node("MatMul", name+".product", nil, x, b.floats(name+".w", normal(b.r, out*in, 1/math.Sqrt(float64(in))), int64(in), int64(out)))
	return b.node("Add", name, nil, x, b.floats(name+".b", normal(b.r, out, 0.3), int64(out)))
}

// steps is a layer norm on the last axis, as before operator set 17.
func (b *builder) steps(name, x string, channels int) string {
	mean := b.node("ReduceMean", name+".mean", attributes{"axes": []int{-1}}, x)
	d := b.node("Sub", name+".centred", nil, x, mean)
	v := b.node("ReduceMean", name+".variance", attributes{"axes": []int{-1}}, b.node("Pow", name+".squared", nil, d, b.scalar(name+".2", 2)))
	v = b.node("Sqrt", name+".deviation", nil, b.node("Add", name+".sum", nil, v, b.scalar(name+".eps", 1e-5)))
	y := b.node("Mul", name+".weighted", nil, b.node("Div", name+".norm", nil, d, v), b.floats(name+".w", normal(b.r, channels, 1), int64(channels)))
	return b.node("Add", name, nil, y, b.floats(name+".b", normal(b.r, channels, 0.3), int64(channels)))
}

// rolled is an image, N, H, W, C, of which both axes begin at a row.
func (b *builder) rolled(name, x string, from, side int64) string {
	for axis := int64(1); axis < 3; axis++ {
		part := func(at string, from, to int64) string {
			at = fmt.Sprint(name, at, axis)
			return b.node("Slice", at, nil, x, b.longs(at+".from", from), b.longs(at+".to", to), b.longs(at+".axis", axis))
		}
		out := name
		if axis == 1 {
			out += " rows"
		}
		x = b.node("Concat", out, attributes{"axis": int(axis)}, part(" behind", from, 99), part(" front", 0, from))
	}
	return x
}

// windows is attention within windows of 2x2 of an image of a given side, with
// eight channels and two heads, as torchvision's Swin has it.
func (b *builder) windows(name, x string, side int64, mask, bias bool) string {
	n := side / 2
	x = b.node("Reshape", "cut"+name, nil, x, b.longs("cut.shape"+name, 1, n, 2, n, 2, 8))
	x = b.node("Transpose", "sorted"+name, attributes{"perm": []int{0, 1, 3, 2, 4, 5}}, x)
	x = b.node("Reshape", "windows"+name, nil, x, b.longs("windows.shape"+name, n*n, 4, 8))
	x = b.node("Reshape", "parts"+name, nil, b.linear("qkv"+name, x, 24, 8), b.longs("parts.shape"+name, n*n, 4, 3, 2, 4))
	x = b.node("Transpose", "first"+name, attributes{"perm": []int{2, 0, 3, 1, 4}}, x)
	b.nodeOf("Split", "split"+name, attributes{"axis": 0}, []string{"q" + name, "k" + name, "v" + name}, x, b.longs("ones"+name, 1, 1, 1))
	heads := func(part string) string {
		return b.node("Reshape", part+name+".heads", nil, part+name, b.longs(part+name+".shape", n*n, 2, 4, 4))
	}
	k := b.node("Transpose", "turned"+name, attributes{"perm": []int{0, 1, 3, 2}}, heads("k"))
	s := b.node("MatMul", "scores"+name, nil, b.node("Mul", "scaled"+name, nil, heads("q"), b.scalar("half"+name, 0.5)), k)
	if bias {
		s = b.node("Add", "biased"+name, nil, s, b.floats("bias"+name, normal(b.r, 2*16, 1), 1, 2, 4, 4))
	}
	if mask {
		// Regions of the rolled image that are no neighbours in the image.
		region := func(window, token int64) int64 {
			y, x := window/n*2+token/2, window%n*2+token%2
			of := func(v int64) int64 { return min(max(v-(side-3), 0), 2) }
			return of(y)*3 + of(x)
		}
		table := make([]float32, n*n*16)
		for i := range table {
			if w, q, k := int64(i)/16, int64(i)/4%4, int64(i)%4; region(w, q) != region(w, k) {
				table[i] = -100
			}
		}
		s = b.node("Reshape", "by window"+name, nil, s, b.longs("by window.shape"+name, 1, n*n, 2, 4, 4))
		s = b.node("Add", "masked"+name, nil, s, b.floats("mask"+name, table, 1, n*n, 1, 4, 4))
		s = b.node("Reshape", "all"+name, nil, s, b.longs("all.shape"+name, -1, 2, 4, 4))
	}
	x = b.node("MatMul", "product"+name, nil, b.node("Softmax", "weights"+name, attributes{"axis": -1}, s), heads("v"))
	x = b.node("Transpose", "tokens"+name, attributes{"perm": []int{0, 2, 1, 3}}, x)
	x = b.node("Reshape", "joined"+name, nil, x, b.longs("joined.shape"+name, n*n, 4, 8))
	x = b.node("Reshape", "grid"+name, nil, b.linear("proj"+name, x, 8, 8), b.longs("grid.shape"+name, 1, n, n, 2, 2, 8))
	x = b.node("Transpose", "rows"+name, attributes{"perm": []int{0, 1, 3, 2, 4, 5}}, x)
	return b.node("Reshape", "image"+name, nil, x, b.longs("image.shape"+name, 1, side, side, 8))
}

// testdata/plain.onnx is the first of models, for other packages' tests.
func TestTestdataIsCurrent(t *testing.T) {
	path := filepath.Join("testdata", "plain.onnx")
	want := models[0].build().bytes()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		if err := os.WriteFile(path, want, 0o666); err != nil {
			t.Fatal(err)
		}
		t.Fatalf("%s was not what the test makes (%v); it has been written anew", path, err)
	}
}

func TestAgainstPlain(t *testing.T) {
	for _, c := range models {
		t.Run(c.name, func(t *testing.T) {
			data := c.build().bytes()
			m, err := Decode("test.onnx", data)
			if err != nil {
				t.Fatal(err)
			}
			p, err := parseModel(data)
			if err != nil {
				t.Fatal(err)
			}
			const n = 2
			e, err := m.NewExtractor(arch.Request{Layers: c.layers, Gradients: true}, n, 1)
			if err != nil {
				t.Fatal(err)
			}
			size := m.InputSize[0] * m.InputSize[1] * m.InputSize[2]
			images := normal(rand.New(rand.NewPCG(3, 4)), n*size, 1)
			got, err := e.Run(images, n)
			if err != nil {
				t.Fatal(err)
			}
			output := p.graph.outputs[0].name
			for i := len(p.graph.nodes) - 1; p.graph.nodes[i].op == "Softmax"; i-- {
				output = p.graph.nodes[i].inputs[0]
			}
			for i := range n {
				input := newArray(1, m.InputSize[0], m.InputSize[1], m.InputSize[2])
				for k := range input.data {
					input.data[k] = float64(images[i*size+k])
				}
				values := interpret(p, input, bump{})
				near(t, "logits", got.Logits[i*m.Classes:][:m.Classes], values[output].data, 1e-5)
				for l, name := range c.layers {
					z := values[name]
					channels := got.States[l].Channels
					axis := 1 // N, C, H, W, or the channels last
					if z.shape[1] != channels {
						axis = len(z.shape) - 1
					}
					want := make([]float64, channels)
					each(z.shape, func(k int, index []int) { want[index[axis]] += z.data[k] })
					near(t, name+" state", got.States[l].Z[i*channels:][:channels], want, 1e-5)
					var gradient []float32
					want = want[:0]
					for k := i; k < channels; k += 1 + channels/12 { // some of many
						const h = 1e-6
						up := loss(interpret(p, input, bump{name, axis, k, h})[output].data)
						down := loss(interpret(p, input, bump{name, axis, k, -h})[output].data)
						want, gradient = append(want, (up-down)/(2*h)), append(gradient, got.States[l].G[i*channels+k])
					}
					near(t, name+" gradient", gradient, want, 1e-4)
				}
			}
		})
	}
}

// loss is KL(uniform || softmax) up to a constant.
func loss(logits []float64) float64 {
	sum, mean := 0.0, 0.0
	for _, v := range logits {
		sum += math.Exp(v)
		mean += v / float64(len(logits))
	}
	return math.Log(sum) - mean
}

func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	worst, top := 0.0, 0.0
	for i, w := range want {
		d := math.Abs(float64(got[i]) - w)
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		worst, top = max(worst, d), max(top, math.Abs(w))
	}
	if worst > tolerance*top {
		t.Errorf("%s: off by %.3g of %.3g", what, worst, top)
	}
}

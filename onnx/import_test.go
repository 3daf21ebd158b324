package onnx

import (
	"bytes"
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
	{"channels last", []string{"whole", "sum", "gelu", "wide", "stem"}, func() *builder {
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
					// N, C, H, W or N, H, W, C.
					at := func(index []int) int { return index[1] }
					if z.shape[1] != channels {
						at = func(index []int) int { return index[3] }
					}
					want := make([]float64, channels)
					each(z.shape, func(k int, index []int) { want[at(index)] += z.data[k] })
					near(t, name+" state", got.States[l].Z[i*channels:][:channels], want, 1e-5)
					if z.shape[1] != channels {
						continue
					}
					for k := range want {
						const h = 1e-6
						up := loss(interpret(p, input, bump{name, k, h})[output].data)
						down := loss(interpret(p, input, bump{name, k, -h})[output].data)
						want[k] = (up - down) / (2 * h)
					}
					near(t, name+" gradient", got.States[l].G[i*channels:][:channels], want, 1e-4)
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

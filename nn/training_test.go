package nn

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"nac/internal/kernel"
	"nac/internal/safetensors"
)

// fill is the rule by which bench/train/golden.py makes parameters and images.
func fill(name string, n int, low, high float64) []float32 {
	h := uint64(0xcbf29ce484222325)
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(low + (high-low)*float64(splitMix(h+uint64(i))>>40)/(1<<24))
	}
	return v
}

// trainee is a network of golden.py.
type trainee struct {
	kind    string
	image   Shape
	build   func(n *trainee, x *Node) *Node
	graph   *Graph
	names   []string
	tensors map[string][]float32
	running map[string][]float32
}

// tensor makes a parameter; scale 0 stands for a norm's weight.
func (n *trainee) tensor(name string, count int, scale float64) []float32 {
	low, high := -1.0, 1.0
	if scale == 0 {
		low, high = 0.5, 1.5
	}
	v := fill(n.kind+"."+name, count, low, high)
	if scale != 0 {
		for i := range v {
			v[i] *= float32(scale)
		}
	}
	n.names = append(n.names, name)
	n.tensors[name] = v
	return v
}

func (n *trainee) conv(name string, x *Node, out int, k ConvShape, bias bool) *Node {
	per := x.shape.C / k.groups() * k.Size * k.Size
	w := n.tensor(name+".weight", out*per, 1/math.Sqrt(float64(per)))
	var b []float32
	if bias {
		b = n.tensor(name+".bias", out, 0.3)
	}
	if k.groups() == x.shape.C && x.shape.C > 1 {
		return n.graph.Depthwise(x, w, b, k)
	}
	return n.graph.Conv(x, w, b, k)
}

func (n *trainee) linear(name string, x *Node, out int) *Node {
	return n.conv(name, x, out, ConvShape{Size: 1, Stride: 1}, true)
}

func (n *trainee) norm(name string, x *Node) *Node {
	c := x.shape.C
	mean, variance := make([]float32, c), make([]float32, c)
	for i := range variance {
		variance[i] = 1
	}
	n.running[name+".running_mean"], n.running[name+".running_var"] = mean, variance
	return n.graph.BatchNorm(x, n.tensor(name+".weight", c, 0), n.tensor(name+".bias", c, 0.3), mean, variance, 1e-5)
}

func (n *trainee) group(name string, x *Node, groups int) *Node {
	c := x.shape.C
	return n.graph.GroupNorm(x, groups, n.tensor(name+".weight", c, 0), n.tensor(name+".bias", c, 0.3), 1e-5)
}

func (n *trainee) layerNorm(name string, x *Node) *Node {
	c := x.shape.C
	return n.graph.LayerNorm(x, n.tensor(name+".weight", c, 0), n.tensor(name+".bias", c, 0.3), 1e-6)
}

var trainees = []trainee{
	{kind: "residual", image: Shape{3, 12, 12}, build: func(n *trainee, x *Node) *Node {
		g := n.graph
		x = g.ReLU(n.norm("bn1", n.conv("conv1", x, 20, ConvShape{Size: 3, Stride: 1, Pad: 1}, false)))
		x = g.ReLU(g.Add(n.norm("bn2", n.conv("conv2", x, 20, ConvShape{Size: 3, Stride: 1, Pad: 1}, false)), x))
		y := n.norm("bn3", n.conv("conv3", x, 36, ConvShape{Size: 3, Stride: 2, Pad: 1}, true))
		x = g.ReLU(g.Add(y, n.norm("bns", n.conv("short", x, 36, ConvShape{Size: 1, Stride: 2}, false))))
		x = g.Clip(n.norm("bn4", n.conv("dw", x, 36, ConvShape{Size: 3, Stride: 2, Pad: 1, Groups: 36}, true)), 6)
		x = g.ReLU(n.conv("gr", x, 24, ConvShape{Size: 3, Stride: 1, Pad: 1, Groups: 4}, true))
		return n.linear("fc", g.GlobalAvgPool(x), 5)
	}},
	{kind: "grouped", image: Shape{2, 9, 9}, build: func(n *trainee, x *Node) *Node {
		g := n.graph
		x = n.group("gn1", g.ReLU(n.conv("conv1", x, 16, ConvShape{Size: 3, Stride: 1, Pad: 1}, true)), 4)
		x = n.group("gn2", g.ReLU(n.conv("conv2", x, 24, ConvShape{Size: 3, Stride: 2, Pad: 1}, true)), 8)
		return n.linear("fc", g.GlobalAvgPool(x), 3)
	}},
	{kind: "perceptron", image: Shape{11, 1, 1}, build: func(n *trainee, x *Node) *Node {
		g := n.graph
		x = g.LeakyReLU(n.norm("bn", n.linear("fc1", x, 40)), 0.2)
		return g.Apply(Sigmoid, n.linear("fc3", g.Apply(GELU, n.linear("fc2", x, 7)), 1))
	}},
	{kind: "transformer", image: Shape{3, 8, 8}, build: func(n *trainee, x *Node) *Node {
		g := n.graph
		x = n.conv("patch", x, 32, ConvShape{Size: 4, Stride: 4}, true)
		x = g.Tokens(x, n.tensor("cls", 32, 0.3), n.tensor("pos", 5*32, 0.3))
		rows := func(name string, x *Node, out int) *Node { return n.linear(name, x, out) }
		x = g.Add(x, rows("proj", g.Attention(rows("qkv", n.layerNorm("ln1", x), 96), 2), 32))
		x = g.Add(x, rows("mlp2", g.Apply(GELU, rows("mlp1", n.layerNorm("ln2", x), 48)), 32))
		return n.linear("fc", g.Token(x, 0), 4)
	}},
}

// compiled builds the network and returns its training and where each parameter is.
func (n trainee) compiled(t *testing.T, o TrainOptions) (*trainee, *Training, map[string]*Parameter) {
	t.Helper()
	n.graph, n.tensors, n.running = NewGraph(), map[string][]float32{}, map[string][]float32{}
	out := n.build(&n, n.graph.Input(n.image))
	training, err := CompileTraining(n.graph, []*Node{out}, o)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*Parameter{}
	for _, p := range training.Parameters() {
		for name, v := range n.tensors {
			if &v[0] == &p.Value[0] {
				by[name] = p
			}
		}
	}
	return &n, training, by
}

// step runs both passes on the images of golden.py.
func (n *trainee) step(t *testing.T, training *Training) {
	t.Helper()
	s := n.image
	if err := training.Forward(fill(n.kind+".input", 6*s.C*s.H*s.W, -1, 1), 6, 1); err != nil {
		t.Fatal(err)
	}
	if err := training.Backward(fill(n.kind+".output", len(training.Output(0)), -1, 1)); err != nil {
		t.Fatal(err)
	}
}

// Gradients of parameters and images, outputs and running statistics are those of
// PyTorch in float64, on every instruction set.
func TestTrainingLikePyTorch(t *testing.T) {
	golden, err := safetensors.Read("testdata/training.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	for _, set := range kernel.Available() {
		for _, n := range trainees {
			t.Run(set.Name()+"/"+n.kind, func(t *testing.T) {
				n, training, by := n.compiled(t, TrainOptions{Kernel: set.Name(), MaxBatch: 7, Workers: 2, InputGradient: true})
				n.step(t, training)
				compare := func(name string, got []float32) {
					want, _, err := golden.Float32s(n.kind + "." + name)
					if err != nil {
						t.Fatal(err)
					}
					if len(got) != len(want) {
						t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
					}
					// The floor is for biases in front of a batch norm, whose gradient is zero but for rounding.
					worst, scale := 0.0, 1e-2
					for i, w := range want {
						d := math.Abs(float64(got[i]) - float64(w))
						if math.IsNaN(d) {
							d = math.Inf(1)
						}
						worst, scale = max(worst, d), max(scale, math.Abs(float64(w)))
					}
					if worst > 1e-5*scale {
						t.Errorf("%s: off by %.2g of %.3g", name, worst, scale)
					}
				}
				compare("value", training.Output(0))
				compare("input.grad", training.InputGradient())
				if len(by) != len(n.names) {
					t.Errorf("%d of %d parameters have a gradient", len(by), len(n.names))
				}
				for name, p := range by {
					compare(name+".grad", p.Grad)
				}
				for name, v := range n.running {
					compare(name, v)
				}
			})
		}
	}
}

// What a parameter's gradient promises, the loss does: central differences in
// train mode along a random direction. The ReLUs' bends leave them coarse.
func TestTrainingGradientIsTheSlope(t *testing.T) {
	for _, n := range trainees {
		t.Run(n.kind, func(t *testing.T) {
			n, training, by := n.compiled(t, TrainOptions{MaxBatch: 6})
			n.step(t, training)
			for name, p := range by {
				direction := fill(name+".direction", len(p.Value), -1, 1)
				slope, value := 0.0, slices.Clone(p.Value)
				for i, d := range direction {
					slope += float64(d) * float64(p.Grad[i])
				}
				loss := func(h float32) (sum float64) {
					for i, d := range direction {
						p.Value[i] = value[i] + h*d
					}
					s := n.image
					if err := training.Forward(fill(n.kind+".input", 6*s.C*s.H*s.W, -1, 1), 6, 1); err != nil {
						t.Fatal(err)
					}
					for i, w := range fill(n.kind+".output", len(training.Output(0)), -1, 1) {
						sum += float64(w) * float64(training.Output(0)[i])
					}
					return sum
				}
				const h = 1.0 / 8192
				got := (loss(h) - loss(-h)) / (2 * h)
				copy(p.Value, value)
				if math.Abs(got-slope) > 0.05*(1+math.Abs(slope)) {
					t.Errorf("%s: the loss has slope %v, the gradient says %v", name, got, slope)
				}
			}
		})
	}
}

// A step gives the same bits whatever the number of workers.
func TestTrainingWorkers(t *testing.T) {
	for _, n := range trainees {
		var first []string
		for _, workers := range []int{1, 2, 5} {
			n, training, by := n.compiled(t, TrainOptions{MaxBatch: 6, Workers: workers})
			n.step(t, training)
			var all []string
			for name, p := range by {
				all = append(all, fmt.Sprint(name, p.Grad))
			}
			for name, v := range n.running {
				all = append(all, fmt.Sprint(name, v))
			}
			slices.Sort(all)
			if first == nil {
				first = all
			} else if !slices.Equal(first, all) {
				t.Errorf("%s: %d workers change the result", n.kind, workers)
			}
		}
	}
}

// Values that an optimizer wrote are used by the next pass, the running statistics
// by a network compiled from the same graph only once it is built anew.
func TestTrainingUsesNewWeights(t *testing.T) {
	for _, n := range trainees {
		n, training, by := n.compiled(t, TrainOptions{MaxBatch: 6})
		n.step(t, training)
		before := slices.Clone(training.Output(0))
		for _, p := range by {
			for i := range p.Value {
				p.Value[i] *= 0.5
			}
		}
		n.step(t, training)
		m, again, _ := n.compiled(t, TrainOptions{MaxBatch: 6})
		for name, v := range n.tensors {
			copy(m.tensors[name], v)
		}
		m.step(t, again)
		if slices.Equal(before, training.Output(0)) {
			t.Errorf("%s: new weights change nothing", n.kind)
		}
		if !slices.Equal(again.Output(0), training.Output(0)) {
			t.Errorf("%s: an update differs from a network built with the same weights", n.kind)
		}
	}
}

// Frozen batch norms normalise by their running statistics and leave them alone; the
// forward pass is then that of a compiled program.
func TestTrainingFrozenNorm(t *testing.T) {
	n, training, _ := trainees[0].compiled(t, TrainOptions{MaxBatch: 6, FrozenNorm: true})
	n.step(t, training)
	for name, v := range n.running {
		for _, x := range v {
			if want := map[bool]float32{true: 1}[strings.HasSuffix(name, "var")]; x != want {
				t.Fatalf("%s is %v", name, x)
			}
		}
	}
	out := n.graph.nodes[len(n.graph.nodes)-1]
	p, err := Compile(n.graph, Want{Logits: out, Feature: out}, Options{MaxBatch: 6})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.NewSession().Run(fill("residual.input", 6*3*12*12, -1, 1), 6)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range r.Logits {
		if math.Abs(float64(v-training.Output(0)[i])) > 1e-5 {
			t.Fatalf("logit %d is %v in training and %v in eval mode", i, training.Output(0)[i], v)
		}
	}
}

// Dropout drops the given share, scales the rest, sends gradients the same way, and
// is the identity in eval mode.
func TestDropout(t *testing.T) {
	g := NewGraph()
	x := g.Input(Shape{512, 1, 1})
	out := g.Dropout(x, 0.25)
	training, err := CompileTraining(g, []*Node{out}, TrainOptions{MaxBatch: 8, InputGradient: true})
	if err != nil {
		t.Fatal(err)
	}
	images := fill("images", 8*512, 0.5, 1)
	ones := make([]float32, len(images))
	for i := range ones {
		ones[i] = 1
	}
	var seeds [2][]float32
	for seed := range seeds {
		if err := training.Forward(images, 8, uint64(seed)); err != nil {
			t.Fatal(err)
		}
		seeds[seed] = slices.Clone(training.Output(0))
		if err := training.Backward(ones); err != nil {
			t.Fatal(err)
		}
		dropped := 0
		for i, v := range seeds[seed] {
			scale := float32(1 / 0.75)
			if v == 0 {
				dropped++
				scale = 0
			}
			if v != images[i]*scale || training.InputGradient()[i] != scale {
				t.Fatalf("value %d: %v became %v, gradient %v", i, images[i], v, training.InputGradient()[i])
			}
		}
		// 4096 draws at 1/4: a deviation of 28.
		if dropped < 1024-150 || dropped > 1024+150 {
			t.Errorf("%d of 4096 dropped", dropped)
		}
	}
	if slices.Equal(seeds[0], seeds[1]) {
		t.Error("the seed changes nothing")
	}
	p, err := Compile(g, Want{Logits: out, Feature: out}, Options{MaxBatch: 8})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.NewSession().Run(images, 8); err != nil || !slices.Equal(r.Logits, images) {
		t.Errorf("not the identity in eval mode (%v)", err)
	}
}

func TestTrainingRefusals(t *testing.T) {
	g := NewGraph()
	x := g.Input(Shape{4, 1, 1})
	w := make([]float32, 16)
	out := g.Linear(g.Linear(x, w, nil), w, nil)
	if _, err := CompileTraining(g, []*Node{out}, TrainOptions{MaxBatch: 1}); err == nil {
		t.Error("a shared weight passes")
	}
	n, training, _ := trainees[2].compiled(t, TrainOptions{MaxBatch: 6})
	for name, err := range map[string]error{
		"no images":     training.Forward(nil, 0, 0),
		"too many":      training.Forward(make([]float32, 1000), 7, 0),
		"too few":       training.Forward(nil, 1, 0),
		"backward only": training.Backward(nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	n.step(t, training)
	if training.Backward(nil) == nil {
		t.Error("a second backward pass has no error")
	}
}

// BenchmarkTraining is a step of ResNet-18 for 32x32 images without the optimizer;
// bench/train compares it with PyTorch.
func BenchmarkTraining(b *testing.B) {
	const batch = 128
	n := &trainee{kind: "bench", graph: NewGraph(), tensors: map[string][]float32{}, running: map[string][]float32{}}
	g := n.graph
	x := g.Input(Shape{3, 32, 32})
	unit := func(name string, x *Node, out, size, stride int) *Node {
		return n.norm(name+".bn", n.conv(name, x, out, ConvShape{Size: size, Stride: stride, Pad: size / 2}, false))
	}
	x = g.ReLU(unit("conv1", x, 64, 3, 1))
	for stage, channels := range []int{64, 128, 256, 512} {
		for block := range 2 {
			name, stride, short := fmt.Sprintf("%d.%d", stage, block), 1, x
			if stage > 0 && block == 0 {
				stride = 2
				short = unit(name+".short", x, channels, 1, 2)
			}
			y := g.ReLU(unit(name+".1", x, channels, 3, stride))
			x = g.ReLU(g.Add(unit(name+".2", y, channels, 3, 1), short))
		}
	}
	out := n.linear("fc", g.GlobalAvgPool(x), 10)
	t, err := CompileTraining(g, []*Node{out}, TrainOptions{MaxBatch: batch})
	if err != nil {
		b.Fatal(err)
	}
	images, grad := fill("images", batch*3*32*32, -1, 1), fill("grad", batch*10, -1, 1)
	b.ReportMetric(float64(t.Bytes())/(1<<20), "MB")
	for b.Loop() {
		if err := t.Forward(images, batch, 0); err != nil {
			b.Fatal(err)
		}
		if err := t.Backward(grad); err != nil {
			b.Fatal(err)
		}
	}
}

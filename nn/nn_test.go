package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"nac/internal/kernel"
)

// A plain float64 interpreter of graphs, to compare with: forward passes by the
// definition of each operation, gradients by central differences.

type plain struct {
	values map[*Node][]float64
	// bump is added to every pixel of one channel of one node.
	node    *Node
	channel int
	bump    float64
}

// bumped keeps the values of the nodes in front of n.
func (p *plain) bumped(g *Graph, n *Node, channel int, bump float64) *plain {
	b := &plain{values: map[*Node][]float64{}, node: n, channel: channel, bump: bump}
	for _, m := range g.nodes[:n.id] {
		if v, ok := p.values[m]; ok {
			b.values[m] = v
		}
	}
	return b
}

func (p *plain) eval(n *Node, image []float64) []float64 {
	if v, ok := p.values[n]; ok {
		return v
	}
	var in [][]float64
	for _, i := range n.inputs {
		in = append(in, p.eval(i, image))
	}
	s := n.shape
	out := make([]float64, s.C*s.H*s.W)
	each := func(f func(c, y, x int) float64) {
		for c := range s.C {
			for y := range s.H {
				for x := range s.W {
					out[(c*s.H+y)*s.W+x] = f(c, y, x)
				}
			}
		}
	}
	var is Shape
	if len(n.inputs) > 0 {
		is = n.inputs[0].shape
	}
	at := func(c, y, x int) float64 { return in[0][(c*is.H+y)*is.W+x] }
	inside := func(y, x int) bool { return y >= 0 && y < is.H && x >= 0 && x < is.W }
	switch op := n.op.(type) {
	case inputOp:
		copy(out, image)
	case mulOp:
		for i := range out {
			out[i] = in[0][i] * in[1][i%len(in[1])]
			if len(in[1]) < len(out) {
				out[i] = in[0][i] * in[1][i/(is.H*is.W)]
			}
		}
	case layerNormOp:
		each(func(c, y, x int) float64 {
			mean, square := 0.0, 0.0
			for i := range is.C {
				mean += at(i, y, x) / float64(is.C)
			}
			for i := range is.C {
				square += (at(i, y, x) - mean) * (at(i, y, x) - mean) / float64(is.C)
			}
			return (at(c, y, x)-mean)/math.Sqrt(square+op.eps)*float64(op.weight[c]) + float64(op.bias[c])
		})
	case pointwiseOp:
		for i := range out {
			out[i] = functions[op.f].value(in[0][i])
		}
	case pixelsOp:
		each(func(c, y, x int) float64 {
			i, v := y*s.W+x, 0.0
			if from := op.index[i]; from >= 0 {
				v = at(c, from/is.W, from%is.W)
			}
			if op.table != nil {
				v += float64(op.table[i*s.C+c])
			}
			return v
		})
	case tokensOp:
		each(func(c, _, t int) float64 {
			v := float64(op.class[c])
			if t > 0 {
				v = at(c, (t-1)/is.W, (t-1)%is.W)
			}
			return v + float64(op.position[t*s.C+c])
		})
	case tokenOp:
		each(func(c, _, _ int) float64 { return at(c, 0, op.index) })
	case mergeOp:
		each(func(c, y, x int) float64 {
			quarter := c / is.C
			if iy, ix := 2*y+quarter%2, 2*x+quarter/2; inside(iy, ix) {
				return at(c%is.C, iy, ix)
			}
			return 0
		})
	case attentionOp:
		op.plain(s, at, out)
	case selectOp:
		each(func(c, y, x int) float64 { return at(op.index[c], y, x) })
	case convOp:
		k := op.k
		per, cout := is.C/k.groups(), s.C/k.groups()
		each(func(c, y, x int) float64 {
			sum := 0.0
			if op.bias != nil {
				sum = float64(op.bias[c])
			}
			for i := range per {
				for ky := range k.Size {
					for kx := range k.Size {
						if iy, ix := y*k.Stride+ky-k.Pad, x*k.Stride+kx-k.Pad; inside(iy, ix) {
							sum += float64(op.weight[((c*per+i)*k.Size+ky)*k.Size+kx]) * at(c/cout*per+i, iy, ix)
						}
					}
				}
			}
			return sum
		})
	case depthwiseOp:
		k := op.k
		each(func(c, y, x int) float64 {
			sum := 0.0
			if op.bias != nil {
				sum = float64(op.bias[c])
			}
			for ky := range k.Size {
				for kx := range k.Size {
					if iy, ix := y*k.Stride+ky-k.Pad, x*k.Stride+kx-k.Pad; inside(iy, ix) {
						sum += float64(op.weight[(c*k.Size+ky)*k.Size+kx]) * at(c, iy, ix)
					}
				}
			}
			return sum
		})
	case affineOp:
		each(func(c, y, x int) float64 { return at(c, y, x)*op.scale[c] + op.shift[c] })
	case clipOp:
		each(func(c, y, x int) float64 { return min(max(at(c, y, x), 0), float64(op.ceiling)) })
	case concatOp:
		out = slices.Concat(in...)
	case reluOp:
		each(func(c, y, x int) float64 { return max(at(c, y, x), 0) })
	case addOp:
		for i := range out {
			out[i] = in[0][i] + in[1][i]
		}
	case maxOp:
		each(func(c, y, x int) float64 {
			best := math.Inf(-1)
			for ky := range op.size {
				for kx := range op.size {
					if iy, ix := y*op.stride+ky-op.pad, x*op.stride+kx-op.pad; inside(iy, ix) {
						best = max(best, at(c, iy, ix))
					}
				}
			}
			return best
		})
	case avgOp:
		each(func(c, y, x int) float64 {
			sum, count := 0.0, 0
			for ky := range op.size {
				for kx := range op.size {
					if iy, ix := y*op.stride+ky-op.pad, x*op.stride+kx-op.pad; inside(iy, ix) {
						sum += at(c, iy, ix)
						count++
					}
				}
			}
			if op.inner {
				return sum / float64(count)
			}
			return sum / float64(op.size*op.size)
		})
	case meanOp:
		each(func(c, _, _ int) float64 {
			sum := 0.0
			for y := range is.H {
				for x := range is.W {
					sum += at(c, y, x)
				}
			}
			return sum / float64(is.H*is.W)
		})
	case shortcutOp:
		each(func(c, y, x int) float64 {
			if c < op.before || c >= op.before+is.C {
				return 0
			}
			return at(c-op.before, y*op.stride, x*op.stride)
		})
	}
	if n == p.node {
		for i := range s.H * s.W {
			out[p.channel*s.H*s.W+i] += p.bump
		}
	}
	p.values[n] = out
	return out
}

// loss is KL(uniform || softmax) up to a constant.
func loss(logits []float64) float64 {
	top := math.Inf(-1)
	for _, v := range logits {
		top = max(top, v)
	}
	sum, mean := 0.0, 0.0
	for _, v := range logits {
		sum += math.Exp(v - top)
		mean += v
	}
	return top + math.Log(sum) - mean/float64(len(logits))
}

type network struct {
	name  string
	build func(r *rand.Rand) (g *Graph, want Want)
}

func normal(r *rand.Rand, n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * scale)
	}
	return v
}

func conv(g *Graph, r *rand.Rand, x *Node, out, size, stride, pad int) *Node {
	fan := x.shape.C * size * size
	return g.Conv(x, normal(r, out*fan, math.Sqrt(2/float64(fan))), normal(r, out, 0.3), ConvShape{Size: size, Stride: stride, Pad: pad})
}

func norm(g *Graph, r *rand.Rand, x *Node) *Node {
	c := x.shape.C
	variance := normal(r, c, 1)
	for i, v := range variance {
		variance[i] = 0.5 + v*v
	}
	return g.BatchNorm(x, normal(r, c, 1), normal(r, c, 0.2), normal(r, c, 0.2), variance, 1e-5)
}

func head(g *Graph, r *rand.Rand, x *Node, k int) (logits, feature *Node) {
	f := g.GlobalAvgPool(x)
	return g.Linear(f, normal(r, k*f.shape.C, 1), normal(r, k, 0.1)), f
}

// networks have every operation, fused and alone, with wanted layers in front of
// and behind activations, and gradients that meet.
var networks = []network{
	{"plain", func(r *rand.Rand) (*Graph, Want) {
		g := NewGraph()
		a := g.ReLU(norm(g, r, conv(g, r, g.Input(Shape{3, 9, 7}), 20, 3, 1, 1)))
		b := g.ReLU(conv(g, r, a, 33, 3, 2, 1))
		l, f := head(g, r, b, 10)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{f, b, a}, Gradients: true}
	}},
	{"residual", func(r *rand.Rand) (*Graph, Want) {
		g := NewGraph()
		a := g.ReLU(conv(g, r, g.Input(Shape{3, 8, 8}), 16, 3, 1, 1))
		b := g.ReLU(g.Add(norm(g, r, conv(g, r, g.ReLU(conv(g, r, a, 16, 3, 1, 1)), 16, 3, 1, 1)), a))
		c := g.ReLU(g.Add(conv(g, r, g.ReLU(conv(g, r, b, 16, 3, 1, 1)), 16, 3, 1, 1), b))
		short := g.ShortcutA(c, 2, 8, 32)
		d := g.ReLU(g.Add(conv(g, r, g.ReLU(conv(g, r, c, 32, 3, 2, 1)), 32, 3, 1, 1), short))
		l, f := head(g, r, d, 10)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{f, d, c, a}, Gradients: true}
	}},
	{"projection", func(r *rand.Rand) (*Graph, Want) {
		g := NewGraph()
		a := g.ReLU(conv(g, r, g.Input(Shape{3, 9, 9}), 16, 3, 1, 1))
		y := g.ReLU(norm(g, r, conv(g, r, a, 24, 1, 1, 0)))
		y = norm(g, r, conv(g, r, g.ReLU(norm(g, r, conv(g, r, y, 24, 3, 2, 1))), 48, 1, 1, 0))
		b := g.ReLU(g.Add(y, norm(g, r, conv(g, r, a, 48, 1, 2, 0))))
		c := g.ReLU(g.Add(norm(g, r, conv(g, r, b, 48, 3, 1, 1)), b))
		l, f := head(g, r, c, 5)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{c, a}, Gradients: true}
	}},
	{"projection first", func(r *rand.Rand) (*Graph, Want) {
		// The 1x1 stride-2 convolution's gradient comes last, or alone.
		g := NewGraph()
		a := g.ReLU(conv(g, r, g.Input(Shape{3, 8, 8}), 16, 3, 1, 1))
		p := conv(g, r, a, 32, 1, 2, 0)
		b := g.ReLU(g.Add(conv(g, r, a, 32, 3, 2, 1), p))
		c := g.ReLU(conv(g, r, b, 32, 1, 3, 0))
		l, f := head(g, r, c, 5)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{b, a}, Gradients: true}
	}},
	{"pools", func(r *rand.Rand) (*Graph, Want) {
		g := NewGraph()
		a := conv(g, r, g.Input(Shape{3, 17, 15}), 16, 7, 2, 3)
		b := g.MaxPool(g.ReLU(norm(g, r, a)), 3, 2, 1)
		c := g.AvgPool(g.ReLU(conv(g, r, b, 20, 3, 1, 1)), 2, 2, 0)
		l, f := head(g, r, c, 7)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{c, b, a}, Gradients: true}
	}},
	{"pre-activation", func(r *rand.Rand) (*Graph, Want) {
		// Batch norms and sums that no convolution can take along, as in
		// Wide ResNet and DenseNet.
		g := NewGraph()
		a := conv(g, r, g.Input(Shape{3, 6, 6}), 16, 3, 1, 1)
		b := g.Add(conv(g, r, g.ReLU(norm(g, r, a)), 16, 3, 1, 1), a)
		c := g.Add(g.MaxPool(b, 3, 1, 1), g.ReLU(norm(g, r, b)))
		d := g.ReLU(g.Add(g.AvgPool(c, 3, 1, 1), g.ReLU(c)))
		l, f := head(g, r, d, 6)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{d, c, b, a}, Gradients: true}
	}},
	{"wide", func(r *rand.Rand) (*Graph, Want) {
		// Wide enough for Winograd, with sides that its 2x2 pixels do not divide.
		g := NewGraph()
		a := g.ReLU(conv(g, r, g.Input(Shape{3, 7, 6}), 40, 3, 1, 1))
		b := g.ReLU(g.Add(norm(g, r, conv(g, r, g.ReLU(conv(g, r, a, 40, 3, 1, 1)), 40, 3, 1, 1)), a))
		c := g.ReLU(conv(g, r, g.ReLU(conv(g, r, b, 48, 3, 1, 0)), 144, 3, 1, 2))
		l, f := head(g, r, c, 10)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{c, b, a}, Gradients: true}
	}},
	{"input gradient", func(r *rand.Rand) (*Graph, Want) {
		g := NewGraph()
		x := g.Input(Shape{3, 6, 5})
		l, f := head(g, r, g.ReLU(conv(g, r, g.ReLU(conv(g, r, x, 16, 3, 2, 1)), 20, 3, 1, 1)), 4)
		return g, Want{Logits: l, Feature: f, Layers: []*Node{l, f, x}, Gradients: true}
	}},
}

func TestProgramAgainstPlain(t *testing.T) {
	for _, net := range networks {
		t.Run(net.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			g, want := net.build(r)
			const n = 2
			var images []float32
			var expected []expectation
			for _, set := range kernel.Available() {
				t.Run(set.Name(), func(t *testing.T) {
					s := session(t, g, want, Options{Kernel: set.Name(), MaxBatch: 8, Workers: 2})
					if expected == nil {
						images = normal(r, n*s.inputFloat, 1)
						for i := range n {
							expected = append(expected, expect(g, want, images[i*s.inputFloat:][:s.inputFloat]))
						}
					}
					// Twice, so that what a run leaves behind shows.
					if _, err := s.Run(images, n); err != nil {
						t.Fatal(err)
					}
					got, err := s.Run(images, n)
					if err != nil {
						t.Fatal(err)
					}
					compare(t, got, expected)
				})
			}
		})
	}
}

func session(t *testing.T, g *Graph, want Want, o Options) *Session {
	t.Helper()
	p, err := Compile(g, want, o)
	if err != nil {
		t.Fatal(err)
	}
	return p.NewSession()
}

// expectation is what the plain interpreter yields for one image.
type expectation struct {
	logits, feature []float64
	z, g            [][]float64
}

func expect(g *Graph, want Want, image []float32) expectation {
	x := make([]float64, len(image))
	for i, v := range image {
		x[i] = float64(v)
	}
	p := &plain{values: map[*Node][]float64{}}
	e := expectation{logits: p.eval(want.Logits, x), feature: p.eval(want.Feature, x)}
	for _, n := range want.Layers {
		v := p.eval(n, x)
		c := n.shape.C
		z, grad := make([]float64, c), make([]float64, c)
		for j := range v {
			z[j/(n.shape.H*n.shape.W)] += v[j]
		}
		for j := range grad {
			// Small, so that few ReLUs and maxima change sides.
			const h = 1e-7
			up, down := p.bumped(g, n, j, h), p.bumped(g, n, j, -h)
			grad[j] = (loss(up.eval(want.Logits, x)) - loss(down.eval(want.Logits, x))) / (2 * h)
		}
		e.z, e.g = append(e.z, z), append(e.g, grad)
	}
	return e
}

func compare(t *testing.T, got *Result, expected []expectation) {
	t.Helper()
	for i, e := range expected {
		k, f := len(e.logits), len(e.feature)
		near(t, fmt.Sprintf("image %d: logits", i), got.Logits[i*k:][:k], e.logits, 1e-5)
		near(t, fmt.Sprintf("image %d: feature", i), got.Feature[i*f:][:f], e.feature, 1e-5)
		for l := range e.z {
			c := len(e.z[l])
			near(t, fmt.Sprintf("image %d: layer %d state", i, l), got.Z[l][i*c:][:c], e.z[l], 1e-5)
			near(t, fmt.Sprintf("image %d: layer %d gradient", i, l), got.G[l][i*c:][:c], e.g[l], 3e-5)
		}
	}
}

// near compares by the largest difference over the largest value.
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

// What an image yields is the same whatever stands beside it and however many
// workers there are.
func TestBatchAndWorkersChangeNothing(t *testing.T) {
	for _, net := range []string{"residual", "projection", "wide", "inverted residuals", "dense", "groups", "excitation", "convnext", "vit", "vit, class token", "swin"} {
		i := slices.IndexFunc(networks, func(n network) bool { return n.name == net })
		r := rand.New(rand.NewPCG(3, 4))
		g, want := networks[i].build(r)
		const maxBatch = 40
		one := session(t, g, want, Options{MaxBatch: maxBatch, Workers: 1})
		images := normal(r, maxBatch*one.inputFloat, 1)
		for _, workers := range []int{1, 2, 3, 7} {
			many := session(t, g, want, Options{MaxBatch: maxBatch, Workers: workers})
			for _, batch := range []int{1, 2, 5, 17, 40} {
				all, err := many.Run(images, batch)
				if err != nil {
					t.Fatal(err)
				}
				for i := range batch {
					single, err := one.Run(images[i*one.inputFloat:], 1)
					if err != nil {
						t.Fatal(err)
					}
					what := fmt.Sprintf("%s: %d workers, batch %d, image %d", net, workers, batch, i)
					same(t, what+": logits", all.Logits, single.Logits, i)
					for l := range single.Z {
						same(t, fmt.Sprintf("%s: layer %d state", what, l), all.Z[l], single.Z[l], i)
						same(t, fmt.Sprintf("%s: layer %d gradient", what, l), all.G[l], single.G[l], i)
					}
				}
			}
		}
	}
}

// The halves of a session run side by side in its memory and yield what it yields.
func TestSplit(t *testing.T) {
	for _, net := range []string{"residual", "wide", "inverted residuals", "vit"} {
		i := slices.IndexFunc(networks, func(n network) bool { return n.name == net })
		r := rand.New(rand.NewPCG(5, 4))
		g, want := networks[i].build(r)
		const maxBatch = 24
		for _, workers := range []int{2, 5} {
			whole := session(t, g, want, Options{MaxBatch: maxBatch, Workers: workers})
			images := normal(r, maxBatch*whole.inputFloat, 1)
			expected := make([]*Result, maxBatch)
			for i := range expected {
				single, err := whole.Run(images[i*whole.inputFloat:], 1)
				if err != nil {
					t.Fatal(err)
				}
				expected[i] = &Result{Logits: slices.Clone(single.Logits)}
				for l := range single.Z {
					expected[i].Z = append(expected[i].Z, slices.Clone(single.Z[l]))
					expected[i].G = append(expected[i].G, slices.Clone(single.G[l]))
				}
			}
			halves := whole.Split()
			if len(halves) != 2 {
				t.Fatalf("%d halves of %d workers", len(halves), workers)
			}
			var got [2][]*Result // by half, copies of runs of 1, 2, ... images from a place on
			var wait sync.WaitGroup
			for h, half := range halves {
				wait.Go(func() {
					for n := 1; n <= maxBatch/2; n++ {
						all, err := half.Run(images[h*maxBatch/2*half.inputFloat:], n)
						if err != nil {
							t.Error(err)
							return
						}
						c := &Result{N: n, Logits: slices.Clone(all.Logits)}
						for l := range all.Z {
							c.Z, c.G = append(c.Z, slices.Clone(all.Z[l])), append(c.G, slices.Clone(all.G[l]))
						}
						got[h] = append(got[h], c)
					}
				})
			}
			wait.Wait()
			for h := range got {
				for _, all := range got[h] {
					for i := range all.N {
						single, what := expected[h*maxBatch/2+i], fmt.Sprintf("%s: half %d of %d workers, batch %d, image %d", net, h, workers, all.N, i)
						same(t, what+": logits", all.Logits, single.Logits, i)
						for l := range single.Z {
							same(t, fmt.Sprintf("%s: layer %d state", what, l), all.Z[l], single.Z[l], i)
							same(t, fmt.Sprintf("%s: layer %d gradient", what, l), all.G[l], single.G[l], i)
						}
					}
				}
			}
		}
		if halves := session(t, g, want, Options{MaxBatch: 3, Workers: 4}).Split(); halves != nil {
			t.Error("halves of a session whose workers have no memory of their own")
		}
		if halves := session(t, g, want, Options{MaxBatch: 3, Workers: 1}).Split(); halves != nil {
			t.Error("halves of one worker")
		}
	}
}

func same(t *testing.T, what string, all, single []float32, image int) {
	t.Helper()
	if !slices.Equal(all[image*len(single):][:len(single)], single) {
		t.Fatalf("%s differs from the image alone", what)
	}
}

func TestForwardOnly(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	g, want := networks[1].build(r)
	want.Gradients = false
	s := session(t, g, want, Options{MaxBatch: 2})
	got, err := s.Run(normal(r, 2*s.inputFloat, 1), 2)
	if err != nil {
		t.Fatal(err)
	}
	if got.G != nil {
		t.Error("gradients without being asked for")
	}
	if len(got.Z) != len(want.Layers) {
		t.Errorf("%d layers, want %d", len(got.Z), len(want.Layers))
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	g, want := networks[1].build(r)
	for _, n := range []int{1, 8} {
		s := session(t, g, want, Options{MaxBatch: n, Workers: 2})
		images := normal(r, n*s.inputFloat, 1)
		if a := testing.AllocsPerRun(20, func() {
			if _, err := s.Run(images, n); err != nil {
				t.Fatal(err)
			}
		}); a > 0 {
			t.Errorf("batch of %d: %v allocations a run", n, a)
		}
	}
}

func TestMistakes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	g, want := networks[0].build(r)
	if _, err := Compile(g, want, Options{Kernel: "sse9", MaxBatch: 1}); err == nil {
		t.Error("an unknown kernel is accepted")
	}
	if _, err := Compile(g, want, Options{}); err == nil {
		t.Error("a session for no images is accepted")
	}
	s := session(t, g, want, Options{MaxBatch: 2, Workers: 1})
	for _, n := range []int{0, 3} {
		if _, err := s.Run(make([]float32, 3*s.inputFloat), n); err == nil {
			t.Errorf("a batch of %d in a session for 2 is accepted", n)
		}
	}
	if _, err := s.Run(make([]float32, 10), 1); err == nil {
		t.Error("ten values are accepted as an image")
	}
}

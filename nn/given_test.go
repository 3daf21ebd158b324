package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nac/internal/kernel"
)

// given makes a plain interpreter's activation of pixels of channels.
func given(v []float64, s Shape) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i%(s.H*s.W)*s.C+i/(s.H*s.W)] = float32(x)
	}
	return out
}

func identity(n *Node) Map {
	return Map{Node: n, Size: n.shape.C * n.shape.H * n.shape.W, Reduce: func(a, dst []float32) { copy(dst, a) }}
}

func plainImage(images []float32, i, size int) []float64 {
	image := make([]float64, size)
	for j := range image {
		image[j] = float64(images[i*size+j])
	}
	return image
}

// Maps see the whole activation, and leave what else is computed alone.
func TestMaps(t *testing.T) {
	for _, net := range networks {
		t.Run(net.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(11, 12))
			g, want := net.build(r)
			const n = 3
			without := session(t, g, want, Options{MaxBatch: 8, Workers: 2})
			images := normal(r, n*without.inputFloat, 1)
			expected, err := without.Run(images, n)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range want.Layers {
				want.Maps = append(want.Maps, identity(l))
			}
			got, err := session(t, g, want, Options{MaxBatch: 8, Workers: 2}).Run(images, n)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				same(t, "logits", expected.Logits, got.Logits[i*want.Logits.shape.C:][:want.Logits.shape.C], i)
				p := &plain{values: map[*Node][]float64{}}
				for l, m := range want.Maps {
					same(t, "gradients", expected.G[l], got.G[l][i*m.Node.shape.C:][:m.Node.shape.C], i)
					v := p.eval(m.Node, plainImage(images, i, without.inputFloat))
					w := widened(given(v, m.Node.shape))
					near(t, fmt.Sprintf("image %d: map %d", i, l), got.Maps[l][i*m.Size:][:m.Size], w, 1e-5)
				}
			}
		})
	}
}

func widened(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// square is half the sum of squares of the means over space.
func square(v []float64, s Shape) float64 {
	means := make([]float64, s.C)
	for i, x := range v {
		means[i/(s.H*s.W)] += x / float64(s.H*s.W)
	}
	sum := 0.0
	for _, m := range means {
		sum += m * m / 2
	}
	return sum
}

// every is the step between the values that gradients are compared at: differences
// are dear.
func every(n int) int { return max(1, n/11) }

func some[T any](v []T) (s []T) {
	for j := 0; j < len(v); j += every(len(v)) {
		s = append(s, v[j])
	}
	return s
}

// differences writes the central differences of f with respect to some of v.
func differences(v []float64, f func() float64, grad []float64) {
	const h = 1e-7
	for j := 0; j < len(v); j += every(len(v)) {
		x := v[j]
		v[j] = x + h
		up := f()
		v[j] = x - h
		grad[j] = (up - f()) / (2 * h)
		v[j] = x
	}
}

// The gradient of a loss at the logits and at inner layers, with respect to
// the image.
func TestInputGradient(t *testing.T) {
	for _, net := range networks {
		for _, set := range kernel.Available() {
			t.Run(net.name+"/"+set.Name(), func(t *testing.T) {
				r := rand.New(rand.NewPCG(13, 14))
				g, want := net.build(r)
				for _, node := range []*Node{want.Logits, want.Layers[len(want.Layers)-1]} {
					want := Want{Losses: []Loss{{node, func(v, g []float32) { copy(g, v) }}}}
					const n = 2
					s := session(t, g, want, Options{Kernel: set.Name(), MaxBatch: 8, Workers: 2})
					images := normal(r, n*s.inputFloat, 1)
					// Twice, so that what a run leaves behind shows.
					if _, err := s.Run(images, n); err != nil {
						t.Fatal(err)
					}
					got, err := s.Run(images, n)
					if err != nil {
						t.Fatal(err)
					}
					for i := 1; i < n; i++ {
						image := plainImage(images, i, s.inputFloat)
						grad := make([]float64, len(image))
						at := func() float64 {
							return square((&plain{values: map[*Node][]float64{}}).eval(node, image), node.shape)
						}
						differences(image, at, grad)
						near(t, fmt.Sprintf("image %d, loss at %v", i, node.shape), some(got.InputGradients[0][i*s.inputFloat:][:s.inputFloat]), some(grad), 3e-5)
					}
				}
			})
		}
	}
}

// Losses that share a forward pass have the gradients that each has by itself, bit for bit.
func TestLossesTogether(t *testing.T) {
	for _, net := range networks {
		for _, set := range kernel.Available() {
			t.Run(net.name+"/"+set.Name(), func(t *testing.T) {
				r := rand.New(rand.NewPCG(19, 20))
				g, want := net.build(r)
				deep, shallow := want.Logits, want.Layers[len(want.Layers)-1]
				losses := []Loss{
					{deep, func(v, g []float32) { copy(g, v) }},
					{deep, func(v, g []float32) { clear(g); g[0] = 1 }},
					{shallow, func(v, g []float32) { copy(g, v) }},
					{deep, func(v, g []float32) { copy(g, v) }},
				}
				// All activations that a loss is of are kept, in both.
				maps := []Map{identity(deep), identity(shallow)}
				options := Options{Kernel: set.Name(), MaxBatch: 8, Workers: 2}
				const n = 3
				together := session(t, g, Want{Losses: losses, Maps: maps}, options)
				images := normal(r, n*together.inputFloat, 1)
				if _, err := together.Run(images, n); err != nil {
					t.Fatal(err)
				}
				all, err := together.Run(images, n) // again, so that what a run leaves behind shows
				if err != nil {
					t.Fatal(err)
				}
				for i, l := range losses {
					alone, err := session(t, g, Want{Losses: []Loss{l}, Maps: maps}, options).Run(images, n)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(all.InputGradients[i], alone.InputGradients[0]) {
						t.Errorf("loss %d: the gradient is not what it is alone", i)
					}
				}
			})
		}
	}
}

// A run may start from the activation of a node that all of the image goes through.
func TestFrom(t *testing.T) {
	for _, net := range networks {
		t.Run(net.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(15, 16))
			g, full := net.build(r)
			for _, from := range full.Layers {
				want := Want{Logits: full.Logits, Feature: full.Feature, From: from}
				if from.id > full.Feature.id {
					want.Feature = nil
				}
				if _, err := Compile(g, want, Options{MaxBatch: 8}); err != nil {
					if !strings.Contains(err.Error(), "needs more of the image") {
						t.Fatal(err)
					}
					continue
				}
				const n = 2
				s := session(t, g, want, Options{MaxBatch: 8, Workers: 2})
				size := from.shape.C * from.shape.H * from.shape.W
				activation := normal(r, n*size, 1)
				got, err := s.Run(activation, n)
				if err != nil {
					t.Fatal(err)
				}
				k := want.Logits.shape.C
				for i := range n {
					v := make([]float64, size)
					for j := range v {
						v[j] = float64(activation[i*size+j%(from.shape.H*from.shape.W)*from.shape.C+j/(from.shape.H*from.shape.W)])
					}
					p := &plain{values: map[*Node][]float64{from: v}}
					near(t, fmt.Sprintf("image %d from %v", i, from.shape), got.Logits[i*k:][:k], p.eval(want.Logits, nil), 1e-5)
				}
				// The gradient with respect to what is given.
				want = Want{From: from, Losses: []Loss{{want.Logits, func(v, g []float32) { copy(g, v) }}}}
				if got, err = session(t, g, want, Options{MaxBatch: 8, Workers: 2}).Run(activation, n); err != nil {
					t.Fatal(err)
				}
				v := make([]float64, size)
				for j := range v {
					v[j] = float64(activation[j%(from.shape.H*from.shape.W)*from.shape.C+j/(from.shape.H*from.shape.W)])
				}
				grad := make([]float64, size)
				at := func() float64 {
					p := &plain{values: map[*Node][]float64{from: v}}
					return square(p.eval(full.Logits, nil), full.Logits.shape)
				}
				differences(v, at, grad)
				back := make([]float32, size)
				for j := range back {
					back[j] = got.InputGradients[0][j%(from.shape.H*from.shape.W)*from.shape.C+j/(from.shape.H*from.shape.W)]
				}
				near(t, fmt.Sprintf("gradient from %v", from.shape), some(back), some(grad), 3e-5)
			}
		})
	}
}

func TestGivenBatchAndWorkersChangeNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	g, want := networks[1].build(r)
	gradient := func(v, g []float32) {
		top := float32(math.Inf(-1))
		for _, x := range v {
			top = max(top, x)
		}
		for c, x := range v {
			g[c] = x - top
		}
	}
	want = Want{Losses: []Loss{{want.Logits, gradient}}, Maps: []Map{identity(want.Layers[1])}}
	const most = 40
	one := session(t, g, want, Options{MaxBatch: most, Workers: 1})
	images := normal(r, most*one.inputFloat, 1)
	for _, workers := range []int{2, 3, 7} {
		many := session(t, g, want, Options{MaxBatch: most, Workers: workers})
		for _, n := range []int{1, 2, 17, most} {
			all, err := many.Run(images, n)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				single, err := one.Run(images[i*one.inputFloat:], 1)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "input gradient", all.InputGradients[0], single.InputGradients[0], i)
				same(t, "map", all.Maps[0], single.Maps[0], i)
			}
		}
	}
	s := session(t, g, want, Options{MaxBatch: 8, Workers: 2})
	if a := testing.AllocsPerRun(20, func() {
		if _, err := s.Run(images, 8); err != nil {
			t.Fatal(err)
		}
	}); a > 0 {
		t.Errorf("%v allocations a run", a)
	}
}

package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"nac/internal/kernel"
)

func skipWithoutBF16(t testing.TB) {
	if _, err := kernel.ByName(kernel.BF16); err != nil {
		t.Skip("this machine has no AVX512-BF16, or the build no assembly")
	}
}

// Where operands are bfloat16 already, nothing is lost but by adding in float32.
func TestPairsExact(t *testing.T) {
	skipWithoutBF16(t)
	round := func(values []float32) []float32 {
		for i, v := range values {
			values[i] = math.Float32frombits(uint32(kernel.BFloat16(v)) << 16)
		}
		return values
	}
	for _, c := range []struct {
		name    string
		in, out int
		size    int
		stride  int
		pad     int
		groups  int
		height  int
		rounded bool
	}{
		{"1x1", 32, 48, 1, 1, 0, 1, 5, true},
		{"channels not a multiple of the lanes", 37, 19, 1, 1, 0, 1, 5, true},
		{"3x3 of stride 2", 35, 64, 3, 2, 1, 1, 7, true},
		{"5x5, rows of taps", 16, 32, 5, 1, 2, 1, 6, true},
		{"filters longer than a part", 2080, 64, 1, 1, 0, 1, 3, true},
		{"groups stay in float32", 32, 32, 3, 1, 1, 2, 5, false},
		{"single pixels stay in float32", 32, 32, 1, 1, 0, 1, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 4))
			g := NewGraph()
			x := g.Input(Shape{c.in, c.height, c.height})
			k := ConvShape{Size: c.size, Stride: c.stride, Pad: c.pad, Groups: c.groups}
			weights := normal(r, c.out*c.in/c.groups*c.size*c.size, 0.1)
			images := normal(r, 2*c.in*c.height*c.height, 1)
			if c.rounded {
				round(weights)
				round(images)
			}
			a := g.ReLU(g.Conv(x, weights, nil, k))
			l, f := head(g, r, a, 5)
			want := Want{Logits: l, Feature: f, Layers: []*Node{a}, Gradients: true}
			s := session(t, g, want, Options{Kernel: kernel.BF16, MaxBatch: 2, Workers: 2})
			got, err := s.Run(images, 2)
			if err != nil {
				t.Fatal(err)
			}
			size := len(images) / 2
			expected := []expectation{expect(g, want, images[:size]), expect(g, want, images[size:])}
			compare(t, got, expected)

			if c.in > 64 {
				return // the plain gradient takes long
			}
			// Of the gradient that goes back through the convolution each value is rounded.
			want.Layers = []*Node{x}
			s = session(t, g, want, Options{Kernel: kernel.BF16, MaxBatch: 2, Workers: 2})
			if got, err = s.Run(images, 2); err != nil {
				t.Fatal(err)
			}
			tolerance := 3e-5
			if c.rounded {
				tolerance = 1. / 128
			}
			for i := range 2 {
				near(t, "gradient behind", got.G[0][i*c.in:][:c.in], expect(g, want, images[i*size:][:size]).g[0], tolerance)
			}
		})
	}
}

// Everywhere else the rounding of operands shows, and not more than it.
func TestPairsAgainstPlain(t *testing.T) {
	skipWithoutBF16(t)
	rounded := 0
	for _, net := range networks {
		g, want := net.build(rand.New(rand.NewPCG(1, 2)))
		exact := session(t, g, want, Options{MaxBatch: 8, Workers: 2})
		pairs := session(t, g, want, Options{Kernel: kernel.BF16, MaxBatch: 8, Workers: 2})
		images := normal(rand.New(rand.NewPCG(5, 6)), 2*exact.inputFloat, 1)
		a, err := exact.Run(images, 2)
		if err != nil {
			t.Fatal(err)
		}
		b, err := pairs.Run(images, 2)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, x, y []float32) {
			reference := make([]float64, len(x))
			for i, v := range x {
				reference[i] = float64(v)
				if v != y[i] {
					rounded++
				}
			}
			near(t, net.name+": "+what, y, reference, 0.05)
		}
		check("logits", a.Logits, b.Logits)
		for i := range a.Z {
			check("state", a.Z[i], b.Z[i])
		}
	}
	if rounded == 0 {
		t.Error("nothing was rounded to bfloat16")
	}
}

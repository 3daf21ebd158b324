package nn

import (
	"math/rand/v2"
	"testing"
)

// Operations of the networks that exporters write.
func init() {
	networks = append(networks,
		network{"groups", func(r *rand.Rand) (*Graph, Want) {
			// ResNeXt and RegNet: narrow groups, odd ones and wide ones.
			g := NewGraph()
			grouped := func(x *Node, out, size, stride, pad, groups int) *Node {
				k := ConvShape{Size: size, Stride: stride, Pad: pad, Groups: groups}
				return g.Conv(x, normal(r, out*x.shape.C/groups*size*size, 0.2), normal(r, out, 0.2), k)
			}
			a := g.ReLU(conv(g, r, g.Input(Shape{3, 8, 7}), 32, 3, 1, 1))
			b := g.ReLU(norm(g, r, grouped(a, 64, 3, 1, 1, 8)))
			c := g.ReLU(g.Add(grouped(b, 36, 3, 2, 1, 4), grouped(b, 36, 1, 2, 0, 2)))
			d := g.ReLU(grouped(grouped(c, 72, 3, 1, 1, 3), 128, 1, 1, 0, 2))
			l, f := head(g, r, d, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{d, c, b, a}, Gradients: true}
		}},
		network{"excitation", func(r *rand.Rand) (*Graph, Want) {
			// MobileNetV3 and EfficientNet: a factor for each channel, smooth functions.
			g := NewGraph()
			x := conv(g, r, g.Input(Shape{3, 7, 6}), 20, 3, 1, 1)
			a := g.Apply(SiLU, x)
			s := g.ReLU(conv(g, r, g.GlobalAvgPool(a), 8, 1, 1, 0))
			b := g.Mul(a, g.Apply(Sigmoid, conv(g, r, s, 20, 1, 1, 0)))
			c := g.Apply(HardSwish, conv(g, r, b, 24, 1, 1, 0))
			e := g.Mul(c, g.Apply(HardSigmoid, conv(g, r, g.ReLU(conv(g, r, g.GlobalAvgPool(c), 8, 1, 1, 0)), 24, 1, 1, 0)))
			d := g.Mul(g.Apply(Tanh, e), g.ReLU(g.Apply(Erf, conv(g, r, e, 24, 1, 1, 0))))
			l, f := head(g, r, d, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{d, c, b, a, x}, Gradients: true}
		}},
		network{"convnext", func(r *rand.Rand) (*Graph, Want) {
			g := NewGraph()
			norm := func(x *Node) *Node {
				return g.LayerNorm(x, normal(r, x.shape.C, 1), normal(r, x.shape.C, 0.3), 1e-6)
			}
			a := norm(conv(g, r, g.Input(Shape{3, 12, 12}), 20, 2, 2, 0))
			y := norm(depthwise(g, r, a, ConvShape{Size: 7, Stride: 1, Pad: 3}))
			h := conv(g, r, y, 80, 1, 1, 0)
			y = conv(g, r, g.Apply(GELU, h), 20, 1, 1, 0)
			b := g.Add(g.Scale(y, normal(r, 20, 1)), a)
			c := norm(g.ReLU(conv(g, r, norm(b), 36, 2, 2, 0)))
			l, f := head(g, r, c, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{c, b, h, a}, Gradients: true}
		}},
		network{"shuffle", func(r *rand.Rand) (*Graph, Want) {
			g := NewGraph()
			a := g.ReLU(conv(g, r, g.Input(Shape{3, 6, 6}), 20, 3, 1, 1))
			half := func(from, step int) []int {
				var index []int
				for i := range 10 {
					index = append(index, from+i*step)
				}
				return index
			}
			b := g.Concat(g.Select(a, half(0, 1)), g.ReLU(conv(g, r, g.Select(a, half(10, 1)), 10, 3, 1, 1)))
			c := conv(g, r, g.Select(b, append(half(0, 2), 1, 3, 3)), 20, 3, 1, 1)
			l, f := head(g, r, c, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{c, b, a}, Gradients: true}
		}},
		network{"pixels", func(r *rand.Rand) (*Graph, Want) {
			// Padded and rolled, cut, then some pixels twice, behind and before a ReLU.
			g := NewGraph()
			a := g.ReLU(conv(g, r, g.Input(Shape{3, 4, 5}), 20, 3, 1, 1))
			var index []int
			for y := range 6 {
				for x := range 6 {
					if i := (y+1)%6*6 + (x+4)%6; i/6 < 4 && i%6 < 5 {
						index = append(index, i/6*5+i%6)
					} else {
						index = append(index, -1)
					}
				}
			}
			b := conv(g, r, g.Pixels(a, 6, 6, index, normal(r, 36*20, 0.3)), 12, 3, 1, 1)
			c := g.ReLU(g.Pixels(b, 2, 3, []int{7, 0, 35, 7, -1, 12}, nil))
			l, f := head(g, r, c, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{c, b, a}, Gradients: true}
		}},
		network{"open pools", func(r *rand.Rand) (*Graph, Want) {
			g := NewGraph()
			a := conv(g, r, g.Input(Shape{3, 10, 13}), 16, 3, 1, 1)
			b := g.Pool(a, Pool{Size: 3, Stride: 2, Height: 5, Width: 6})
			c := g.Pool(norm(g, r, b), Pool{Size: 3, Stride: 2, Pad: 1, Height: 3, Width: 3, Average: true, Inner: true})
			d := g.Pool(c, Pool{Size: 2, Stride: 2, Height: 2, Width: 2, Average: true})
			l, f := head(g, r, d, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{c, b, a}, Gradients: true}
		}},
	)
}

func TestEveryOperationAllocatesNothing(t *testing.T) {
	for _, net := range networks {
		r := rand.New(rand.NewPCG(7, 8))
		g, want := net.build(r)
		s := session(t, g, want, Options{MaxBatch: 2, Workers: 1})
		images := normal(r, 2*s.inputFloat, 1)
		if a := testing.AllocsPerRun(20, func() {
			if _, err := s.Run(images, 2); err != nil {
				t.Fatal(err)
			}
		}); a > 0 {
			t.Errorf("%s: %v allocations a run", net.name, a)
		}
	}
}

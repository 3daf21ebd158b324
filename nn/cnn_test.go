package nn

import "math/rand/v2"

func depthwise(g *Graph, r *rand.Rand, x *Node, k ConvShape) *Node {
	return g.Depthwise(x, normal(r, x.shape.C*k.Size*k.Size, 0.5), normal(r, x.shape.C, 0.3), k)
}

func init() {
	networks = append(networks,
		network{"inverted residuals", func(r *rand.Rand) (*Graph, Want) {
			// MobileNetV2, with both kinds of padding and wanted layers within.
			g := NewGraph()
			a := g.Clip(norm(g, r, conv(g, r, g.Input(Shape{3, 13, 12}), 16, 3, 2, 1)), 1)
			block := func(x *Node, out int, k ConvShape) (*Node, *Node) {
				y := g.Clip(norm(g, r, conv(g, r, x, 40, 1, 1, 0)), 1)
				d := g.Clip(norm(g, r, depthwise(g, r, y, k)), 1)
				return norm(g, r, conv(g, r, d, out, 1, 1, 0)), d
			}
			y, _ := block(a, 16, ConvShape{Size: 3, Stride: 1, Pad: 1})
			b := g.Add(a, y)
			c, d := block(b, 24, ConvShape{Size: 3, Stride: 2, Trail: 1})
			y, _ = block(c, 24, ConvShape{Size: 5, Stride: 1, Pad: 2})
			e := g.Add(y, c)
			l, f := head(g, r, g.Clip(conv(g, r, e, 32, 1, 1, 0), 1), 10)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{f, e, d, b, a}, Gradients: true}
		}},
		network{"depthwise", func(r *rand.Rand) (*Graph, Want) {
			// Strides that leave pixels out, ReLU, and gradients that meet.
			g := NewGraph()
			x := g.Input(Shape{20, 9, 7})
			a := g.ReLU(depthwise(g, r, x, ConvShape{Size: 3, Stride: 1, Pad: 1}))
			b := depthwise(g, r, g.ReLU(norm(g, r, a)), ConvShape{Size: 2, Stride: 3, Pad: 0})
			c := g.Add(g.ReLU(b), depthwise(g, r, a, ConvShape{Size: 7, Stride: 3, Pad: 2}))
			l, f := head(g, r, c, 4)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{c, a, x}, Gradients: true}
		}},
		network{"same padding", func(r *rand.Rand) (*Graph, Want) {
			g := NewGraph()
			a := g.ReLU(g.Conv(g.Input(Shape{3, 12, 8}), normal(r, 20*27, 0.3), nil, ConvShape{Size: 3, Stride: 2, Trail: 1}))
			b := g.ReLU(g.Conv(a, normal(r, 24*180, 0.2), nil, ConvShape{Size: 3, Stride: 2, Trail: 1}))
			l, f := head(g, r, b, 4)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{b, a}, Gradients: true}
		}},
		network{"dense", func(r *rand.Rand) (*Graph, Want) {
			// DenseNet: concatenations that only batch norms read, and one that is wanted.
			g := NewGraph()
			stem := conv(g, r, g.Input(Shape{3, 8, 6}), 24, 3, 1, 1)
			x := stem
			var middle *Node
			for i := range 3 {
				y := conv(g, r, g.ReLU(norm(g, r, x)), 20, 1, 1, 0)
				y = conv(g, r, g.ReLU(norm(g, r, y)), 12, 3, 1, 1)
				x = g.Concat(x, y)
				if i == 1 {
					middle = x
				}
			}
			block := x
			x = g.AvgPool(conv(g, r, g.ReLU(norm(g, r, x)), 30, 1, 1, 0), 2, 2, 0)
			x = g.Concat(x, conv(g, r, g.ReLU(norm(g, r, x)), 12, 3, 1, 1))
			l, f := head(g, r, g.ReLU(norm(g, r, x)), 10)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{f, block, middle, stem}, Gradients: true}
		}},
		network{"fire", func(r *rand.Rand) (*Graph, Want) {
			// SqueezeNet: ReLUs in front of concatenations that others than batch norms read.
			g := NewGraph()
			x := g.MaxPool(g.ReLU(conv(g, r, g.Input(Shape{3, 9, 9}), 20, 3, 2, 0)), 2, 2, 0)
			s := g.ReLU(conv(g, r, x, 8, 1, 1, 0))
			e := g.Concat(g.ReLU(conv(g, r, s, 12, 1, 1, 0)), g.ReLU(conv(g, r, s, 20, 3, 1, 1)), s)
			t := conv(g, r, e, 16, 1, 1, 0)
			u := g.Clip(g.Concat(t, conv(g, r, s, 20, 3, 1, 1), t), 2)
			l, f := head(g, r, u, 4)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{u, e, s, x}, Gradients: true}
		}},
	)
}

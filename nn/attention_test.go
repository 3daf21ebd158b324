package nn

import (
	"math"
	"math/rand/v2"
)

// plain is attention by its definition: every query scores the keys of all
// pixels, those of other windows with minus infinity. Rolled is by definition too.
func (op attentionOp) plain(s Shape, at func(c, y, x int) float64, out []float64) {
	d := s.C / op.heads
	// rolled is where a pixel stands when the image is rolled; a region is a part of
	// the rolled image whose pixels are true neighbours.
	rolled := func(i, size int) int { return (i - op.shift + size) % size }
	region := func(i, size int) int {
		if op.shift > 0 && rolled(i, size) >= size-op.shift {
			return 1
		}
		return 0
	}
	for h := range op.heads {
		for y := range s.H {
			for x := range s.W {
				var weights []float64
				sum := 0.0
				for ky := range s.H {
					for kx := range s.W {
						score := 0.0
						for c := range d {
							score += at(h*d+c, y, x) * at(s.C+h*d+c, ky, kx)
						}
						score /= math.Sqrt(float64(d))
						if w := op.window; w > 0 {
							qy, qx, ry, rx := rolled(y, s.H), rolled(x, s.W), rolled(ky, s.H), rolled(kx, s.W)
							if qy/w != ry/w || qx/w != rx/w {
								score = math.Inf(-1)
							} else {
								score += float64(op.bias[(h*w*w+qy%w*w+qx%w)*w*w+ry%w*w+rx%w])
							}
							if region(y, s.H) != region(ky, s.H) || region(x, s.W) != region(kx, s.W) {
								score -= 100
							}
						}
						weights = append(weights, math.Exp(score))
						sum += weights[len(weights)-1]
					}
				}
				for c := range d {
					v := 0.0
					for i, w := range weights {
						v += w / sum * at(2*s.C+h*d+c, i/s.W, i%s.W)
					}
					out[((h*d+c)*s.H+y)*s.W+x] = v
				}
			}
		}
	}
}

func layerNorm(g *Graph, r *rand.Rand, x *Node) *Node {
	return g.LayerNorm(x, normal(r, x.shape.C, 1), normal(r, x.shape.C, 0.3), 1e-5)
}

func linear(g *Graph, r *rand.Rand, x *Node, out int) *Node {
	fan := x.shape.C
	return g.Conv(x, normal(r, out*fan, math.Sqrt(1/float64(fan))), normal(r, out, 0.3), ConvShape{Size: 1, Stride: 1})
}

// lastBlock is a transformer whose last block's second half is for one token alone,
// beside a token that goes around it; gradients within the block.
func lastBlock(token, around int) func(r *rand.Rand) (*Graph, Want) {
	return func(r *rand.Rand) (*Graph, Want) {
		g := NewGraph()
		p := conv(g, r, g.Input(Shape{3, 6, 6}), 20, 2, 2, 0)
		x := g.Tokens(p, normal(r, 20, 1), normal(r, 10*20, 0.1))
		qkv := linear(g, r, layerNorm(g, r, x), 60)
		a := g.Attention(qkv, 2)
		x = g.Add(linear(g, r, a, 20), x)
		n := layerNorm(g, r, x)
		h := linear(g, r, g.Token(n, token), 36)
		e := g.Apply(GELU, h)
		f := layerNorm(g, r, g.Add(linear(g, r, e, 20), g.Token(x, around)))
		l := g.Linear(f, normal(r, 6*20, 0.3), normal(r, 6, 0.1))
		return g, Want{Logits: l, Feature: f, Layers: []*Node{f, e, h, n, a, qkv, p}, Gradients: true}
	}
}

func init() {
	networks = append(networks,
		network{"vit", func(r *rand.Rand) (*Graph, Want) {
			// More tokens than a block of queries holds, 12 channels a head.
			g := NewGraph()
			x := conv(g, r, g.Input(Shape{3, 20, 22}), 24, 2, 2, 0)
			x = g.Tokens(x, normal(r, 24, 1), normal(r, 111*24, 0.1))
			var want []*Node
			for range 2 {
				y := g.Attention(linear(g, r, layerNorm(g, r, x), 72), 2)
				x = g.Add(linear(g, r, y, 24), x)
				y = layerNorm(g, r, x)
				want = append(want, y)
				y = linear(g, r, g.Apply(GELU, linear(g, r, y, 40)), 24)
				x = g.Add(y, x)
			}
			f := layerNorm(g, r, g.Token(x, 0))
			l := g.Linear(f, normal(r, 6*24, 0.3), normal(r, 6, 0.1))
			return g, Want{Logits: l, Feature: f, Layers: []*Node{f, want[1], want[0]}, Gradients: true}
		}},
		network{"vit, class token", lastBlock(0, 0)},
		network{"vit, another token", lastBlock(7, 7)},
		network{"vit, two tokens", lastBlock(7, 0)},
		network{"swin", func(r *rand.Rand) (*Graph, Want) {
			g := NewGraph()
			block := func(x *Node, heads, window, shift int) (out, hidden *Node) {
				c, t := x.shape.C, window*window
				y := linear(g, r, layerNorm(g, r, x), 3*c)
				y = g.WindowAttention(y, heads, window, shift, normal(r, heads*t*t, 1))
				x = g.Add(linear(g, r, y, c), x)
				hidden = linear(g, r, layerNorm(g, r, x), 2*c)
				return g.Add(linear(g, r, g.Apply(GELU, hidden), c), x), hidden
			}
			x := layerNorm(g, r, conv(g, r, g.Input(Shape{3, 18, 12}), 16, 2, 2, 0))
			stem := x
			x, _ = block(x, 1, 3, 0)
			x, hidden := block(x, 2, 3, 1)
			x = linear(g, r, layerNorm(g, r, g.MergePatches(x)), 32)
			merged := x
			x, _ = block(x, 2, 1, 0)
			x = layerNorm(g, r, x)
			// An odd side, and ReLUs where nobody has them.
			y := g.ReLU(linear(g, r, g.MergePatches(g.ReLU(x)), 96))
			y = g.Attention(y, 2)
			// Not the attention's own zeros, where values are all zero: there a ReLU has a kink.
			z := linear(g, r, y, 32)
			l, f := head(g, r, g.Apply(GELU, layerNorm(g, r, g.ReLU(z))), 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{f, z, y, x, merged, hidden, stem}, Gradients: true}
		}},
		network{"gelu", func(r *rand.Rand) (*Graph, Want) {
			// Gradients that meet at both ends of GELU, and borders.
			g := NewGraph()
			x := conv(g, r, g.Input(Shape{3, 6, 7}), 20, 3, 1, 1)
			a := g.Apply(GELU, x)
			b := g.Add(conv(g, r, a, 20, 3, 1, 1), x)
			c := g.Add(g.Apply(GELU, b), a)
			d := g.Apply(GELU, g.ReLU(conv(g, r, c, 24, 3, 2, 1)))
			l, f := head(g, r, d, 6)
			return g, Want{Logits: l, Feature: f, Layers: []*Node{d, c, b, a, x}, Gradients: true}
		}},
	)
}

package nn

import (
	"fmt"

	"nac/internal/kernel"
)

// concatOp lays activations side by side, channel after channel.
type concatOp struct{}

// gatherOp is a concatenation followed by a batch norm, if there is a scale.
type gatherOp affineOp

// Concat is the concatenation over channels of activations of one size. Where
// only batch norms and ReLUs read it, as in DenseNet, it never exists in memory.
func (g *Graph) Concat(xs ...*Node) *Node {
	if len(xs) == 0 {
		panic("nn: concatenation of nothing")
	}
	s := xs[0].shape
	for _, x := range xs[1:] {
		if x.shape.H != s.H || x.shape.W != s.W {
			panic(fmt.Sprintf("nn: concatenation of %v and %v", xs[0].shape, x.shape))
		}
		s.C += x.shape.C
	}
	return g.add(concatOp{}, s, xs...)
}

// virtual reports whether a concatenation need not be made: all that read it can
// gather its pieces themselves.
func virtual(n *Node, pinned map[*Node]bool, readers []*Node) bool {
	if _, ok := n.op.(concatOp); !ok || pinned[n] {
		return false
	}
	for _, r := range readers {
		switch r.op.(type) {
		case concatOp, affineOp, reluOp, clipOp:
		default:
			return false
		}
	}
	return true
}

// gatherJob makes an activation of the channels of several, with a batch norm and
// an activation function on the way if there are any.
type gatherJob struct {
	pieces []*affineRow
	in     []*buffer
	out    *buffer
}

func newGatherJob(k *kernel.Set, op gatherOp, in []*value, out *buffer, relu bool, ceiling float32) *gatherJob {
	j := &gatherJob{out: out}
	first := 0
	for _, v := range in {
		channels := v.geom.channels
		j.pieces = append(j.pieces, newAffineRow(k, affineOp(op), first, channels, relu, ceiling))
		j.in = append(j.in, v.act)
		first += channels
	}
	return j
}

func (j *gatherJob) uses() []*buffer { return append([]*buffer{j.out}, j.in...) }

func (j *gatherJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.out.geom
	for y := range g.height {
		out := ws.row(j.out, image, y)
		if g.channels < g.stride {
			clear(out) // the slab may have held something else where no piece reaches
		}
		first := 0
		for i, b := range j.in {
			in, piece := ws.row(b, image, y), j.pieces[i]
			// A piece's last vector reaches into the next piece, which comes later. It must
			// not reach into the next pixel, nor may it read what is no whole vector.
			if first+len(piece.scale) <= g.stride && len(piece.scale) <= b.geom.stride {
				piece.apply(s, in, out[first:], g.width, b.geom.stride, g.stride)
			} else {
				for x := range g.width {
					copy(s.sums, in[x*b.geom.stride:][:b.geom.channels])
					clear(s.sums[b.geom.channels:len(piece.scale)])
					piece.apply(s, s.sums, s.totals, 1, 0, 0)
					copy(out[x*g.stride+first:][:b.geom.channels], s.totals)
				}
			}
			first += b.geom.channels
		}
	}
}

// spreadJob is the gradient of a gatherJob towards one of its pieces.
type spreadJob struct {
	scale          []float32 // of the piece's channels; nil for ones
	from, to, mask *buffer
	first          int // channel of from
}

func (j *spreadJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *spreadJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g, stride := j.to.geom, j.from.geom.stride
	for y := range g.height {
		from, to := ws.row(j.from, image, y), ws.row(j.to, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p, q := 0, j.first; p < len(to); p, q = p+g.stride, q+stride {
			src, dst := from[q:][:g.channels], to[p:][:g.channels]
			switch {
			case mask != nil:
				m := mask[p:][:g.channels]
				for c, v := range src {
					if j.scale != nil {
						v *= j.scale[c]
					}
					if m[c] > 0 {
						dst[c] += v
					}
				}
			case j.scale != nil:
				scale := j.scale[:len(src)]
				for c, v := range src {
					dst[c] += v * scale[c]
				}
			default:
				for c, v := range src {
					dst[c] += v
				}
			}
		}
	}
}

// spread contributes the gradient g of a gathered activation to its pieces.
func (c *compiler) spread(op gatherOp, g *buffer, pieces []*value) {
	first := 0
	for _, x := range pieces {
		channels := x.geom.channels
		if x.wantGrad {
			c.prepare(x)
			j := &spreadJob{from: g, to: x.grad, mask: x.mask(), first: first}
			if op.scale != nil {
				j.scale = lanes(op.scale[first:][:channels], x.geom.stride)
			}
			c.emit(j)
		}
		first += channels
	}
}

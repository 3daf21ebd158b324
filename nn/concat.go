package nn

import "fmt"

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
// a ReLU on the way if there are any.
type gatherJob struct {
	scale, shift []float32 // per lane; nil if neither
	in           []*buffer
	out          *buffer
	relu         bool
}

func newGatherJob(op gatherOp, in []*value, out *buffer, relu bool) *gatherJob {
	j := &gatherJob{out: out, relu: relu}
	if op.scale != nil {
		j.scale, j.shift = lanes(op.scale, out.geom.stride), lanes(op.shift, out.geom.stride)
	}
	for _, v := range in {
		j.in = append(j.in, v.act)
	}
	return j
}

func (j *gatherJob) uses() []*buffer { return append([]*buffer{j.out}, j.in...) }

func (j *gatherJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	stride := j.out.geom.stride
	for y := range j.out.geom.height {
		out := ws.row(j.out, image, y)
		first := 0
		for _, b := range j.in {
			in := ws.row(b, image, y)
			channels := b.geom.channels
			var scale, shift []float32
			if j.scale != nil {
				scale, shift = j.scale[first:][:channels], j.shift[first:][:channels]
			}
			for p, q := 0, first; p < len(in); p, q = p+b.geom.stride, q+stride {
				from, to := in[p:][:channels], out[q:][:channels]
				switch {
				case scale == nil:
					copy(to, from)
				default:
					for c, v := range from {
						to[c] = v*scale[c] + shift[c]
					}
				}
			}
			first += channels
		}
		if first < stride { // the slab may have held something else
			for p := 0; p < len(out); p += stride {
				clear(out[p+first : p+stride])
			}
		}
		if j.relu {
			relu(out)
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

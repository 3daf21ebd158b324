package nn

import "fmt"

// selectOp yields channel index[c] of its input as channel c.
type selectOp struct{ index []int }

// Select yields some of x's channels in some order: a slice, or a shuffle as in
// ShuffleNet. A channel may be taken more than once.
func (g *Graph) Select(x *Node, index []int) *Node {
	for _, i := range index {
		if i < 0 || i >= x.shape.C {
			panic(fmt.Sprintf("nn: channel %d of %v", i, x.shape))
		}
	}
	return g.add(selectOp{index}, Shape{len(index), x.shape.H, x.shape.W}, x)
}

type selectJob struct {
	selectOp
	in, out *buffer
}

func (j *selectJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *selectJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	from, to := j.in.geom.stride, j.out.geom.stride
	for y := range j.out.geom.height {
		in, out := ws.row(j.in, image, y), ws.row(j.out, image, y)
		for p, q := 0, 0; q < len(out); p, q = p+from, q+to {
			src, dst := in[p:], out[q:][:to]
			for c, i := range j.index {
				dst[c] = src[i]
			}
			clear(dst[len(j.index):]) // the slab may have held something else
		}
	}
}

type selectBackJob struct {
	selectOp
	from, to, mask *buffer
}

func (j *selectBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *selectBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	from, to := j.from.geom.stride, j.to.geom.stride
	for y := range j.to.geom.height {
		grad, out := ws.row(j.from, image, y), ws.row(j.to, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p, q := 0, 0; q < len(out); p, q = p+from, q+to {
			for c, i := range j.index {
				if mask == nil || mask[q+i] > 0 {
					out[q+i] += grad[p+c]
				}
			}
		}
	}
}

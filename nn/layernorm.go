package nn

import (
	"fmt"

	"nac/internal/kernel"
)

// layerNormOp normalises the channels of each pixel by themselves.
type layerNormOp struct {
	weight, bias []float32
	eps          float64
}

// LayerNorm is layer normalisation over the channels of each pixel (Ba et al.,
// 2016; as ConvNeXt's LayerNorm2d): (x - mean) / sqrt(variance + eps) * weight +
// bias, with the variance of the whole, not of a sample.
func (g *Graph) LayerNorm(x *Node, weight, bias []float32, eps float64) *Node {
	if len(weight) != x.shape.C || len(bias) != x.shape.C {
		panic(fmt.Sprintf("nn: layer norm of %v by %d weights and %d biases", x.shape, len(weight), len(bias)))
	}
	return g.add(layerNormOp{weight, bias, eps}, x.shape, x)
}

// divided is embedded in jobs whose tasks are parts of an image, one for each
// worker.
type divided struct{}

func (divided) tasks(n, workers int) int { return n * workers }

// runs calls f for each run of neighbouring pixels that a divided job's task has
// to do: the place of the run's first channel in a slab of geometry g, and the
// number of pixels.
func (divided) runs(g *geometry, task, workers int, f func(at, pixels int)) {
	image, part := task/workers, task%workers
	height, width := g.height, g.width
	if g.left == 0 && g.right == 0 {
		height, width = 1, height*width
	}
	first, last := part*height*width/workers, (part+1)*height*width/workers
	for first < last {
		y, x := first/width, first%width
		n := min(width-x, last-first)
		f(image*g.image()+g.offset(y, x), n)
		first += n
	}
}

// clearPadding zeroes what lies behind the channels of a run of pixels.
func (g *geometry) clearPadding(slab []float32, at, pixels int) {
	if g.channels == g.stride {
		return
	}
	for range pixels {
		clear(slab[at+g.channels : at+g.stride])
		at += g.stride
	}
}

type layerNormJob struct {
	divided
	norm    func(*kernel.LayerNormArgs)
	op      layerNormOp
	in, out *buffer
}

func (j *layerNormJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *layerNormJob) run(ws *workspace, _, task, workers int, s *scratch) {
	g := j.out.geom
	in, out := ws.slabs[j.in.slab], ws.slabs[j.out.slab]
	j.runs(g, task, workers, func(at, pixels int) {
		s.layerNorm = kernel.LayerNormArgs{
			In: &in[at], Out: &out[at], Weight: &j.op.weight[0], Bias: &j.op.bias[0],
			Rows: int64(pixels), Channels: int64(g.channels), Step: 4 * int64(g.stride), Eps: float32(j.op.eps),
		}
		j.norm(&s.layerNorm)
		g.clearPadding(out, at, pixels)
	})
}

// layerNormBackJob is the gradient, plus res if there is one; where mask is not
// above zero it leaves res alone, which is then what it writes to.
type layerNormBackJob struct {
	divided
	norm                     func(*kernel.LayerNormArgs)
	op                       layerNormOp
	from, to, act, res, mask *buffer
}

func (j *layerNormBackJob) uses() []*buffer {
	return []*buffer{j.from, j.to, j.act, j.res, j.mask}
}

func (j *layerNormBackJob) run(ws *workspace, _, task, workers int, s *scratch) {
	g := j.to.geom
	from, to, act := ws.slabs[j.from.slab], ws.slabs[j.to.slab], ws.slabs[j.act.slab]
	j.runs(g, task, workers, func(at, pixels int) {
		a := &s.layerNorm
		*a = kernel.LayerNormArgs{
			In: &act[at], Out: &to[at], Weight: &j.op.weight[0], Grad: &from[at],
			Rows: int64(pixels), Channels: int64(g.channels), Step: 4 * int64(g.stride), Eps: float32(j.op.eps),
		}
		if j.mask != nil {
			j.masked(ws, at, pixels, s)
			return
		}
		if j.res != nil {
			a.Res = &ws.slabs[j.res.slab][at]
		}
		j.norm(a)
		g.clearPadding(to, at, pixels)
	})
}

// masked does pixels one by one, through a row of their own.
func (j *layerNormBackJob) masked(ws *workspace, at, pixels int, s *scratch) {
	g := j.to.geom
	from, to, act, mask := ws.slabs[j.from.slab], ws.slabs[j.to.slab], ws.slabs[j.act.slab], ws.slabs[j.mask.slab]
	row, a := s.sums[:g.channels], &s.layerNorm
	a.Out, a.Rows = &row[0], 1
	for p := at; p < at+pixels*g.stride; p += g.stride {
		a.In, a.Grad = &act[p], &from[p]
		j.norm(a)
		for c, v := range row {
			if mask[p+c] > 0 {
				to[p+c] += v
			}
		}
	}
}

// layerNormContribution contributes the gradient g of a layer norm to its input:
// what waits to be added to that is added in passing.
func (c *compiler) layerNormContribution(op layerNormOp, g *buffer, x *value) {
	j := &layerNormBackJob{norm: c.kernel.Transformer().LayerNormBack, op: op, from: g, act: x.act, mask: x.mask()}
	if x.written || j.mask != nil {
		c.prepare(x)
		j.res = x.grad
	} else {
		if x.grad == nil {
			x.grad = &buffer{geom: x.geom}
		}
		j.res, x.pending, x.written = x.pending, nil, true
	}
	j.to = x.grad
	c.emit(j)
}

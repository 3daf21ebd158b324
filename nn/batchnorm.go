package nn

import (
	"math"

	"nac/internal/kernel"
)

// combineJob is out = u*a + v*b + d with channels' factors that earlier jobs compute;
// v may be nil.
type combineJob struct {
	divided
	combine         func(*kernel.CombineArgs)
	u, v, out, mask *buffer
	a, b, d         []float32
	flags           int64
}

func (j *combineJob) uses() []*buffer { return []*buffer{j.u, j.v, j.out, j.mask} }

func (j *combineJob) run(ws *workspace, _, task, workers int, s *scratch) {
	g := j.out.geom
	u, out := ws.slabs[j.u.slab], ws.slabs[j.out.slab]
	j.runs(g, task, workers, func(at, pixels int) {
		a := &s.combine
		*a = kernel.CombineArgs{
			U: &u[at], Out: &out[at], A: &j.a[0], D: &j.d[0], Flags: j.flags,
			Channels: int64(g.stride), Pixels: int64(pixels), Step: 4 * int64(g.stride),
		}
		if j.v != nil {
			a.V, a.B = &ws.slabs[j.v.slab][at], &j.b[0]
		}
		if j.mask != nil {
			a.Mask = &ws.slabs[j.mask.slab][at]
		}
		j.combine(a)
	})
}

// contribute plans the gradient a*g + b*x.act + d of x.
func (c *trainCompiler) contribute(g *buffer, x *value, a, b, d []float32) {
	j := &combineJob{combine: c.kernel.Combine(), u: g, v: x.act, mask: x.mask(), a: a, b: b, d: d}
	if x.written || x.pending != nil {
		c.prepare(x)
		j.flags |= kernel.Accumulate
	} else if x.grad == nil {
		x.grad = &buffer{geom: x.geom}
	}
	x.written = true
	j.out = x.grad
	c.emit(j)
}

// norm plans a batch norm in train mode, the sum and the ReLU behind it, and the
// way back (Ioffe and Szegedy, 2015). With the batch's mean m and deviation s,
// n = (x-m)/s and N pixels,
//
//	y  = n*w + b
//	dw = sum(dy*n), db = sum(dy)
//	dx = w/s * (dy - db/N - n*dw/N)
//
// Running statistics follow as in PyTorch, the variance as that of a sample. With
// frozen statistics, or a plain scale, m and s are constants.
func (c *trainCompiler) norm(s *stage, p *normSource) {
	x, y := s.in[0], s.out
	g := x.geom
	scale, shift, ones := kernel.Aligned(g.stride), kernel.Aligned(g.stride), kernel.Aligned(g.stride)
	for i := range ones {
		ones[i] = 1
	}
	mean, inverse := kernel.Aligned(g.stride), make([]float64, g.channels)
	centre := make([]float64, g.channels) // the mean, of which mean is rounded
	bias := func(i int) float64 {
		if p.bias == nil {
			return 0
		}
		return float64(p.bias[i])
	}
	momentum := c.train.momentum
	batch := p.mean != nil && !c.options.FrozenNorm
	if batch {
		sums := newSumsJob(c.kernel, x.act, x.act, nil, nil)
		c.emit(sums)
		c.once(func(ws *workspace, n int) {
			pivot, m := ws.pixel(x.act, 0, 0, 0), float64(n*g.pixels())
			for i := range centre {
				sum, square := sums.total(i)
				centre[i] = float64(pivot[i]) + sum/m
				variance := max(square/m-sum/m*(sum/m), 0) // NaN if either is
				inverse[i] = 1 / math.Sqrt(variance+p.eps)
				unbiased := variance
				if m > 1 {
					unbiased *= m / (m - 1)
				}
				blend := func(v *float32, with float64) {
					*v = float32((1-*momentum)*float64(*v) + *momentum*with)
				}
				blend(&p.mean[i], centre[i])
				blend(&p.variance[i], unbiased)
			}
		}, x.act)
	}
	c.once(func(*workspace, int) {
		for i := range centre {
			if !batch {
				if centre[i], inverse[i] = 0, 1; p.mean != nil {
					centre[i], inverse[i] = float64(p.mean[i]), 1/math.Sqrt(float64(p.variance[i])+p.eps)
				}
			}
			mean[i] = float32(centre[i])
			a := float64(p.weight[i]) * inverse[i]
			scale[i], shift[i] = float32(a), float32(bias(i)-centre[i]*a)
		}
	})
	j := &combineJob{combine: c.kernel.Combine(), u: x.act, out: y.act, a: scale, b: ones, d: shift}
	if s.res != nil {
		j.v = s.res.act
	}
	if s.relu {
		j.flags |= kernel.ReLU
	}
	c.emit(j)

	c.back[s] = func() {
		weight, biasGrad := c.parameter(p.weight), c.parameter(p.bias)
		zeros := kernel.Aligned(g.stride)
		a, b, d := kernel.Aligned(g.stride), kernel.Aligned(g.stride), kernel.Aligned(g.stride)
		sums := newSumsJob(c.kernel, y.grad, x.act, zeros, mean)
		c.emit(sums)
		c.once(func(_ *workspace, n int) {
			m := float64(n * g.pixels())
			for i := range centre {
				sum, product := sums.total(i)
				product = (product + (float64(mean[i])-centre[i])*sum) * inverse[i]
				weight[i] = float32(product)
				if biasGrad != nil {
					biasGrad[i] = float32(sum)
				}
				w := float64(p.weight[i]) * inverse[i]
				a[i] = float32(w)
				if batch {
					slope := -w * inverse[i] * product / m
					b[i], d[i] = float32(slope), float32(-w*sum/m-slope*centre[i])
				}
			}
		})
		if s.res != nil && s.res.wantGrad {
			c.identity(s.res, y.grad)
		}
		if x.wantGrad {
			c.contribute(y.grad, x, a, b, d)
		}
	}
}

package nn

import (
	"fmt"
	"math"

	"nac/internal/kernel"
)

// groupNormOp normalises groups of channels of an image over space.
type groupNormOp struct {
	weight, bias []float32
	groups       int
	eps          float64
}

// GroupNorm is group normalisation (Wu and He, 2018): channels in groups, each
// normalised over its channels and all pixels of the image.
func (g *Graph) GroupNorm(x *Node, groups int, weight, bias []float32, eps float64) *Node {
	if c := x.shape.C; groups < 1 || c%groups != 0 || len(weight) != c || len(bias) != c {
		panic(fmt.Sprintf("nn: group norm of %v in %d groups by %d weights and %d biases", x.shape, groups, len(weight), len(bias)))
	}
	return g.add(groupNormOp{weight, bias, groups, eps}, x.shape, x)
}

// imageMoments sums u-k and (u-k)*(v-l) over an image's pixels into s.sums and
// s.totals.
func imageMoments(f func(*kernel.MomentsArgs), ws *workspace, u, v *buffer, k, l []float32, image int, s *scratch) (sums, products []float32) {
	g := u.geom
	sums, products = s.sums[:g.stride], s.totals[:g.stride]
	clear(sums)
	clear(products)
	s.moments = kernel.MomentsArgs{
		S: &sums[0], T: &products[0], K: &k[0], L: &l[0], Channels: int64(g.stride), Pixels: int64(g.width),
		UStep: 4 * int64(g.stride), VStep: 4 * int64(g.stride),
	}
	for y := range g.height {
		s.moments.U, s.moments.V = &ws.row(u, image, y)[0], &ws.row(v, image, y)[0]
		f(&s.moments)
	}
	return sums, products
}

// moments returns the mean and the reciprocal deviation of each group of an image.
func (op *groupNormOp) moments(f func(*kernel.MomentsArgs), ws *workspace, x *buffer, image int, s *scratch) (mean, inverse []float64) {
	pivot := ws.pixel(x, image, 0, 0)
	sums, squares := imageMoments(f, ws, x, x, pivot, pivot, image, s)
	s.mean, s.inverse = s.mean[:0], s.inverse[:0]
	per := x.geom.channels / op.groups
	m := float64(per * x.geom.pixels())
	for g := range op.groups {
		centre := 0.0
		for c := g * per; c < (g+1)*per; c++ {
			centre += float64(pivot[c])*float64(x.geom.pixels()) + float64(sums[c])
		}
		centre /= m
		square := 0.0
		for c := g * per; c < (g+1)*per; c++ {
			d := float64(pivot[c]) - centre
			square += float64(squares[c]) + 2*d*float64(sums[c]) + d*d*float64(x.geom.pixels())
		}
		s.mean = append(s.mean, centre)
		s.inverse = append(s.inverse, 1/math.Sqrt(max(square, 0)/m+op.eps))
	}
	return s.mean, s.inverse
}

type groupNormJob struct {
	groupNormOp
	kernel  *kernel.Set
	in, out *buffer
}

func (j *groupNormJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *groupNormJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.in.geom
	mean, inverse := j.moments(j.kernel.Moments(), ws, j.in, image, s)
	a, d := s.sums[:g.stride], s.totals[:g.stride]
	clear(a)
	clear(d)
	per := g.channels / j.groups
	for c := range g.channels {
		w := float64(j.weight[c]) * inverse[c/per]
		a[c], d[c] = float32(w), float32(float64(j.bias[c])-mean[c/per]*w)
	}
	for y := range g.height {
		s.combine = kernel.CombineArgs{
			U: &ws.row(j.in, image, y)[0], Out: &ws.row(j.out, image, y)[0], A: &a[0], D: &d[0],
			Channels: int64(g.stride), Pixels: int64(g.width), Step: 4 * int64(g.stride),
		}
		j.kernel.Combine()(&s.combine)
	}
}

// groupNormBackJob adds the gradient, which is batch norm's with an image's group
// in the batch's place; see trainCompiler.norm. It leaves the weight's and the
// bias's sums of each image in partial, if there is room: [image][2][channel].
type groupNormBackJob struct {
	groupNormOp
	kernel              *kernel.Set
	from, to, act, mask *buffer
	partial             []float32
}

func (j *groupNormBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.act, j.mask} }

func (j *groupNormBackJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.act.geom
	mean, inverse := j.moments(j.kernel.Moments(), ws, j.act, image, s)
	per := g.channels / j.groups
	zeros, centre := s.third[:g.stride], s.fourth[:g.stride]
	clear(zeros)
	clear(centre)
	for c := range g.channels {
		centre[c] = float32(mean[c/per])
	}
	sums, products := imageMoments(j.kernel.Moments(), ws, j.from, j.act, zeros, centre, image, s)
	if j.partial != nil {
		to := j.partial[image*2*g.stride:][:2*g.stride]
		for c := range g.channels {
			to[c], to[g.stride+c] = float32(float64(products[c])*inverse[c/per]), sums[c]
		}
	}
	if j.to == nil {
		return
	}
	a, b, d := zeros, centre, sums
	m := float64(per * g.pixels())
	for k := range j.groups {
		sum, product := 0.0, 0.0
		for c := k * per; c < (k+1)*per; c++ {
			sum += float64(j.weight[c]) * float64(sums[c])
			product += float64(j.weight[c]) * float64(products[c]) * inverse[k]
		}
		slope := -inverse[k] * inverse[k] * product / m
		for c := k * per; c < (k+1)*per; c++ {
			a[c], b[c] = float32(inverse[k]*float64(j.weight[c])), float32(slope)
			d[c] = float32(-inverse[k]*sum/m - slope*mean[k])
		}
	}
	clear(d[g.channels:])
	for y := range g.height {
		s.combine = kernel.CombineArgs{
			U: &ws.row(j.from, image, y)[0], V: &ws.row(j.act, image, y)[0], Out: &ws.row(j.to, image, y)[0],
			A: &a[0], B: &b[0], D: &d[0], Channels: int64(g.stride), Pixels: int64(g.width), Step: 4 * int64(g.stride),
			Flags: kernel.Accumulate,
		}
		if j.mask != nil {
			s.combine.Mask = &ws.row(j.mask, image, y)[0]
		}
		j.kernel.Combine()(&s.combine)
	}
}

// groupNormContribution adds the gradient g of a group norm to its input's.
func (c *compiler) groupNormContribution(op groupNormOp, g *buffer, x *value) *groupNormBackJob {
	j := &groupNormBackJob{groupNormOp: op, kernel: c.kernel, from: g, act: x.act}
	if x.wantGrad {
		c.prepare(x)
		j.to, j.mask = x.grad, x.mask()
	}
	c.emit(j)
	return j
}

func (c *trainCompiler) groupNormBackward(op groupNormOp, x *value, g *buffer) {
	weight, bias := c.parameter(op.weight), c.parameter(op.bias)
	stride := g.geom.stride
	j := c.groupNormContribution(op, g, x)
	j.partial = make([]float32, c.maxBatch*2*stride)
	c.once(func(_ *workspace, n int) {
		for ch := range weight {
			w, b := 0.0, 0.0
			for image := range n {
				w += float64(j.partial[image*2*stride+ch])
				b += float64(j.partial[image*2*stride+stride+ch])
			}
			weight[ch], bias[ch] = float32(w), float32(b)
		}
	})
}

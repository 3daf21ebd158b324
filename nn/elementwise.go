package nn

import (
	"math"

	"nac/internal/kernel"
)

// The jobs of this file are passes over whole activations that no convolution
// could take along. A task is one image.

// row returns a row of an image, without its border.
func (ws *workspace) row(b *buffer, image, y int) []float32 {
	g := b.geom
	o := image*g.image() + g.offset(y, 0)
	return ws.slabs[b.slab][o : o+g.width*g.stride]
}

// pixel returns a pixel's channels, padding included.
func (ws *workspace) pixel(b *buffer, image, y, x int) []float32 {
	g := b.geom
	o := image*g.image() + g.offset(y, x)
	return ws.slabs[b.slab][o : o+g.stride]
}

// inputJob packs NCHW images.
type inputJob struct{ out *buffer }

func (j *inputJob) uses() []*buffer { return []*buffer{j.out} }

func (j *inputJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.out.geom
	plane := g.height * g.width
	src := ws.images[image*g.channels*plane:][:g.channels*plane]
	for y := range g.height {
		dst := ws.row(j.out, image, y)
		if g.channels == 3 && g.stride == 3 {
			red, green, blue := src[y*g.width:][:g.width], src[plane+y*g.width:][:g.width], src[2*plane+y*g.width:][:g.width]
			for x, v := range red {
				to := (*[3]float32)(dst[3*x:])
				to[0], to[1], to[2] = v, green[x], blue[x]
			}
			continue
		}
		for c := range g.channels {
			from := src[c*plane+y*g.width:][:g.width]
			to := dst[c:]
			for x, v := range from {
				to[x*g.stride] = v
			}
		}
	}
}

func lanes(v []float64, stride int) []float32 {
	r := make([]float32, stride)
	for i, x := range v {
		r[i] = float32(x)
	}
	return r
}

// scaleJob is the gradient of a batch norm by itself.
type scaleJob struct {
	scale    []float32
	from, to *buffer
	mask     *buffer
}

func newScaleJob(op affineOp, from *buffer, x *value) *scaleJob {
	return &scaleJob{scale: lanes(op.scale, x.geom.stride), from: from, to: x.grad, mask: x.mask()}
}

func (j *scaleJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *scaleJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	for y := range j.to.geom.height {
		from, to := ws.row(j.from, image, y), ws.row(j.to, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p := 0; p < len(to); p += len(j.scale) {
			for c, s := range j.scale {
				if mask == nil || mask[p+c] > 0 {
					to[p+c] += from[p+c] * s
				}
			}
		}
	}
}

// adder adds activations, or gradients, masked if there is a mask.
type adder struct {
	combine     func(*kernel.CombineArgs)
	ones, zeros []float32
}

// newAdder is for pixels of up to so many channels.
func newAdder(k *kernel.Set, channels int) adder {
	a := adder{combine: k.Combine(), ones: kernel.Aligned(channels), zeros: kernel.Aligned(channels)}
	for i := range a.ones {
		a.ones[i] = 1
	}
	return a
}

// add adds the channels, whole Lanes, of pixels that have a stride from one to the next.
func (a *adder) add(s *scratch, from, to, mask []float32, channels, pixels, stride int) {
	a.put(s, from, to, mask, channels, pixels, stride, kernel.Accumulate)
}

// put is add, or writes over what is there if the flags do not say Accumulate.
func (a *adder) put(s *scratch, from, to, mask []float32, channels, pixels, stride int, flags int64) {
	s.combine = kernel.CombineArgs{
		U: &from[0], Out: &to[0], A: &a.ones[0], D: &a.zeros[0], Flags: flags,
		Channels: int64(channels), Pixels: int64(pixels), Step: 4 * int64(stride),
	}
	if mask != nil {
		s.combine.Mask = &mask[0]
	}
	a.combine(&s.combine)
}

// addJob is a sum that no convolution took along.
type addJob struct {
	adder
	a, b, out *buffer
	flags     int64
}

func newAddJob(k *kernel.Set, a, b, out *buffer, relu bool) *addJob {
	j := &addJob{adder: newAdder(k, out.geom.stride), a: a, b: b, out: out}
	if relu {
		j.flags = kernel.ReLU
	}
	return j
}

func (j *addJob) uses() []*buffer { return []*buffer{j.a, j.b, j.out} }

func (j *addJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.out.geom
	for y := range g.height {
		a, b, out := ws.row(j.a, image, y), ws.row(j.b, image, y), ws.row(j.out, image, y)
		s.combine = kernel.CombineArgs{
			U: &a[0], V: &b[0], Out: &out[0], A: &j.ones[0], B: &j.ones[0], D: &j.zeros[0], Flags: j.flags,
			Channels: int64(g.stride), Pixels: int64(g.width), Step: 4 * int64(g.stride),
		}
		j.combine(&s.combine)
	}
}

// identityJob copies or adds a gradient, masked if there is a mask.
type identityJob struct {
	adder
	from, to, mask *buffer
	flags          int64
}

func (j *identityJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *identityJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.to.geom
	for y := range g.height {
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		j.put(s, ws.row(j.from, image, y), ws.row(j.to, image, y), mask, g.stride, g.width, g.stride, j.flags)
	}
}

// zeroJob clears a gradient to which only parts will be added.
type zeroJob struct{ out *buffer }

func (j *zeroJob) uses() []*buffer { return []*buffer{j.out} }

func (j *zeroJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	for y := range j.out.geom.height {
		clear(ws.row(j.out, image, y))
	}
}

// copyJob copies a 1x1 activation to the result.
type copyJob struct {
	in     *buffer
	logits bool
}

func (j *copyJob) uses() []*buffer { return []*buffer{j.in} }

func (j *copyJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	dst := ws.result.Feature
	if j.logits {
		dst = ws.result.Logits
	}
	c := j.in.geom.channels
	copy(dst[(ws.first+image)*c:][:c], ws.pixel(j.in, image, 0, 0))
}

// lossJob is the gradient of KL(uniform || softmax) at the logits: softmax - 1/K.
type lossJob struct{ logits, grad *buffer }

func (j *lossJob) uses() []*buffer { return []*buffer{j.logits, j.grad} }

func (j *lossJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	k := j.logits.geom.channels
	z := ws.pixel(j.logits, image, 0, 0)[:k]
	g := ws.pixel(j.grad, image, 0, 0)[:k]
	top := math.Inf(-1)
	for _, v := range z {
		top = max(top, float64(v))
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(float64(v) - top)
	}
	for i, v := range z {
		g[i] = float32(math.Exp(float64(v)-top)/sum - 1/float64(k))
	}
}

// zeroStateJob is the gradient of a layer that does not feed the logits.
type zeroStateJob struct{ layer int }

func (j *zeroStateJob) uses() []*buffer { return nil }

func (j *zeroStateJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := ws.result.G[j.layer]
	c := ws.layers[j.layer]
	clear(g[(ws.first+image)*c:][:c])
}

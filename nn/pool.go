package nn

import (
	"math"

	"nac/internal/kernel"
)

// poolJob sums a layer's activation or gradient over space into the result. Of
// a gradient that goes further it then masks the rest in place: the sum is taken
// behind the ReLU, what flows on in front of it.
type poolJob struct {
	pool       func(*kernel.PoolArgs)
	from, mask *buffer
	layer      int
	gradient   bool
}

func (j *poolJob) uses() []*buffer { return []*buffer{j.from, j.mask} }

func (j *poolJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.from.geom
	states := ws.result.Z
	if j.gradient {
		states = ws.result.G
	}
	sums := s.sums[:g.stride]
	sumRows(j.pool, ws, j.from, j.mask, image, sums, s)
	copy(states[j.layer][(ws.first+image)*g.channels:][:g.channels], sums)
}

// sumRows sums an image's pixels, and then sets to 0 what the mask says. Rows
// first, then their sum: the error of a float32 sum grows with its length.
func sumRows(pool func(*kernel.PoolArgs), ws *workspace, from, mask *buffer, image int, sums []float32, s *scratch) {
	g := from.geom
	clear(sums)
	a := &s.pool
	*a = kernel.PoolArgs{Out: &sums[0], Channels: int64(g.stride), Pixels: int64(g.width)}
	for y := range g.height {
		a.In = &ws.row(from, image, y)[0]
		if mask != nil {
			a.Mask = &ws.row(mask, image, y)[0]
		}
		pool(a)
	}
}

// meanJob is global average pooling.
type meanJob struct {
	pool    func(*kernel.PoolArgs)
	in, out *buffer
}

func (j *meanJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *meanJob) run(ws *workspace, _, image, _ int, s *scratch) {
	dst := ws.pixel(j.out, image, 0, 0)
	sumRows(j.pool, ws, j.in, nil, image, dst, s)
	pixels := float32(j.in.geom.pixels())
	for c := range dst {
		dst[c] /= pixels
	}
}

type meanBackJob struct {
	adder
	from, to, mask *buffer
}

func (j *meanBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *meanBackJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.to.geom
	share := s.sums[:g.stride]
	clear(share)
	for c, v := range ws.pixel(j.from, image, 0, 0)[:g.channels] {
		share[c] = v / float32(g.pixels())
	}
	for y := range g.height {
		to := ws.row(j.to, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p := 0; p < len(to); p += len(share) {
			j.add(s, share, to[p:], mask, len(share), 1, len(share))
			if mask != nil {
				mask = mask[len(share):]
			}
		}
	}
}

// span returns the part of the window of output position o that lies within size.
func (w window) span(o, size int) (from, to int) {
	from = o*w.stride - w.pad
	return max(from, 0), min(from+w.size, size)
}

type maxJob struct {
	window
	max     func(*kernel.MaxArgs)
	in, out *buffer
}

func (j *maxJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *maxJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.in.geom
	a := &s.maximum
	*a = kernel.MaxArgs{Row: 4 * int64(g.row()), Channels: int64(g.stride)}
	for oy := range j.out.geom.height {
		y0, y1 := j.span(oy, g.height)
		a.Rows = int64(y1 - y0)
		for ox := range j.out.geom.width {
			x0, x1 := j.span(ox, g.width)
			a.Pixels = int64(x1 - x0)
			a.In = &ws.pixel(j.in, image, y0, x0)[0]
			a.Out = &ws.pixel(j.out, image, oy, ox)[0]
			j.max(a)
		}
	}
}

// maxBackJob gives a window's gradient to its first maximum, row by row, as
// PyTorch does.
type maxBackJob struct {
	window
	from, to, act *buffer
	masked        bool
}

func (j *maxBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.act} }

func (j *maxBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.to.geom
	for oy := range j.from.geom.height {
		y0, y1 := j.span(oy, g.height)
		for ox := range j.from.geom.width {
			x0, x1 := j.span(ox, g.width)
			grad := ws.pixel(j.from, image, oy, ox)
			for c := range g.channels {
				best := float32(math.Inf(-1))
				by, bx := y0, x0
				for y := y0; y < y1; y++ {
					for x := x0; x < x1; x++ {
						if v := ws.pixel(j.act, image, y, x)[c]; v > best || v != v {
							best, by, bx = v, y, x
						}
					}
				}
				if !j.masked || best > 0 {
					ws.pixel(j.to, image, by, bx)[c] += grad[c]
				}
			}
		}
	}
}

type avgJob struct {
	avgOp
	in, out *buffer
}

func (j *avgJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *avgJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.in.geom
	share := 1 / float32(j.size*j.size)
	for oy := range j.out.geom.height {
		y0, y1 := j.span(oy, g.height)
		for ox := range j.out.geom.width {
			x0, x1 := j.span(ox, g.width)
			if j.inner {
				share = 1 / float32((y1-y0)*(x1-x0))
			}
			dst := ws.pixel(j.out, image, oy, ox)
			clear(dst)
			for y := y0; y < y1; y++ {
				for x := x0; x < x1; x++ {
					for c, v := range ws.pixel(j.in, image, y, x)[:len(dst)] {
						dst[c] += v
					}
				}
			}
			for c := range dst {
				dst[c] *= share
			}
		}
	}
}

type avgBackJob struct {
	avgOp
	from, to, mask *buffer
}

func (j *avgBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *avgBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.to.geom
	share := 1 / float32(j.size*j.size)
	for oy := range j.from.geom.height {
		y0, y1 := j.span(oy, g.height)
		for ox := range j.from.geom.width {
			x0, x1 := j.span(ox, g.width)
			if j.inner {
				share = 1 / float32((y1-y0)*(x1-x0))
			}
			grad := ws.pixel(j.from, image, oy, ox)
			for y := y0; y < y1; y++ {
				for x := x0; x < x1; x++ {
					to := ws.pixel(j.to, image, y, x)
					var mask []float32
					if j.mask != nil {
						mask = ws.pixel(j.mask, image, y, x)
					}
					for c, v := range grad {
						if mask == nil || mask[c] > 0 {
							to[c] += v * share
						}
					}
				}
			}
		}
	}
}

// shortcutJob is option A: every stride-th pixel, its channels moved up.
type shortcutJob struct {
	shortcutOp
	in, out *buffer
}

func (j *shortcutJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *shortcutJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	channels, from, to := j.in.geom.channels, j.stride*j.in.geom.stride, j.out.geom.stride
	for y := range j.out.geom.height {
		in, out := ws.row(j.in, image, y*j.stride), ws.row(j.out, image, y)
		clear(out) // the slab may have held something else
		for p, q := 0, j.before; q < len(out); p, q = p+from, q+to {
			copy(out[q:q+channels], in[p:])
		}
	}
}

type shortcutBackJob struct {
	shortcutOp
	adder
	from, to, mask *buffer
}

func (j *shortcutBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *shortcutBackJob) run(ws *workspace, _, image, _ int, s *scratch) {
	channels := j.to.geom.channels
	// As a rule the channels double as the sides halve, and pixels are as far apart in both.
	even := channels%kernel.Lanes == 0 && j.from.geom.stride == j.stride*j.to.geom.stride
	for y := range j.from.geom.height {
		if even {
			from, to := ws.row(j.from, image, y)[j.before:], ws.row(j.to, image, y*j.stride)
			var mask []float32
			if j.mask != nil {
				mask = ws.row(j.mask, image, y*j.stride)
			}
			j.add(s, from, to, mask, channels, j.from.geom.width, j.from.geom.stride)
			continue
		}
		for x := range j.from.geom.width {
			from := ws.pixel(j.from, image, y, x)[j.before:][:channels]
			to := ws.pixel(j.to, image, y*j.stride, x*j.stride)[:channels]
			if j.mask == nil {
				for c, v := range from {
					to[c] += v
				}
				continue
			}
			mask := ws.pixel(j.mask, image, y*j.stride, x*j.stride)[:channels]
			for c, v := range from {
				if mask[c] > 0 {
					to[c] += v
				}
			}
		}
	}
}

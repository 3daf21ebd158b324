package imageset

import (
	"fmt"
	"math"
)

// Filter is a way to resample.
type Filter int

const (
	// Bilinear is Pillow's BILINEAR: a triangle as wide as two source pixels, or
	// two destination pixels when shrinking, which is the antialiasing.
	Bilinear Filter = iota
	// Bicubic is Pillow's BICUBIC: Keys' cubic with a = -0.5, widened likewise.
	Bicubic
)

// String returns the filter's name in Pillow, in lower case.
func (f Filter) String() string {
	switch f {
	case Bilinear:
		return "bilinear"
	case Bicubic:
		return "bicubic"
	}
	return fmt.Sprintf("Filter(%d)", int(f))
}

// MarshalText writes the name, so that a transform in JSON is readable.
func (f Filter) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (f *Filter) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFilter(string(text))
	return err
}

// ParseFilter returns the filter of that name: bilinear or bicubic.
func ParseFilter(name string) (Filter, error) {
	for _, f := range []Filter{Bilinear, Bicubic} {
		if name == f.String() {
			return f, nil
		}
	}
	return 0, fmt.Errorf("unknown filter %q: want bilinear or bicubic", name)
}

// support is how far the filter reaches, in pixels of scale 1.
func (f Filter) support() float64 {
	if f == Bicubic {
		return 2
	}
	return 1
}

// at is the filter's weight at distance x. Every product is rounded by a
// conversion: fused multiply-add, which some processors use, would change bits.
func (f Filter) at(x float64) float64 {
	x = math.Abs(x)
	if f == Bilinear {
		if x < 1 {
			return 1 - x
		}
		return 0
	}
	const a = -0.5
	switch {
	case x < 1:
		t := float64((a+2)*x) - (a + 3)
		return float64(float64(t*x)*x) + 1
	case x < 2:
		t := float64((x-5)*x) + 8
		return float64((float64(t*x) - 4) * a)
	}
	return 0
}

// precision is the number of fractional bits of Pillow's fixed-point weights.
const precision = 32 - 8 - 2

// taps holds the weights of one pass over a window of the output.
type taps struct {
	first  []int // first source pixel of each output pixel
	count  []int
	weight []int32 // width to each output pixel
	width  int
}

// newTaps makes the weights for the output pixels [from, from+n) of a side that
// is resampled from in to out pixels.
func newTaps(f Filter, in, out, from, n int) *taps {
	scale := float64(in) / float64(out)
	wide := math.Max(scale, 1)
	support := float64(f.support() * wide)
	inverse := 1 / wide
	// A window at the edge has fewer taps than this; none has more, as the
	// source has no more than in pixels.
	width := min(int(math.Ceil(support))*2+1, in)
	t := &taps{first: make([]int, n), count: make([]int, n), weight: make([]int32, n*width), width: width}
	w := make([]float64, width)
	for i := range n {
		centre := float64((float64(from+i) + 0.5) * scale)
		lo := max(int(centre-support+0.5), 0)
		hi := min(int(centre+support+0.5), in)
		sum := 0.0
		for x := range hi - lo {
			w[x] = f.at(float64((float64(x+lo) - centre + 0.5) * inverse))
			sum += w[x]
		}
		for x := range hi - lo {
			v := w[x]
			if sum != 0 {
				v /= sum
			}
			// Rounded half away from zero.
			v = float64(v * (1 << precision))
			if v < 0 {
				v -= 0.5
			} else {
				v += 0.5
			}
			t.weight[i*width+x] = int32(v)
		}
		t.first[i], t.count[i] = lo, hi-lo
	}
	return t
}

type tapsKey struct {
	filter           Filter
	in, out, from, n int
}

// resizer resamples and keeps weights and memory for the next picture. It is not
// for concurrent use.
type resizer struct {
	cache map[tapsKey]*taps
	mid   []uint8
	sum   []int32
}

// maxTapsCached bounds the cache for data sets in which every image has a size
// of its own.
const maxTapsCached = 64

func (r *resizer) taps(f Filter, in, out, from, n int) *taps {
	key := tapsKey{f, in, out, from, n}
	if t := r.cache[key]; t != nil {
		return t
	}
	if r.cache == nil || len(r.cache) >= maxTapsCached {
		r.cache = make(map[tapsKey]*taps)
	}
	t := newTaps(f, in, out, from, n)
	r.cache[key] = t
	return t
}

// window is a rectangle of the resampled picture.
type window struct{ x, y, width, height int }

// resize resamples src to width x height as Pillow does, across first and then
// down, and writes the window win of the result at out, whose rows are stride
// bytes apart. Only the window is computed, which changes none of its bytes.
//
// Pillow 13 goes down first in some shapes, which rounds differently. This is
// what all versions before do, and so what published numbers rest on.
func (r *resizer) resize(src *Image, f Filter, width, height int, win window, out []uint8, stride int) {
	rows := 3 * win.width
	if height == src.Height {
		r.horizontal(src, f, width, win, win.y, win.height, out, stride)
		return
	}
	v := r.taps(f, src.Height, height, win.y, win.height)
	top := v.first[0]
	last := win.height - 1
	n := v.first[last] + v.count[last] - top
	if cap(r.mid) < n*rows {
		r.mid = make([]uint8, n*rows)
	}
	mid := r.mid[:n*rows]
	r.horizontal(src, f, width, win, top, n, mid, rows)
	r.vertical(v, mid, top, rows, out, stride)
}

// horizontal makes n rows from the row top on.
func (r *resizer) horizontal(src *Image, f Filter, width int, win window, top, n int, out []uint8, stride int) {
	if width == src.Width {
		for y := range n {
			copy(out[y*stride:][:3*win.width], src.Pix[3*((top+y)*src.Width+win.x):])
		}
		return
	}
	t := r.taps(f, src.Width, width, win.x, win.width)
	y := 0
	if vectors {
		// Four rows at a time, the last ones with some that were made before; the byte that is
		// read behind them must be the picture's too.
		behind := cap(src.Pix) > len(src.Pix)
		for y < n && n >= 4 {
			y = min(y, n-4)
			if top+y+4 == src.Height && !behind {
				break
			}
			_ = out[(y+3)*stride+3*win.width-1]
			horizontalAVX2(&out[y*stride], stride, &src.Pix[3*(top+y)*src.Width], 3*src.Width,
				&t.first[0], &t.count[0], &t.weight[0], t.width, win.width)
			y += 4
		}
	}
	for ; y < n; y++ {
		in := src.Pix[3*(top+y)*src.Width:][:3*src.Width]
		row := out[y*stride:][:3*win.width]
		for x := range win.width {
			weights := t.weight[x*t.width:][:t.count[x]]
			at := 3 * t.first[x]
			s0, s1, s2 := int32(1<<(precision-1)), int32(1<<(precision-1)), int32(1<<(precision-1))
			for _, w := range weights {
				p := in[at : at+3 : at+3]
				s0 += w * int32(p[0])
				s1 += w * int32(p[1])
				s2 += w * int32(p[2])
				at += 3
			}
			o := row[3*x : 3*x+3 : 3*x+3]
			o[0], o[1], o[2] = clip8(s0), clip8(s1), clip8(s2)
		}
	}
}

// vertical makes all rows of t from rows bytes wide ones, the first of which is
// the source's row top.
func (r *resizer) vertical(t *taps, in []uint8, top, rows int, out []uint8, stride int) {
	if cap(r.sum) < rows {
		r.sum = make([]int32, rows)
	}
	sum := r.sum[:rows]
	for y := range t.first {
		weights := t.weight[y*t.width:][:t.count[y]]
		if vectors && rows >= 16 {
			from := in[(t.first[y]-top)*rows:][:len(weights)*rows]
			verticalAVX2(&out[y*stride:][:rows][0], &from[0], rows, &weights[0], len(weights), rows)
			continue
		}
		from := func(i int) []uint8 { return in[(t.first[y]-top+i)*rows:][:len(sum)] }
		w, a := weights[0], from(0)
		for x := range sum {
			sum[x] = 1<<(precision-1) + w*int32(a[x])
		}
		// Two rows at a time: the sums are read and written half as often.
		i := 1
		for ; i+1 < len(weights); i += 2 {
			w, a := weights[i], from(i)
			v, b := weights[i+1], from(i+1)
			for x := range sum {
				sum[x] += w*int32(a[x]) + v*int32(b[x])
			}
		}
		if i < len(weights) {
			w, a := weights[i], from(i)
			for x := range sum {
				sum[x] += w * int32(a[x])
			}
		}
		row := out[y*stride:][:len(sum)]
		for x, s := range sum {
			row[x] = clip8(s)
		}
	}
}

func clip8(s int32) uint8 {
	s >>= precision
	if uint32(s) > 255 {
		if s < 0 {
			return 0
		}
		return 255
	}
	return uint8(s)
}

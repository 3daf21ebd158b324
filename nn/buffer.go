package nn

import (
	"slices"

	"nac/internal/kernel"
)

// geometry is how an activation and its gradient lie in memory: for each image
// top+height+bottom rows of left+width+right pixels of stride floats. All but
// the inner height x width is zero for ever: writers leave it alone, so a
// convolution may read its padding from it.
type geometry struct {
	channels, stride         int
	height, width            int
	top, bottom, left, right int
}

func newGeometry(s Shape) *geometry {
	return &geometry{channels: s.C, stride: kernel.Pad(s.C), height: s.H, width: s.W}
}

// grow makes room for reads from the given rows and columns, which may lie
// outside of the image.
func (g *geometry) grow(firstRow, lastRow, firstCol, lastCol int) {
	g.top = max(g.top, -firstRow)
	g.bottom = max(g.bottom, lastRow-(g.height-1))
	g.left = max(g.left, -firstCol)
	g.right = max(g.right, lastCol-(g.width-1))
}

func (g *geometry) row() int   { return (g.left + g.width + g.right) * g.stride }
func (g *geometry) image() int { return (g.top + g.height + g.bottom) * g.row() }

// offset is the place of a pixel's first channel within its image, in floats.
func (g *geometry) offset(y, x int) int { return (g.top+y)*g.row() + (g.left+x)*g.stride }

// pixels is the number of inner pixels.
func (g *geometry) pixels() int { return g.height * g.width }

// plain reports whether there is nothing in memory but the image, so that any
// other such image may take its place.
func (g *geometry) plain() bool { return g.image() == g.pixels()*g.channels }

// buffer is memory for one activation or gradient of a chunk of images. Buffers
// whose lives do not overlap share a slab.
type buffer struct {
	geom        *geometry
	first, last int // jobs between which it is in use
	slab        int
	// pairs tells that each float32 is in truth a pair of bfloat16, two channels.
	pairs bool
}

// slab is the memory of the buffers that share it: so many floats for each image of a
// chunk, or once for all images if only jobs that do them one by one use it.
type slab struct {
	floats int
	once   bool
	stride int // the longest pixel
}

// assignSlabs gives every buffer a slab. The jobs before head and from tail on go
// image by image. Sharing is among equal geometries, so that borders stay zero, or
// among plain ones of any size.
func assignSlabs(buffers []*buffer, jobs, head, tail int) []slab {
	starts := make([][]*buffer, jobs+1)
	ends := make([][]*buffer, jobs+1)
	for _, b := range buffers {
		starts[b.first] = append(starts[b.first], b)
		ends[b.last] = append(ends[b.last], b)
	}
	type kind struct {
		geometry
		once bool
	}
	kindOf := func(b *buffer) kind {
		once := b.last < head || b.first >= tail
		if b.geom.plain() && (once || b.first >= head && b.last < tail) {
			return kind{once: once}
		}
		// Also what lives across head or tail: an image of it has one place in both.
		return kind{*b.geom, once}
	}
	var slabs []slab
	free := map[kind][]int{}
	for j := range starts {
		for _, b := range starts[j] {
			k, size := kindOf(b), b.geom.image()
			if f := free[k]; len(f) == 0 {
				b.slab = len(slabs)
				slabs = append(slabs, slab{once: k.once})
			} else {
				best := 0
				for i := range f {
					if closer(slabs[f[i]].floats, slabs[f[best]].floats, size) {
						best = i
					}
				}
				b.slab = f[best]
				free[k] = slices.Delete(f, best, best+1)
			}
			s := &slabs[b.slab]
			s.floats, s.stride = max(s.floats, size), max(s.stride, b.geom.stride)
		}
		for _, b := range ends[j] {
			k := kindOf(b)
			free[k] = append(free[k], b.slab)
		}
	}
	return slabs
}

// closer reports whether a is a better room than b for a size: the least that
// suffices, or else the largest.
func closer(a, b, size int) bool {
	if a < size || b < size {
		return a > b
	}
	return a < b
}

package nn

import "nac/internal/kernel"

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

// buffer is memory for one activation or gradient of a chunk of images. Buffers
// whose lives do not overlap share a slab.
type buffer struct {
	geom        *geometry
	first, last int // jobs between which it is in use
	slab        int
}

// assignSlabs gives every buffer a slab and returns the slabs' geometries.
// Sharing is among equal geometries only, so that borders stay zero.
func assignSlabs(buffers []*buffer, jobs int) []geometry {
	starts := make([][]*buffer, jobs+1)
	ends := make([][]*buffer, jobs+1)
	for _, b := range buffers {
		starts[b.first] = append(starts[b.first], b)
		ends[b.last] = append(ends[b.last], b)
	}
	var slabs []geometry
	free := map[geometry][]int{}
	for j := range starts {
		for _, b := range starts[j] {
			if f := free[*b.geom]; len(f) > 0 {
				b.slab = f[len(f)-1]
				free[*b.geom] = f[:len(f)-1]
				continue
			}
			b.slab = len(slabs)
			slabs = append(slabs, *b.geom)
		}
		for _, b := range ends[j] {
			free[*b.geom] = append(free[*b.geom], b.slab)
		}
	}
	return slabs
}

package detector

import (
	"nac/internal/kernel"
)

// bank is a growing matrix of float32 rows, packed for products with many
// vectors at once by the engine's kernels. Packed rows are the only copy.
type bank struct {
	width  int // of a row
	n      int // rows
	tile   kernel.Tile
	panels [][]float32 // [row/tile.Width][column][row%tile.Width]
}

func newBank(width int) *bank {
	return &bank{width: width, tile: kernel.Best().Tiles()[0]}
}

// bankOf packs a row-major matrix.
func bankOf(rows []float32, width int) *bank {
	b := newBank(width)
	for len(rows) > 0 {
		b.add(rows[:width])
		rows = rows[width:]
	}
	return b
}

func (b *bank) add(row []float32) {
	at := b.n % b.tile.Width
	if at == 0 {
		b.panels = append(b.panels, kernel.Aligned(b.width*b.tile.Width))
	}
	panel := b.panels[len(b.panels)-1]
	for c, v := range row[:b.width] {
		panel[c*b.tile.Width+at] = v
	}
	b.n++
}

// row copies row i into dst.
func (b *bank) row(i int, dst []float32) []float32 {
	panel := b.panels[i/b.tile.Width][i%b.tile.Width:]
	for c := range dst[:b.width] {
		dst[c] = panel[c*b.tile.Width]
	}
	return dst[:b.width]
}

// rows returns the matrix, row-major.
func (b *bank) rows() []float32 {
	all := make([]float32, b.n*b.width)
	for i := range b.n {
		b.row(i, all[i*b.width:])
	}
	return all
}

// store keeps the rows in a file.
func (b *bank) store(s *storage, name string) {
	s.count(name+".rows", &b.n)
	if s.err != nil {
		return
	}
	var rows []float32
	if s.saving {
		rows = b.rows()
	}
	n := b.n
	s.float32s(name, &rows, n, b.width)
	if !s.saving && s.err == nil {
		*b = *bankOf(rows, b.width)
	}
}

// queryBlock is how many vectors are multiplied by a panel while it is near.
const queryBlock = 16 * kernel.Rows

// products multiplies n vectors with all rows. It calls visit for one block after
// the other: dots[i*stride+j] is the product of vector first+i and row from+j, for
// i below vectors and j below rows. Rows come in order.
func (b *bank) products(queries []float32, n int, visit func(first, vectors, from, rows int, dots []float32, stride int)) {
	stride := b.tile.Width
	dots := kernel.Aligned(queryBlock * stride)
	var in, out [queryBlock / kernel.Rows][kernel.Rows]int64
	tap := int64(0)
	for first := 0; first < n; first += queryBlock {
		vectors := min(queryBlock, n-first)
		tiles := (vectors + kernel.Rows - 1) / kernel.Rows
		for i := range tiles * kernel.Rows {
			q := min(i, vectors-1) // the last tile is filled with the last vector
			in[i/kernel.Rows][i%kernel.Rows] = 4 * int64(q*b.width)
			out[i/kernel.Rows][i%kernel.Rows] = 4 * int64(q*stride)
		}
		for p, panel := range b.panels {
			b.tile.Run(&kernel.TileArgs{
				In: &queries[first*b.width], Weights: &panel[0], Out: &dots[0],
				InOff: &in[0], OutOff: &out[0], TapOff: &tap, Taps: 1, Cin: int64(b.width), Count: int64(tiles),
			})
			visit(first, vectors, p*stride, min(stride, b.n-p*stride), dots, stride)
		}
	}
}

// multiply writes all products of n vectors into dst, row-major n by b.n, plus
// bias if that is not nil.
func (b *bank) multiply(queries []float32, n int, bias, dst []float32) {
	b.products(queries, n, func(first, vectors, from, rows int, dots []float32, stride int) {
		for i := range vectors {
			to := dst[(first+i)*b.n+from:][:rows]
			copy(to, dots[i*stride:])
			if bias != nil {
				for j, v := range bias[from : from+rows] {
					to[j] += v
				}
			}
		}
	})
}

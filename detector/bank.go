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
	if s.measuring {
		s.bytes += 4 * int64(b.n) * int64(b.width)
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
	block := b.newBlock(n)
	for first := 0; first < n; first += queryBlock {
		vectors := min(queryBlock, n-first)
		block.place(vectors)
		for p := range b.panels {
			block.multiply(queries[first*b.width:], p)
			visit(first, vectors, p*b.tile.Width, min(b.tile.Width, b.n-p*b.tile.Width), block.dots, b.tile.Width)
		}
	}
}

// block holds the products of some vectors with one panel.
type block struct {
	bank    *bank
	dots    []float32
	in, out [queryBlock / kernel.Rows][kernel.Rows]int64
	tiles   int
}

// newBlock makes room for the blocks of n vectors.
func (b *bank) newBlock(n int) *block {
	tiles := (min(n, queryBlock) + kernel.Rows - 1) / kernel.Rows
	return &block{bank: b, dots: kernel.Aligned(tiles * kernel.Rows * b.tile.Width)}
}

// place lays out that many vectors, at most queryBlock.
func (k *block) place(vectors int) {
	k.tiles = (vectors + kernel.Rows - 1) / kernel.Rows
	for i := range k.tiles * kernel.Rows {
		q := min(i, vectors-1) // the last tile is filled with the last vector
		k.in[i/kernel.Rows][i%kernel.Rows] = 4 * int64(q*k.bank.width)
		k.out[i/kernel.Rows][i%kernel.Rows] = 4 * int64(q*k.bank.tile.Width)
	}
}

// multiply fills dots.
func (k *block) multiply(queries []float32, panel int) {
	tap := int64(0)
	k.bank.tile.Run(&kernel.TileArgs{
		In: &queries[0], Weights: &k.bank.panels[panel][0], Out: &k.dots[0],
		InOff: &k.in[0], OutOff: &k.out[0], TapOff: &tap, Taps: 1, Cin: int64(k.bank.width), Count: int64(k.tiles),
	})
}

// pairs is products with the rows of two banks of as many rows, each with vectors of
// its own.
func (b *bank) pairs(other *bank, queries, others []float32, n int, visit func(first, vectors, rows int, dots, otherDots []float32, stride int)) {
	mine, theirs := b.newBlock(n), other.newBlock(n)
	for first := 0; first < n; first += queryBlock {
		vectors := min(queryBlock, n-first)
		mine.place(vectors)
		theirs.place(vectors)
		for p := range b.panels {
			mine.multiply(queries[first*b.width:], p)
			theirs.multiply(others[first*other.width:], p)
			visit(first, vectors, min(b.tile.Width, b.n-p*b.tile.Width), mine.dots, theirs.dots, b.tile.Width)
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

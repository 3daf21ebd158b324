//go:build amd64 && !purego

package coverage

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

// binArgs are the arguments of the assembly: Groups (at least 1) times eight
// arguments X*Y, or X alone. Stride is in bytes.
type binArgs struct {
	X      *float32
	Y      *float32
	Groups int64
	Cells  *uint16
	Keys   *uint32
	Lo     int32
	Last   int32
	Half   int32
	Shift  uint32
	Table  unsafe.Pointer
	Stride int64
	Ahead  int64  // bytes from an argument to the one to prefetch
	Sum    uint64 // result of the sums
}

// Each is lookup.count or sumEntries for one kind of argument and one width of
// entry.

//go:noescape
func countProductsAVX2(a *binArgs)

//go:noescape
func countValuesAVX2(a *binArgs)

//go:noescape
func slotsProductsAVX2(a *binArgs)

//go:noescape
func slotsValuesAVX2(a *binArgs)

//go:noescape
func tallyAVX2(a *tallyArgs)

//go:noescape
func tallySum8AVX2(a *tallyArgs)

//go:noescape
func tallySum16AVX2(a *tallyArgs)

//go:noescape
func tallySum32AVX2(a *tallyArgs)

//go:noescape
func sum8ProductsAVX2(a *binArgs)

//go:noescape
func sum8ValuesAVX2(a *binArgs)

//go:noescape
func sum16ProductsAVX2(a *binArgs)

//go:noescape
func sum16ValuesAVX2(a *binArgs)

//go:noescape
func sum32ProductsAVX2(a *binArgs)

//go:noescape
func sum32ValuesAVX2(a *binArgs)

// tallyArgs are Rows of slots of eight neurons and their entries, in tables Stride bytes
// apart. 128 bytes a row are fetched from Next on. Sums are of each row.
type tallyArgs struct {
	Slots  *uint16
	Rows   int64
	Table  unsafe.Pointer
	Stride int64
	Next   unsafe.Pointer
	Sums   *uint64
}

var haveAVX2 = cpuid.CPU.Supports(cpuid.AVX2)

// vectorCount does the work of count for the first arguments and returns how
// many those are.
func (t *lookup) vectorCount(table []uint32, x, y []float32, ahead int) int {
	a, n := vectorArgs(t, table, x, y, ahead)
	switch {
	case n == 0:
	case y == nil:
		countValuesAVX2(&a)
	default:
		countProductsAVX2(&a)
	}
	return n
}

// vectorTally does the work of Layer.Add for the first channels, of which it returns the
// number. The table has stride entries per channel.
func (t *lookup) vectorTally(table []uint32, x, y []float32, channels, n int, slots []uint16) int {
	return vectorSlots(t, table, x, y, channels, n, slots, nil)
}

// vectorTallySums does the work of sumCapped for the first channels, of which it returns
// the number.
func vectorTallySums[T entry](t *lookup, table []T, x, y []float32, channels, n int, slots []uint16, sums []uint64) int {
	return vectorSlots(t, table, x, y, channels, n, slots, sums[:n])
}

// vectorSlots goes through blocks of samples and channels: first it finds the slots, then
// it counts them, or adds up their entries if there are sums, eight channels at a time. So
// it is a few histograms that are in the nearest cache at a time. It returns how many
// channels it went through, a multiple of eight.
func vectorSlots[T entry](t *lookup, table []T, x, y []float32, channels, n int, slots []uint16, sums []uint64) int {
	all := channels &^ 7
	if all == 0 || !haveAVX2 || !t.single {
		return 0
	}
	stride := t.stride()
	for row := 0; row < n; row += tallyMost {
		rows := min(tallyMost, n-row)
		group := tallyGroup(rows)
		for first := 0; first < all; first += tallyWidth {
			width := min(tallyWidth, all-first)
			for r := range rows {
				from := (row+r)*channels + first
				a := t.binArgs()
				a.X, a.Groups, a.Ahead = &x[from], int64(width/8), int64(4*prefetchRows*channels)
				a.Table, a.Stride = unsafe.Pointer(&slots[8*r : width/8*group][0]), int64(2*group)
				if y == nil {
					slotsValuesAVX2(&a)
				} else {
					a.Y = &y[from]
					slotsProductsAVX2(&a)
				}
			}
			for c := first; c < first+width; c += 8 {
				a := tallyArgs{
					Slots:  &slots[(c-first)/8*group],
					Rows:   int64(rows),
					Table:  unsafe.Pointer(&table[c*stride : (c+8)*stride][0]),
					Stride: int64(stride) * int64(unsafe.Sizeof(table[0])),
					Next:   unsafe.Pointer(&table[min(c+8, channels-1)*stride]),
				}
				if sums == nil {
					tallyAVX2(&a)
					continue
				}
				a.Sums = &sums[row]
				switch unsafe.Sizeof(table[0]) {
				case 1:
					tallySum8AVX2(&a)
				case 2:
					tallySum16AVX2(&a)
				default:
					tallySum32AVX2(&a)
				}
			}
		}
	}
	return all
}

// vectorSum does the work of sumEntries for the first arguments, and returns
// how many those are and the sum over them.
func vectorSum[T entry](t *lookup, table []T, x, y []float32, ahead int) (int, uint64) {
	a, n := vectorArgs(t, table, x, y, ahead)
	if n == 0 {
		return 0, 0
	}
	product := y != nil
	switch unsafe.Sizeof(table[0]) {
	case 1:
		if product {
			sum8ProductsAVX2(&a)
		} else {
			sum8ValuesAVX2(&a)
		}
	case 2:
		if product {
			sum16ProductsAVX2(&a)
		} else {
			sum16ValuesAVX2(&a)
		}
	default:
		if product {
			sum32ProductsAVX2(&a)
		} else {
			sum32ValuesAVX2(&a)
		}
	}
	return n, a.Sum
}

// binArgs are the lookup's part of the arguments.
func (t *lookup) binArgs() binArgs {
	return binArgs{
		Cells: unsafe.SliceData(t.cells), Keys: unsafe.SliceData(t.keys),
		Lo: t.lo, Last: t.half - 1, Half: t.half, Shift: uint32(t.shift),
	}
}

// vectorArgs also checks that the table is long enough, as assembly will not.
func vectorArgs[T entry](t *lookup, table []T, x, y []float32, ahead int) (a binArgs, n int) {
	n = len(x) &^ 7
	if n == 0 || !haveAVX2 || !t.single {
		return a, 0
	}
	table = table[:n*t.stride()]
	a = t.binArgs()
	a.X, a.Groups, a.Ahead = unsafe.SliceData(x), int64(n/8), int64(4*ahead)
	a.Table, a.Stride = unsafe.Pointer(unsafe.SliceData(table)), int64(t.stride())*int64(unsafe.Sizeof(table[0]))
	if y != nil {
		a.Y = unsafe.SliceData(y[:n])
	}
	return a, n
}

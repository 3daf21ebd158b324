//go:build amd64 && !purego

package coverage

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

// slotArgs are the arguments of the assembly: Groups times eight arguments. The
// table of cells is followed by at least one entry that is read but not used.
type slotArgs struct {
	Dst    *uint32
	Z      *float32
	G      *float32
	Groups int64
	Cells  *uint16
	Keys   *int32
	Lo     int32
	Last   int32
	Half   int32
	Shift  uint32
	Stride uint32
}

// slotsOfProductsAVX2 is lookup.slots with an argument of z*g.
//
//go:noescape
func slotsOfProductsAVX2(a *slotArgs)

// slotsOfValuesAVX2 is lookup.slots with an argument of z.
//
//go:noescape
func slotsOfValuesAVX2(a *slotArgs)

var haveAVX2 = cpuid.CPU.Supports(cpuid.AVX2)

// vectorSlots does what lookup.slots does for the first elements of dst and
// returns how many those are.
func (t *lookup) vectorSlots(dst []uint32, z, g []float32, stride uint32) int {
	n := len(dst) &^ 7
	if n == 0 || !haveAVX2 {
		return 0
	}
	a := slotArgs{
		Dst:    unsafe.SliceData(dst),
		Z:      unsafe.SliceData(z[:n]),
		Groups: int64(n / 8),
		Cells:  unsafe.SliceData(t.cells),
		Keys:   unsafe.SliceData(t.keys),
		Lo:     t.lo,
		Last:   t.half - 1,
		Half:   t.half,
		Shift:  uint32(t.shift),
		Stride: stride,
	}
	if g == nil {
		slotsOfValuesAVX2(&a)
	} else {
		a.G = unsafe.SliceData(g[:n])
		slotsOfProductsAVX2(&a)
	}
	return n
}

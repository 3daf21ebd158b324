//go:build amd64 && !purego

package coverage

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unsafe"
)

// TestSlotArgs checks the offsets that the assembly was generated with.
func TestSlotArgs(t *testing.T) {
	var a slotArgs
	for i, c := range [][2]uintptr{
		{unsafe.Offsetof(a.Dst), 0}, {unsafe.Offsetof(a.Z), 8}, {unsafe.Offsetof(a.G), 16}, {unsafe.Offsetof(a.Groups), 24},
		{unsafe.Offsetof(a.Cells), 32}, {unsafe.Offsetof(a.Keys), 40}, {unsafe.Offsetof(a.Lo), 48}, {unsafe.Offsetof(a.Last), 52},
		{unsafe.Offsetof(a.Half), 56}, {unsafe.Offsetof(a.Shift), 60}, {unsafe.Offsetof(a.Stride), 64},
	} {
		if c[0] != c[1] {
			t.Errorf("field %d at %d, generated for %d", i, c[0], c[1])
		}
	}
}

// TestVectorSlots compares assembly with portable Go at all small lengths, on
// random bits (NaN, infinities and denormals among them) and at thresholds, and
// sees that nothing is written beyond the end.
func TestVectorSlots(t *testing.T) {
	if !haveAVX2 {
		if os.Getenv("NAC_EXPECT_AVX2") != "" {
			t.Fatal("no AVX2, though NAC_EXPECT_AVX2 is set")
		}
		t.Skip("no AVX2")
	}
	r := rand.New(rand.NewPCG(1, 3))
	for f := range StateFunc(len(stateFuncNames)) {
		for _, m := range []int{4, 50, 1000} {
			look := newLookup(f, 100, m)
			if !look.single {
				t.Fatalf("%v, M=%d: not for assembly", f, m)
			}
			for n := range 70 {
				z, g := make([]float32, n), make([]float32, n)
				for i := range z {
					z[i], g[i] = math.Float32frombits(r.Uint32()), 1
					switch r.IntN(3) {
					case 0:
						z[i] = unkey(look.keys[r.IntN(len(look.keys))] - int32(r.IntN(2)))
					case 1:
						z[i], g[i] = float32(r.NormFloat64()), float32(r.NormFloat64()*0.02)
					}
				}
				for _, g := range [][]float32{g, nil} {
					const guard = 0xdeadbeef
					got := slices.Repeat([]uint32{guard}, n+16)
					look.slots(got[8:n+8], z, g, 1003)
					for i := range z {
						x := z[i]
						if g != nil {
							x *= g[i]
						}
						want := look.slot(math.Float32bits(x))
						slot := int(got[8+i]) - i*1003
						if x != x && slot >= 0 && slot < look.stride() && look.bins[slot] < 0 && look.bins[want] < 0 {
							continue // NaN has more than one slot that is no bin
						}
						if slot != int(want) {
							t.Fatalf("%v, M=%d, n=%d: %v in slot %d, portable %d", f, m, n, x, slot, want)
						}
					}
					for i := range 8 {
						if got[i] != guard || got[n+8+i] != guard {
							t.Fatalf("n=%d: written outside", n)
						}
					}
				}
			}
		}
	}
}

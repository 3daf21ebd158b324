//go:build amd64 && !purego

package coverage

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unsafe"
)

// TestBinArgs checks the offsets that the assembly was generated with.
func TestBinArgs(t *testing.T) {
	var a binArgs
	for i, c := range [][2]uintptr{
		{unsafe.Offsetof(a.X), 0}, {unsafe.Offsetof(a.Y), 8}, {unsafe.Offsetof(a.Groups), 16}, {unsafe.Offsetof(a.Cells), 24},
		{unsafe.Offsetof(a.Keys), 32}, {unsafe.Offsetof(a.Lo), 40}, {unsafe.Offsetof(a.Last), 44}, {unsafe.Offsetof(a.Half), 48},
		{unsafe.Offsetof(a.Shift), 52}, {unsafe.Offsetof(a.Table), 56}, {unsafe.Offsetof(a.Stride), 64}, {unsafe.Offsetof(a.Ahead), 72}, {unsafe.Offsetof(a.Sum), 80},
	} {
		if c[0] != c[1] {
			t.Errorf("field %d at %d, generated for %d", i, c[0], c[1])
		}
	}
	var b tallyArgs
	got := []uintptr{unsafe.Offsetof(b.Slots), unsafe.Offsetof(b.Rows), unsafe.Offsetof(b.Table), unsafe.Offsetof(b.Stride), unsafe.Offsetof(b.Next), unsafe.Offsetof(b.Sums)}
	if want := []uintptr{0, 8, 16, 24, 32, 40}; !slices.Equal(got, want) {
		t.Errorf("fields of tallyArgs at %v, generated for %v", got, want)
	}
}

// TestAssembly compares assembly with portable Go at all small lengths, on
// random bits (NaN, infinities and denormals among them) and at thresholds, and
// sees that nothing is counted beyond the end.
func TestAssembly(t *testing.T) {
	if !haveAVX2 {
		if os.Getenv("NAC_EXPECT_AVX2") != "" {
			t.Fatal("no AVX2, though NAC_EXPECT_AVX2 is set")
		}
		t.Skip("no AVX2")
	}
	r := rand.New(rand.NewPCG(1, 3))
	for f := range StateFunc(len(stateFuncNames)) {
		for _, m := range []int{4, 50, 1000} {
			look := newLookup(f, 100, thresholds(m))
			if !look.single {
				t.Fatalf("%v, M=%d: not for assembly", f, m)
			}
			for n := range 40 {
				x, y := make([]float32, n), make([]float32, n)
				for i := range x {
					x[i], y[i] = math.Float32frombits(r.Uint32()), 1
					switch r.IntN(3) {
					case 0:
						x[i] = unkey(look.keys[r.IntN(len(look.keys))] - uint32(r.IntN(2)))
					case 1:
						x[i], y[i] = float32(r.NormFloat64()), float32(r.NormFloat64()*0.02)
					}
				}
				what := fmt.Sprintf("%v, M=%d, n=%d", f, m, n)
				compareAssembly(t, r, what, look, x, y)
				compareAssembly(t, r, what+", values", look, x, nil)
			}
		}
	}
}

func compareAssembly(t *testing.T, r *rand.Rand, what string, look *lookup, x, y []float32) {
	t.Helper()
	stride := look.stride()
	counts := make([]uint32, (len(x)+2)*stride)
	got := slices.Clone(counts)
	values := make([]uint32, len(counts))
	for i := range values {
		values[i] = r.Uint32()
		if look.bins[i%stride] < 0 {
			values[i] = 0
		}
	}
	var sum8, sum16, sum32 uint64
	for i, v := range x {
		if y != nil {
			v *= y[i]
		}
		p := i*stride + int(look.slot(math.Float32bits(v)))
		if look.bins[p%stride] < 0 {
			continue // a NaN has two such slots
		}
		counts[p]++
		sum8 += uint64(uint8(values[p]))
		sum16 += uint64(uint16(values[p]))
		sum32 += uint64(values[p])
	}
	look.count(got[stride:len(counts)-stride], x, y, len(x))
	for p := range got {
		want := uint32(0)
		if p >= stride && p < len(got)-stride {
			want = counts[p-stride]
		}
		if got[p] != want && (look.bins[p%stride] >= 0 || p < stride || p >= len(got)-stride) {
			t.Fatalf("%s: argument %d, slot %d: count %d, want %d", what, p/stride-1, p%stride, got[p], want)
		}
	}
	if got := sumEntries(look, narrow[uint8](values), x, y, 0); got != sum8 {
		t.Fatalf("%s: sum of bytes %d, want %d", what, got, sum8)
	}
	if got := sumEntries(look, narrow[uint16](values), x, y, 0); got != sum16 {
		t.Fatalf("%s: sum of 16-bit entries %d, want %d", what, got, sum16)
	}
	if got := sumEntries(look, values, x, y, 0); got != sum32 {
		t.Fatalf("%s: sum of 32-bit entries %d, want %d", what, got, sum32)
	}
}

func narrow[T entry](v []uint32) []T {
	out := make([]T, len(v))
	for i, x := range v {
		out[i] = T(x)
	}
	return out
}

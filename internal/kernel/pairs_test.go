package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestPairArgsLayout(t *testing.T) {
	var a PairArgs
	got := []uintptr{unsafe.Offsetof(a.In), unsafe.Offsetof(a.Out), unsafe.Offsetof(a.Count)}
	if want := []uintptr{0, 8, 16}; !slices.Equal(got, want) {
		t.Errorf("fields lie at %v, the assembly reads them at %v", got, want)
	}
}

func TestBFloat16(t *testing.T) {
	for _, c := range []struct {
		v    float32
		want uint16
	}{
		{0, 0}, {1, 0x3f80}, {-2.5, 0xc020}, {float32(math.Inf(1)), 0x7f80},
		{1 + 1./256, 0x3f80}, {1 + 3./256, 0x3f82}, {1 + 1./256 + 1./(1<<20), 0x3f81}, // ties go to even
		{math.MaxFloat32, 0x7f80},
	} {
		if got := BFloat16(c.v); got != c.want {
			t.Errorf("%g becomes %#x, want %#x", c.v, got, c.want)
		}
	}
	nan := math.Float32frombits(0x7f800001)
	if v := math.Float32frombits(uint32(BFloat16(nan)) << 16); v == v {
		t.Errorf("a NaN becomes %g", v)
	}
}

func bf16ForTest(t testing.TB) *Set {
	s, err := ByName(BF16)
	if err != nil {
		t.Skip("this machine has no AVX512-BF16, or the build no assembly")
	}
	return s
}

func TestPairUp(t *testing.T) {
	s := bf16ForTest(t)
	for _, n := range []int{16, 32, 48, 176} {
		r := rand.New(rand.NewPCG(1, 2))
		in, out := make([]float32, n), make([]float32, n/2+1)
		for i := range in {
			in[i] = float32(r.NormFloat64())
		}
		in[3], in[5] = float32(math.Inf(-1)), 1+1./256
		out[n/2] = guard
		s.PairUp()(&PairArgs{In: &in[0], Out: &out[0], Count: int64(n)})
		for i, got := range Halves(out[:n/2]) {
			if want := BFloat16(in[i]); got != want {
				t.Errorf("%d values: %g becomes %#x, want %#x", n, in[i], got, want)
			}
		}
		if out[n/2] != guard {
			t.Errorf("%d values: wrote behind the last", n)
		}
	}
}

// A tile of pairs is a tile with twice the taps: one for the first of each pair,
// one for the second.
func TestPairTiles(t *testing.T) {
	s := bf16ForTest(t)
	for _, width := range []int{16, 32, 64} {
		tile := s.PairTile(width)
		if tile.Width != width {
			t.Fatalf("the tile for %d channels has %d", width, tile.Width)
		}
		for _, taps := range []int{1, 3} {
			for _, cin := range []int{1, 4, 7, 32} {
				for flags := range int64(4) {
					r := rand.New(rand.NewPCG(uint64(width*taps), uint64(cin)))
					c := newTileCase(r, width, taps, cin)
					c.flags, c.useBias, c.useRes, c.useMk = flags, true, flags&1 == 0, flags&2 == 0
					wide := *c
					wide.taps, wide.in, wide.w, wide.tapOff = 2*taps, nil, nil, nil
					c.in, wide.in = pairs(r, c.in)
					var w []float32
					c.w, w = pairs(r, c.w)
					for tap, off := range c.tapOff {
						wide.tapOff = append(wide.tapOff, off, off+4*int64(len(c.in)))
						size := cin * width
						wide.w = append(append(wide.w, w[tap*size:][:size]...), w[len(c.w)+tap*size:][:size]...)
					}
					want, size := wide.want()
					for i, got := range c.run(tile) {
						if d := math.Abs(float64(got) - want[i]); !(d <= 1e-6*size[i]+1e-6) {
							t.Fatalf("width %d, %d taps of %d, flags %d, at %d: %g, want %g", width, taps, cin, flags, i, got, want[i])
						}
					}
				}
			}
		}
	}
}

// pairs makes every value the first of a pair with a random second one, and returns the
// rounded first values with the second ones behind them too.
func pairs(r *rand.Rand, values []float32) (paired, flat []float32) {
	paired, flat = make([]float32, len(values)), make([]float32, 2*len(values))
	halves := Halves(paired)
	for i, v := range values {
		halves[2*i], halves[2*i+1] = BFloat16(v), BFloat16(float32(r.NormFloat64()))
		flat[i] = math.Float32frombits(uint32(halves[2*i]) << 16)
		flat[len(values)+i] = math.Float32frombits(uint32(halves[2*i+1]) << 16)
	}
	return paired, flat
}

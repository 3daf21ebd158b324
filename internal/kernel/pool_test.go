package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestPoolLayout(t *testing.T) {
	var a PoolArgs
	got := []uintptr{unsafe.Offsetof(a.In), unsafe.Offsetof(a.Out), unsafe.Offsetof(a.Mask), unsafe.Offsetof(a.Channels), unsafe.Offsetof(a.Pixels)}
	if want := []uintptr{0, 8, 16, 24, 32}; !slices.Equal(got, want) {
		t.Errorf("fields lie at %v, the assembly reads them at %v", got, want)
	}
}

// Every set sums in the same order, so to the same bits.
func TestPool(t *testing.T) {
	for _, s := range Available() {
		for _, channels := range []int{16, 48, 64} {
			for _, pixels := range []int{1, 2, 7} {
				for _, masked := range []bool{false, true} {
					r := rand.New(rand.NewPCG(1, 2))
					in, out, mask := make([]float32, channels*pixels), make([]float32, channels), make([]float32, channels*pixels)
					for i := range in {
						in[i], mask[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
					}
					mask[3], mask[5] = 0, float32(math.NaN())
					wantOut, wantIn := make([]float32, channels), slices.Clone(in)
					for c := range out {
						out[c] = float32(c)
						var sum float32
						for p := range pixels {
							sum += in[p*channels+c]
							if masked && !(mask[p*channels+c] > 0) {
								wantIn[p*channels+c] = 0
							}
						}
						wantOut[c] = out[c] + sum
					}
					a := PoolArgs{In: &in[0], Out: &out[0], Channels: int64(channels), Pixels: int64(pixels)}
					if masked {
						a.Mask = &mask[0]
					}
					s.Pool()(&a)
					if !slices.Equal(out, wantOut) || !slices.Equal(in, wantIn) {
						t.Errorf("%s, %d channels, %d pixels, mask %v: sums %v, want %v, left %v, want %v",
							s.Name(), channels, pixels, masked, out, wantOut, in, wantIn)
					}
				}
			}
		}
	}
}

func TestMaxLayout(t *testing.T) {
	var a MaxArgs
	got := []uintptr{unsafe.Offsetof(a.In), unsafe.Offsetof(a.Out), unsafe.Offsetof(a.Row), unsafe.Offsetof(a.Channels), unsafe.Offsetof(a.Rows), unsafe.Offsetof(a.Pixels)}
	if want := []uintptr{0, 8, 16, 24, 32, 40}; !slices.Equal(got, want) {
		t.Errorf("fields lie at %v, the assembly reads them at %v", got, want)
	}
}

// A NaN anywhere in the window makes the maximum NaN, as in PyTorch.
func TestMax(t *testing.T) {
	const row = 5 // pixels
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, s := range Available() {
		for _, channels := range []int{16, 48} {
			for rows := 1; rows <= 3; rows++ {
				for pixels := 1; pixels <= 3; pixels++ {
					r := rand.New(rand.NewPCG(3, 4))
					in, got := make([]float32, 3*row*channels), make([]float32, channels)
					for i := range in {
						in[i] = float32(r.NormFloat64())
						if i%channels == 2 {
							in[i] = -inf
						}
					}
					last := ((rows-1)*row + pixels - 1) * channels
					in[0], in[last+1] = nan, nan
					in[3], in[last+3] = inf, nan
					s.Max()(&MaxArgs{In: &in[0], Out: &got[0], Row: 4 * row * int64(channels), Channels: int64(channels), Rows: int64(rows), Pixels: int64(pixels)})
					for c, got := range got {
						want := float64(-inf)
						for y := range rows {
							for x := range pixels {
								want = math.Max(want, float64(in[(y*row+x)*channels+c]))
							}
						}
						if c == 0 || c == 3 { // of infinity and NaN, math.Max prefers the former
							want = math.NaN()
						}
						if got := float64(got); got != want && (got == got || want == want) {
							t.Errorf("%s, %d channels, %dx%d, channel %d: %g, want %g", s.Name(), channels, rows, pixels, c, got, want)
						}
					}
				}
			}
		}
	}
}

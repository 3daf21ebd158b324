package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestGramLayout(t *testing.T) {
	var a GramArgs
	got := []uintptr{unsafe.Offsetof(a.In), unsafe.Offsetof(a.Power), unsafe.Offsetof(a.Out), unsafe.Offsetof(a.Channels), unsafe.Offsetof(a.Pixels)}
	if want := []uintptr{0, 8, 16, 24, 32}; !slices.Equal(got, want) {
		t.Errorf("fields lie at %v, the assembly reads them at %v", got, want)
	}
}

func TestGram(t *testing.T) {
	for _, s := range Available() {
		for _, channels := range []int{16, 48, 64} {
			for _, pixels := range []int{1, 2, 7} {
				for _, first := range []bool{true, false} {
					r := rand.New(rand.NewPCG(1, 2))
					n := channels * pixels
					// Values between guards, which nothing may touch.
					const guard = Lanes
					random := func(n int) []float32 {
						v := make([]float32, guard+n+guard)
						for i := range v {
							v[i] = float32(r.NormFloat64())
						}
						return v
					}
					in, power, out := random(n), random(n), random(channels)
					a := GramArgs{Power: &power[guard], Out: &out[guard], Channels: int64(channels), Pixels: int64(pixels)}
					wantPower, wantOut, sizes := slices.Clone(power), make([]float64, len(out)), make([]float64, len(out))
					for c, v := range out {
						wantOut[c] = float64(v)
					}
					for p := range pixels {
						sum := 0.0
						for i := guard + p*channels; i < guard+(p+1)*channels; i++ {
							if !first {
								wantPower[i] *= in[i]
							}
							sum += float64(wantPower[i])
						}
						for c := range channels {
							add := sum * float64(wantPower[guard+p*channels+c])
							wantOut[guard+c] += add
							sizes[guard+c] += math.Abs(add)
						}
					}
					if !first {
						a.In = &in[guard]
					}
					s.Gram()(&a)
					if !slices.Equal(power, wantPower) {
						t.Errorf("%s, %d channels, %d pixels, first %v: powers %v, want %v", s.Name(), channels, pixels, first, power, wantPower)
					}
					for c, v := range out {
						// A rounding of the sum, and two a pixel.
						if e := math.Abs(float64(v) - wantOut[c]); !(e <= 0x1p-24*float64(2*pixels+1)*(sizes[c]+math.Abs(wantOut[c]))) {
							t.Errorf("%s, %d channels, %d pixels, first %v, channel %d: %v, want %v", s.Name(), channels, pixels, first, c-guard, v, wantOut[c])
						}
					}
				}
			}
		}
	}
}

// What is not finite stays so.
func TestGramNotFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, s := range Available() {
		for _, bad := range []float32{nan, inf} {
			power, out := make([]float32, 32), make([]float32, 16)
			for i := range power {
				power[i] = 1
			}
			power[17] = bad
			s.Gram()(&GramArgs{Power: &power[0], Out: &out[0], Channels: 16, Pixels: 2})
			for c, v := range out {
				if !(v != v || v == inf) {
					t.Errorf("%s: %v gives %v at channel %d", s.Name(), bad, v, c)
				}
			}
		}
	}
}

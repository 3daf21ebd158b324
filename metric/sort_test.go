package metric

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

func TestSortFinite(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 5, radixMin - 1, radixMin, 5000} {
		for name, draw := range map[string]func() float64{
			"normal":  r.NormFloat64,
			"float32": func() float64 { return float64(r.Float32()) },
			"ties":    func() float64 { return float64(r.IntN(7) - 3) },
			"equal":   func() float64 { return -2.5 },
			"bits": func() float64 {
				for {
					if f := math.Float64frombits(r.Uint64()); f-f == 0 {
						return f
					}
				}
			},
		} {
			v := make([]float64, n)
			for i := range v {
				v[i] = draw()
			}
			want := slices.Clone(v)
			slices.Sort(want)
			sortFinite(v)
			if !slices.Equal(v, want) {
				t.Errorf("%d of %s: not sorted", n, name)
			}
		}
	}
}

func TestSortFloat32(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 5, radixMin - 1, radixMin, 5000} {
		for name, draw := range map[string]func() float32{
			"normal": func() float32 { return float32(r.NormFloat64()) },
			"scores": r.Float32,
			"ties":   func() float32 { return float32(r.IntN(7) - 3) },
			"equal":  func() float32 { return -2.5 },
			"bits": func() float32 {
				for {
					if f := math.Float32frombits(r.Uint32()); f-f == 0 {
						return f
					}
				}
			},
		} {
			v := make([]float32, n)
			for i := range v {
				v[i] = draw()
			}
			want := slices.Clone(v)
			slices.Sort(want)
			SortFloat32(v, make([]float32, n+3))
			if !slices.Equal(v, want) {
				t.Errorf("%d of %s: not sorted", n, name)
			}
		}
	}
}

func BenchmarkSortFloat32(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1000, 50000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			draw, v, spare := make([]float32, n), make([]float32, n), make([]float32, n)
			for i := range draw {
				draw[i] = r.Float32()
			}
			for b.Loop() {
				copy(v, draw)
				SortFloat32(v, spare)
			}
		})
	}
}

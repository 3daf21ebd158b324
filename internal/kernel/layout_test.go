package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestLayoutArguments(t *testing.T) {
	var l LanesArgs
	var w WinogradFilters
	got := []uintptr{
		unsafe.Offsetof(l.In), unsafe.Offsetof(l.Out), unsafe.Offsetof(l.Scale), unsafe.Offsetof(l.Step), unsafe.Offsetof(l.Count),
		unsafe.Offsetof(w.In), unsafe.Offsetof(w.Out), unsafe.Offsetof(w.Step), unsafe.Offsetof(w.Plane),
	}
	if want := []uintptr{0, 8, 16, 24, 32, 0, 8, 16, 24}; !slices.Equal(got, want) {
		t.Errorf("fields lie at %v, the assembly reads them at %v", got, want)
	}
}

func TestLanes(t *testing.T) {
	for _, s := range Available() {
		for count := 4; count <= 21; count++ {
			for _, step := range []int{count, count + 3} {
				for _, scaled := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%d/%d/%v", s.Name(), count, step, scaled), func(t *testing.T) {
						testLanes(t, s, count, step, scaled)
					})
				}
			}
		}
	}
}

func testLanes(t *testing.T, s *Set, count, step int, scaled bool) {
	r := rand.New(rand.NewPCG(uint64(count), uint64(step)))
	in := make([]float32, (Lanes-1)*step+count)
	for i := range in {
		in[i] = float32(r.NormFloat64())
	}
	const guard = Lanes
	out := make([]float32, guard+count*Lanes+guard)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	want := slices.Clone(out)
	a := LanesArgs{In: &in[0], Out: &out[guard], Step: 4 * int64(step), Count: int64(count)}
	var scale [Lanes]float64
	for l := range scale {
		scale[l] = r.NormFloat64()
	}
	if scaled {
		a.Scale = &scale
	}
	for n := range count {
		for l := range Lanes {
			v := in[l*step+n]
			if scaled {
				v = float32(float64(v) * scale[l])
			}
			want[guard+n*Lanes+l] = v
		}
	}
	s.Lanes()(&a)
	if !slices.Equal(out, want) {
		t.Errorf("%v, want %v", out, want)
	}
}

// Every set's transform of many filters is that of each by itself, bit for bit.
func TestWinogradFilters(t *testing.T) {
	for _, s := range Available() {
		for _, m := range []int{2, 4} {
			for _, step := range []int{Lanes, Lanes + 5, -Lanes} {
				t.Run(fmt.Sprintf("%s/F%d/%d", s.Name(), m, step), func(t *testing.T) {
					testWinogradFilters(t, s.Winograd(m), step)
				})
			}
		}
	}
}

func testWinogradFilters(t *testing.T, w Winograd, step int) {
	r := rand.New(rand.NewPCG(1, 2))
	first, plane := 0, Lanes+3
	if step < 0 {
		first = -8 * step
	}
	in := make([]float32, 9*(Lanes+5))
	for i := range in {
		in[i] = float32(r.NormFloat64())
	}
	out := make([]float32, w.Planes()*plane)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	want := slices.Clone(out)
	for l := range Lanes {
		var g [9]float32
		for v := range g {
			g[v] = in[first+v*step+l]
		}
		w.Filter(&g, want[l:], plane)
	}
	w.Filters(&WinogradFilters{In: &in[first], Out: &out[0], Step: 4 * int64(step), Plane: 4 * int64(plane)})
	if !slices.Equal(out, want) {
		t.Errorf("%v, want %v", out, want)
	}
}

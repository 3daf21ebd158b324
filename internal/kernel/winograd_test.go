package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestWinogradLayout(t *testing.T) {
	var i WinogradInput
	var o WinogradOutput
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"input In", unsafe.Offsetof(i.In), 0}, {"input Out", unsafe.Offsetof(i.Out), 8},
		{"input Offsets", unsafe.Offsetof(i.Offsets), 16}, {"input Row", unsafe.Offsetof(i.Row), 24},
		{"input Pixel", unsafe.Offsetof(i.Pixel), 32}, {"input Plane", unsafe.Offsetof(i.Plane), 40},
		{"input Block", unsafe.Offsetof(i.Block), 48}, {"input Step", unsafe.Offsetof(i.Step), 56},
		{"input Channels", unsafe.Offsetof(i.Channels), 64}, {"input Count", unsafe.Offsetof(i.Count), 72},
		{"output In", unsafe.Offsetof(o.In), 0}, {"output Out", unsafe.Offsetof(o.Out), 8},
		{"output Bias", unsafe.Offsetof(o.Bias), 16}, {"output Res", unsafe.Offsetof(o.Res), 24},
		{"output Mask", unsafe.Offsetof(o.Mask), 32}, {"output Offsets", unsafe.Offsetof(o.Offsets), 40},
		{"output Row", unsafe.Offsetof(o.Row), 48}, {"output Pixel", unsafe.Offsetof(o.Pixel), 56},
		{"output Plane", unsafe.Offsetof(o.Plane), 64}, {"output Block", unsafe.Offsetof(o.Block), 72},
		{"output Step", unsafe.Offsetof(o.Step), 80}, {"output Channels", unsafe.Offsetof(o.Channels), 88},
		{"output Count", unsafe.Offsetof(o.Count), 96}, {"output Rows", unsafe.Offsetof(o.Rows), 104},
		{"output Cols", unsafe.Offsetof(o.Cols), 112}, {"output Flags", unsafe.Offsetof(o.Flags), 120},
	} {
		if f.got != f.want {
			t.Errorf("%s lies at %d, the assembly reads it at %d", f.name, f.got, f.want)
		}
	}
}

// A patch through the transforms, with the products in between, must be the
// 3x3 convolution of the patch with every epilogue.
func TestWinogradIsConvolution(t *testing.T) {
	for _, s := range Available() {
		for _, m := range []int{2, 4} {
			for _, channels := range []int{16, 32, 80} {
				for size := range m * m {
					rows, cols := size/m+1, size%m+1
					for _, epilogue := range []string{"", "bias", "res", "relu", "mask", "accumulate", "bias res relu", "res mask", "accumulate mask"} {
						name := fmt.Sprintf("%s/F%d/%d/%dx%d/%s", s.Name(), m, channels, rows, cols, epilogue)
						t.Run(name, func(t *testing.T) {
							testWinograd(t, s.Winograd(m), channels, int64(rows), int64(cols), epilogue)
						})
					}
				}
			}
		}
	}
}

func testWinograd(t *testing.T, w Winograd, channels int, rows, cols int64, epilogue string) {
	r := rand.New(rand.NewPCG(1, uint64(channels)))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	const count = 3
	pixel, row := channels+3, 7*(channels+3)+1
	image, result := w.Side()*row, w.Outputs*row
	patch := random(count * image)
	filters := random(9 * channels) // one for each channel: the product is depthwise
	bias, res, mask, before := random(channels), random(count*result), random(count*result), random(count*result)
	// In no order.
	offsets := func(size int) []int64 {
		return []int64{int64(4 * size), int64(8 * size), 0}
	}
	from, to := offsets(image), offsets(result)

	step := Lanes + 2
	block := count*step + 1
	plane := channels/Lanes*block + 5
	v := random(w.Planes() * plane)
	guarded := append([]float32(nil), v...)
	w.Input(&WinogradInput{
		In: &patch[0], Out: &v[0], Offsets: &from[0], Row: int64(4 * row), Pixel: int64(4 * pixel),
		Plane: int64(4 * plane), Block: int64(4 * block), Step: int64(4 * step), Channels: int64(channels), Count: count,
	})
	at := func(p, n, c int) int { return p*plane + n*step + c/Lanes*block + c%Lanes }
	transformed := make([]bool, len(v))
	for c := range channels {
		var g [9]float32
		copy(g[:], filters[9*c:])
		u := make([]float32, w.Planes())
		w.Filter(&g, u, 1)
		for p := range u {
			for n := range count {
				transformed[at(p, n, c)] = true
				v[at(p, n, c)] *= u[p]
			}
		}
	}
	for i := range v {
		if !transformed[i] && v[i] != guarded[i] {
			t.Fatalf("the input transform wrote where no value of a plane is, at %d", i)
		}
	}
	out := append([]float32(nil), before...)
	a := &WinogradOutput{
		In: &v[0], Out: &out[0], Offsets: &to[0], Row: int64(4 * row), Pixel: int64(4 * pixel),
		Plane: int64(4 * plane), Block: int64(4 * block), Step: int64(4 * step), Channels: int64(channels), Count: count, Rows: rows, Cols: cols,
	}
	has := func(what string) bool { return slices.Contains(strings.Fields(epilogue), what) }
	if has("bias") {
		a.Bias = &bias[0]
	}
	if has("res") {
		a.Res = &res[0]
	}
	if has("mask") {
		a.Mask = &mask[0]
	}
	if has("relu") {
		a.Flags |= ReLU
	}
	if has("accumulate") {
		a.Flags |= Accumulate
	}
	w.Output(a)

	want := make([]float64, len(out))
	written := make([]bool, len(out))
	for n := range count {
		for y := range int(rows) {
			for x := range int(cols) {
				for c := range channels {
					o := int(to[n]/4) + y*row + x*pixel + c
					sum := 0.0
					for ky := range 3 {
						for kx := range 3 {
							sum += float64(patch[int(from[n]/4)+(y+ky)*row+(x+kx)*pixel+c]) * float64(filters[9*c+3*ky+kx])
						}
					}
					if has("bias") {
						sum += float64(bias[c])
					}
					if has("accumulate") {
						sum += float64(before[o])
					}
					if has("res") {
						sum += float64(res[o])
					}
					if has("relu") {
						sum = max(sum, 0)
					}
					if has("mask") && !(mask[o] > 0) {
						sum = 0
					}
					want[o], written[o] = sum, true
				}
			}
		}
	}
	for i := range out {
		if !written[i] {
			if out[i] != before[i] {
				t.Fatalf("wrote at %d, which is no pixel", i)
			}
			continue
		}
		if d := math.Abs(float64(out[i]) - want[i]); !(d < 2e-5) {
			t.Fatalf("at %d: %v, want %v", i, out[i], want[i])
		}
	}
}

// A NaN must come out of a ReLU and be stopped by a mask.
func TestWinogradNaN(t *testing.T) {
	nan := float32(math.NaN())
	for _, s := range Available() {
		for _, m := range []int{2, 4} {
			w := s.Winograd(m)
			in := make([]float32, w.Planes()*Lanes)
			for i := range in {
				in[i] = nan
			}
			out, mask := make([]float32, Lanes), make([]float32, Lanes)
			var offset int64
			a := &WinogradOutput{In: &in[0], Out: &out[0], Offsets: &offset, Plane: 4 * Lanes, Channels: Lanes, Count: 1, Rows: 1, Cols: 1, Flags: ReLU}
			w.Output(a)
			if out[0] == out[0] {
				t.Errorf("%s F%d: a NaN becomes %v in a ReLU", s.Name(), m, out[0])
			}
			a.Mask = &mask[0]
			w.Output(a)
			if out[0] != 0 {
				t.Errorf("%s F%d: a masked NaN becomes %v", s.Name(), m, out[0])
			}
		}
	}
}

// The transform of a gradient is the transpose of the output transform: <output(m), y> = <m, gradient(y)>.
func TestWinogradGradient(t *testing.T) {
	for _, s := range Available() {
		for _, channels := range []int{16, 48} {
			r := rand.New(rand.NewPCG(1, 1))
			w := s.Winograd(4)
			pixel, plane := channels+3, channels+5
			row := 4*pixel + 7
			y, out := make([]float32, 4*row), make([]float32, 4*row)
			m, got := make([]float32, 36*plane), make([]float32, 36*plane+1)
			for i := range y {
				y[i] = float32(r.NormFloat64())
			}
			for i := range m {
				m[i] = float32(r.NormFloat64())
				got[i] = 7
			}
			var offset int64
			w.Output(&WinogradOutput{
				In: &m[0], Out: &out[0], Offsets: &offset, Row: int64(4 * row), Pixel: int64(4 * pixel),
				Plane: int64(4 * plane), Block: 4 * Lanes, Channels: int64(channels), Count: 1, Rows: 4, Cols: 4,
			})
			s.WinogradGradient()(&WinogradInput{
				In: &y[0], Out: &got[0], Offsets: &offset, Row: int64(4 * row), Pixel: int64(4 * pixel),
				Plane: int64(4 * plane), Block: 4 * Lanes, Channels: int64(channels), Count: 1,
			})
			for c := range channels {
				a, b, size := 0.0, 0.0, 0.0
				for i := range 4 {
					for j := range 4 {
						a += float64(out[i*row+j*pixel+c]) * float64(y[i*row+j*pixel+c])
					}
				}
				for p := range 36 {
					v := float64(m[p*plane+c]) * float64(got[p*plane+c])
					b += v
					size += math.Abs(v)
				}
				if d := math.Abs(a - b); !(d <= 1e-6*size) {
					t.Errorf("%s, %d channels: channel %d is off by %g of %g", s.Name(), channels, c, d, size)
				}
			}
			for i := range got {
				if i%plane >= channels && i < len(m) && got[i] != 7 {
					t.Fatalf("%s: value %d was written to", s.Name(), i)
				}
			}
		}
	}
}

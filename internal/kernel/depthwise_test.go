package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestDepthwiseLayout(t *testing.T) {
	var a DepthwiseArgs
	for i, got := range []uintptr{
		unsafe.Offsetof(a.In), unsafe.Offsetof(a.Weights), unsafe.Offsetof(a.Out), unsafe.Offsetof(a.Bias),
		unsafe.Offsetof(a.TapOff), unsafe.Offsetof(a.Taps), unsafe.Offsetof(a.Channels), unsafe.Offsetof(a.Pixels),
		unsafe.Offsetof(a.InStep), unsafe.Offsetof(a.OutStep), unsafe.Offsetof(a.Flags), unsafe.Offsetof(a.Ceiling),
	} {
		if want := uintptr(8 * i); got != want {
			t.Errorf("field %d lies at %d, the assembly reads it at %d", i, got, want)
		}
	}
}

func TestDepthwise(t *testing.T) {
	for _, s := range Available() {
		for _, channels := range []int{16, 48} {
			for pixels := 1; pixels <= 9; pixels++ {
				for flags := range int64(8) {
					for _, useBias := range []bool{false, true} {
						name := fmt.Sprintf("%s/%d channels/%d pixels/flags %d/bias %v", s.Name(), channels, pixels, flags, useBias)
						t.Run(name, func(t *testing.T) { testDepthwise(t, s, channels, pixels, flags, useBias) })
					}
				}
			}
		}
	}
}

func testDepthwise(t *testing.T, s *Set, channels, pixels int, flags int64, useBias bool) {
	r := rand.New(rand.NewPCG(uint64(channels), uint64(pixels)))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	const taps = 3
	inStep, outStep := channels+5, 2*channels+1
	tapOff := []int64{0, 4 * int64(2*inStep), 4 * 7}
	in, weights, bias := random((pixels+3)*inStep), random(taps*channels), random(channels)
	in[channels-1] = float32(math.NaN())
	out := random(pixels * outStep)
	a := DepthwiseArgs{
		In: &in[0], Weights: &weights[0], Out: &out[0], TapOff: &tapOff[0],
		Taps: taps, Channels: int64(channels), Pixels: int64(pixels),
		InStep: 4 * int64(inStep), OutStep: 4 * int64(outStep), Flags: flags, Ceiling: 0.5,
	}
	if useBias {
		a.Bias = &bias[0]
	}
	want := make([]float64, len(out))
	for i, v := range out {
		p, c := i/outStep, i%outStep
		want[i] = float64(v)
		if c >= channels {
			continue
		}
		if flags&Accumulate == 0 {
			want[i] = 0
			if useBias {
				want[i] = float64(bias[c])
			}
		}
		for k, off := range tapOff {
			want[i] += float64(in[p*inStep+int(off/4)+c]) * float64(weights[k*channels+c])
		}
		if flags&ReLU != 0 && want[i] < 0 {
			want[i] = 0
		}
		if flags&Clip != 0 && want[i] > 0.5 {
			want[i] = 0.5
		}
	}
	s.Depthwise()(&a)
	for i, v := range out {
		if c := i % outStep; c >= channels && float64(v) != want[i] {
			t.Fatalf("wrote beyond the channels, at %d", i)
		}
		if math.IsNaN(want[i]) != math.IsNaN(float64(v)) || math.Abs(float64(v)-want[i]) > 1e-5 {
			t.Fatalf("%d is %v, want %v", i, v, want[i])
		}
	}
}

// With one tap the result may take its input's place.
func TestDepthwiseInPlace(t *testing.T) {
	for _, s := range Available() {
		v := make([]float32, 6*32)
		for i := range v {
			v[i] = float32(i - 90)
		}
		scale, shift := make([]float32, 32), make([]float32, 32)
		for c := range scale {
			scale[c], shift[c] = float32(c), 5
		}
		var tapOff int64
		s.Depthwise()(&DepthwiseArgs{
			In: &v[0], Weights: &scale[0], Out: &v[0], Bias: &shift[0], TapOff: &tapOff, Taps: 1, Channels: 32,
			Pixels: 6, InStep: 4 * 32, OutStep: 4 * 32, Flags: Clip, Ceiling: 100,
		})
		for i, got := range v {
			if want := min(float32((i-90)*(i%32)+5), 100); got != want {
				t.Fatalf("%s: %d is %v, want %v", s.Name(), i, got, want)
			}
		}
	}
}

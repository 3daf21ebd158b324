package weights

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"nac/internal/safetensors"
)

// Every half, by its definition: sign * 2^(exponent-15) * 1.fraction, or
// sign * 2^-14 * 0.fraction for exponent 0.
func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		sign, exp, frac := 1-2*float64(h>>15), h>>10&31, float64(h&1023)
		want := sign * math.Ldexp(1+frac/1024, exp-15)
		switch {
		case exp == 0:
			want = sign * math.Ldexp(frac/1024, -14)
		case exp == 31 && frac == 0:
			want = sign * math.Inf(1)
		case exp == 31:
			want = math.NaN()
		}
		got := half(uint16(h))
		if math.IsNaN(want) {
			if got == got {
				t.Fatalf("half(%#04x) = %v, want NaN", h, got)
			}
		} else if float64(got) != want || math.Signbit(float64(got)) != (h>>15 == 1) {
			t.Fatalf("half(%#04x) = %v, want %v", h, got, want)
		}
	}
}

func TestSafetensors(t *testing.T) {
	tensors := []safetensors.Tensor{
		safetensors.Float32("module.f32", []int{1, 2}, []float32{1.5, -2}),
		safetensors.Float64("module.f64", []int{2}, []float64{1.0 / 3, 1e300}),
		safetensors.Int64("module.i64", nil, []int64{-(1 << 40)}),
		safetensors.Int32("module.i32", []int{1}, []int32{-7}),
		safetensors.Uint8("module.u8", []int{1}, []uint8{200}),
		{Name: "module.u32", DType: "U32", Shape: []int{1}, Data: []byte{255, 255, 255, 255}},
		{Name: "module.u64", DType: "U64", Shape: []int{1}, Data: bytes.Repeat([]byte{255}, 8)},
		{Name: "module.u16", DType: "U16", Shape: []int{1}, Data: []byte{255, 255}},
		{Name: "module.i16", DType: "I16", Shape: []int{1}, Data: []byte{254, 255}},
		{Name: "module.i8", DType: "I8", Shape: []int{1}, Data: []byte{255}},
		{Name: "module.bool", DType: "BOOL", Shape: []int{2}, Data: []byte{0, 1}},
		{Name: "module.f16", DType: "F16", Shape: []int{1}, Data: []byte{0x00, 0xc1}},
		{Name: "module.bf16", DType: "BF16", Shape: []int{1}, Data: []byte{0x20, 0xc0}},
	}
	want := map[string][]float32{
		"f32": {1.5, -2}, "f64": {1.0 / 3, float32(math.Inf(1))}, "i64": {-(1 << 40)}, "i32": {-7}, "u8": {200},
		"u32": {1 << 32}, "u64": {1 << 64}, "u16": {65535}, "i16": {-2}, "i8": {-1}, "bool": {0, 1}, "f16": {-2.5}, "bf16": {-2.5},
	}
	var b bytes.Buffer
	if err := safetensors.Encode(&b, tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	s, err := load(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Names()) != len(want) {
		t.Errorf("names %q", s.Names())
	}
	for name, w := range want {
		if x, _ := s.Lookup(name); !slices.Equal(x.Data, w) {
			t.Errorf("%s is %v, want %v", name, x.Data, w)
		}
	}
	if x, _ := s.Lookup("f32"); !slices.Equal(x.Shape, []int{1, 2}) {
		t.Errorf("shape %v", x.Shape)
	}

	b.Reset()
	if err := safetensors.Encode(&b, []safetensors.Tensor{{Name: "c", DType: "C64", Shape: []int{1}, Data: make([]byte, 8)}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := load(b.Bytes()); err == nil || !strings.Contains(err.Error(), `tensor "c": values of type C64 cannot be weights`) {
		t.Error(err)
	}
}

// More than one piece of the reader, through every layout of memory.
func TestLargeTensors(t *testing.T) {
	const rows, cols = 300, 257
	data := make([]float32, rows*cols)
	for i := range data {
		data[i] = float32(i)
	}
	root := dict(
		text("plain"), tensorOf(floats("k", rows*cols), 0, []int64{rows, cols}, []int64{cols, 1}),
		text("t"), tensorOf(floats("k", rows*cols), 0, []int64{cols, rows}, []int64{1, cols}),
		text("tail"), tensorOf(floats("k", rows*cols), 1, []int64{rows*cols - 1}, []int64{1}),
	)
	s, err := load(legacy(root, keyed{"k", rows * cols, f32(data...)}))
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := s.Lookup("plain")
	tail, _ := s.Lookup("tail")
	if !slices.Equal(plain.Data, data) || !slices.Equal(tail.Data, data[1:]) {
		t.Error("values differ")
	}
	turned, _ := s.Lookup("t")
	for i := range rows {
		for j := range cols {
			if turned.Data[j*rows+i] != data[i*cols+j] {
				t.Fatalf("transposed: row %d, column %d is %v", j, i, turned.Data[j*rows+i])
			}
		}
	}
}

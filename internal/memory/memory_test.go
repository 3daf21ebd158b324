package memory

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestLittleEndian(t *testing.T) {
	s := []float32{1.5, -2, float32(math.NaN()), 0x1p-140}
	raw, ok := LittleEndian(s)
	if want := binary.NativeEndian.Uint16([]byte{1, 0}) == 1; ok != want {
		t.Fatalf("bytes of floats: %v, want %v on this machine", ok, want)
	}
	if !ok {
		return
	}
	for i, v := range s {
		if got := binary.LittleEndian.Uint32(raw[4*i:]); got != math.Float32bits(v) {
			t.Errorf("bytes of float %d are %08x, want %08x", i, got, math.Float32bits(v))
		}
	}
	binary.LittleEndian.PutUint32(raw[4:], math.Float32bits(7))
	if s[1] != 7 {
		t.Errorf("the bytes are a copy: float 1 is %v after 7 was written", s[1])
	}
	if raw, _ := LittleEndian(nil); len(raw) != 0 {
		t.Errorf("%d bytes of nothing", len(raw))
	}
}

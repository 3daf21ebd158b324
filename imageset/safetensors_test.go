package imageset

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// golden is a safetensors file of reference numbers.
type golden map[string]struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
	data    []byte
}

func readGolden(t testing.TB, path string) golden {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	delete(header, "__metadata__")
	g := golden{}
	for name, msg := range header {
		e := g[name]
		if err := json.Unmarshal(msg, &e); err != nil {
			t.Fatal(err)
		}
		e.data = raw[8+int(n)+e.Offsets[0] : 8+int(n)+e.Offsets[1]]
		g[name] = e
	}
	return g
}

func (g golden) bytes(t testing.TB, name string, shape ...int) []byte {
	t.Helper()
	e, ok := g[name]
	if !ok || e.DType != "U8" || !slices.Equal(e.Shape, shape) {
		t.Fatalf("%s: want U8 %v, the reference has %s %v", name, shape, e.DType, e.Shape)
	}
	return e.data
}

func (g golden) floats(t testing.TB, name string, shape ...int) []float32 {
	t.Helper()
	e, ok := g[name]
	if !ok || e.DType != "F32" || !slices.Equal(e.Shape, shape) {
		t.Fatalf("%s: want F32 %v, the reference has %s %v", name, shape, e.DType, e.Shape)
	}
	out := make([]float32, len(e.data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(e.data[4*i:]))
	}
	return out
}

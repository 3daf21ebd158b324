package weights

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"nac/internal/safetensors"
)

// FuzzDecode: whatever the bytes, no panic, no hang, and no more values than a
// file of that size may describe.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.p*"))
	if err != nil || len(files) < 40 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 4000 {
			f.Add(b)
		}
	}
	f.Add(legacy(dict(text("w"), tensorOf(floats("k", 2), 0, []int64{2}, []int64{1})), keyed{"k", 2, f32(1, 2)}))
	var b bytes.Buffer
	if err := safetensors.Encode(&b, []safetensors.Tensor{safetensors.Float32("w", []int{2}, []float32{1, 2})}, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode("fuzz", bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		total := 0
		for _, name := range s.Names() {
			x, ok := s.Lookup(name)
			n, fits := elements(x.Shape)
			if !ok || !fits || n != int64(len(x.Data)) {
				t.Fatalf("%q: shape %v with %d values", name, x.Shape, len(x.Data))
			}
			total += len(x.Data)
		}
		if total > 4*len(data)+slack {
			t.Fatalf("%d values from %d bytes", total, len(data))
		}
		if len(s.Names()) == 0 {
			t.Fatal("success without a tensor")
		}
	})
}

package imageset

import (
	"slices"
	"testing"

	"nac/internal/safetensors"
)

// golden is a file of reference numbers.
type golden struct{ *safetensors.File }

func readGolden(t testing.TB, path string) golden {
	t.Helper()
	f, err := safetensors.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return golden{f}
}

func (g golden) shape(t testing.TB, name string) []int {
	t.Helper()
	tensor, err := g.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return tensor.Shape
}

func (g golden) bytes(t testing.TB, name string, shape ...int) []byte {
	t.Helper()
	data, got, err := g.Uint8s(name)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, shape) {
		t.Fatalf("%s: want the shape %v, the reference has %v", name, shape, got)
	}
	return data
}

func (g golden) floats(t testing.TB, name string, shape ...int) []float32 {
	t.Helper()
	data, got, err := g.Float32s(name)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, shape) {
		t.Fatalf("%s: want the shape %v, the reference has %v", name, shape, got)
	}
	return data
}

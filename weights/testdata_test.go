package weights

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// expectation is what testdata/make.py says of one file.
type expectation struct {
	Tensors []struct {
		Name   string
		Shape  []int
		Values []any // numbers, or "inf" and "-inf"
	}
	Error []string
}

func expectations(t testing.TB) map[string]expectation {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]expectation
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if len(m) < 40 {
		t.Fatalf("only %d files in expected.json", len(m))
	}
	return m
}

// Files that PyTorch wrote give the values that PyTorch reads, or are refused by
// the name of what they hold.
func TestPyTorchFiles(t *testing.T) {
	for file, want := range expectations(t) {
		t.Run(file, func(t *testing.T) {
			path := filepath.Join("testdata", file)
			s, err := Open(path)
			if want.Error != nil {
				if err == nil {
					t.Fatalf("no error; names %q", s.Names())
				}
				for _, word := range append(want.Error, path) {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%v\nlacks %q", err, word)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			names := s.Names()
			if len(names) != len(want.Tensors) {
				t.Fatalf("names %q, want %d", names, len(want.Tensors))
			}
			for i, w := range want.Tensors {
				got, ok := s.Lookup(w.Name)
				if !ok || names[i] != w.Name {
					t.Fatalf("%s is not at place %d of %q", w.Name, i, names)
				}
				if !slices.Equal(got.Shape, w.Shape) {
					t.Errorf("%s: shape %v, want %v", w.Name, got.Shape, w.Shape)
				}
				if len(got.Data) != len(w.Values) {
					t.Fatalf("%s: %d values, want %d", w.Name, len(got.Data), len(w.Values))
				}
				for j, v := range w.Values {
					if x := number(t, v); math.Float32bits(got.Data[j]) != math.Float32bits(x) {
						t.Errorf("%s: value %d is %v, want %v", w.Name, j, got.Data[j], x)
					}
				}
			}
		})
	}
}

func number(t *testing.T, v any) float32 {
	switch v := v.(type) {
	case float64:
		return float32(v)
	case string:
		if v == "inf" {
			return float32(math.Inf(1))
		}
		if v == "-inf" {
			return float32(math.Inf(-1))
		}
	}
	t.Fatalf("no number: %v", v)
	return 0
}

// However a file is cut off, it is an error that says so or names the fault, never
// a tensor of zeros.
func TestCutOffAnywhere(t *testing.T) {
	for file, want := range expectations(t) {
		if want.Error != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		step := 1 + len(b)/250 // every byte of the small files
		for n := 0; n < len(b); n += step {
			s, err := Decode(file, bytes.NewReader(b[:n]), int64(n))
			if err == nil {
				t.Fatalf("%s: the first %d of %d bytes give %q", file, n, len(b), s.Names())
			}
			if !strings.Contains(err.Error(), file) {
				t.Fatalf("%v: does not name %s", err, file)
			}
		}
	}
}

// A changed byte in the zip format either does not touch what is read, or is an error.
func TestChangedByteInZip(t *testing.T) {
	const file = "plain_zip.pt"
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Decode(file, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range b {
		b[i] ^= 0x40
		got, err := Decode(file, bytes.NewReader(b), int64(len(b)))
		b[i] ^= 0x40
		if err != nil {
			refused++
			continue
		}
		if !slices.Equal(got.Names(), want.Names()) {
			t.Fatalf("byte %d: names %q", i, got.Names())
		}
		for _, name := range want.Names() {
			x, _ := got.Lookup(name)
			y, _ := want.Lookup(name)
			if !slices.Equal(x.Data, y.Data) || !slices.Equal(x.Shape, y.Shape) {
				t.Errorf("byte %d changes %s", i, name)
			}
		}
	}
	if refused < len(b)/4 {
		t.Errorf("only %d of %d changes are errors", refused, len(b))
	}
}

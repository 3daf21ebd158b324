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
	f.Fuzz(func(t *testing.T, data []byte) { decodeOrRefuse(t, data) })
}

// FuzzPickle puts any pickle and storage into whole containers, whose checksums
// and lengths a fuzzer would not get past.
func FuzzPickle(f *testing.F) {
	for _, root := range []string{
		dict(text("w"), tensorOf(floats("k", 2), 0, []int64{2}, []int64{1})),
		dict(text("model"), dict(text("module.w"), tensorOf(floats("k", 2), 1, nil, nil)), text("optimizer"), dict(text("state"), "}", text("param_groups"), "]")),
		call("collections.OrderedDict", list(list("U\x01a", tensorOf(floats("k", 2), 0, []int64{2, 1}, []int64{0, 1})))) + "}" + text("_metadata") + "Nsb",
		dict(text("a"), call("torch._utils._rebuild_tensor_v3", storageID("torch.storage.UntypedStorage", "k", 8), integers(1), tuple(integers(2)), tuple(integers(1)), "\x89", "N", global("torch.int16"))),
		dict(text("a"), tensorOf(tuple(text("storage"), global("torch.FloatStorage"), text("k"), text("cpu"), integers(2), tuple(text("v"), integers(1, 1)))+"Q", 0, nil, nil)),
		"\x80\x04}\x94(\x8c\x01a\x94\x8c\x0bcollections\x94\x8c\x07Counter\x94\x93\x94}\x94(K\x01K\x02u\x85Ru",
	} {
		f.Add(root, f32(1, 2))
	}
	f.Fuzz(func(t *testing.T, root string, data []byte) {
		decodeOrRefuse(t, legacy(root, keyed{"k", int64(len(data) / 4), data}))
		decodeOrRefuse(t, archive(t, member{"data.pkl", pickled(root)}, member{"data/k", string(data)}))
	})
}

func decodeOrRefuse(t *testing.T, data []byte) {
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
}

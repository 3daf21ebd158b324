package coverage

import (
	"bytes"
	"path/filepath"
	"testing"

	"nac/internal/safetensors"
)

func smallFile(t testing.TB) []byte {
	t.Helper()
	c, err := New([]LayerSettings{{Layer: "a", M: 4, O: 2, Alpha: 1, Func: SigmoidOG}}, map[string]int{"a": 2})
	must(t, err)
	must(t, c.Add([]States{{"a", []float32{1, -1, 2, 0}, []float32{1, 1, 1, 1}}}, 2))
	return encoded(t, c)
}

func TestLoadRefuses(t *testing.T) {
	const good = `[{"layer":"a","M":4,"O":2,"alpha":1,"func":"sigmoid(o*g_kl)","channels":2,"samples":2}]`
	counts := func(v ...int32) safetensors.Tensor { return safetensors.Int32("a.counts", []int{2, 3}, v) }
	for _, c := range []struct {
		name    string
		meta    map[string]string
		tensors []safetensors.Tensor
		words   []string
	}{
		{"format", map[string]string{"format": "pt"}, nil, []string{"not a coverage file", `"pt"`}},
		{"version", map[string]string{"format": fileFormat, "version": "9"}, nil, []string{`version "9"`}},
		{"layers", map[string]string{"layers": "[{"}, nil, []string{"list of layers"}},
		{"rest", map[string]string{"layers": good + "x"}, nil, []string{"list of layers"}},
		{"none", map[string]string{"layers": "[]"}, nil, []string{"no layers"}},
		{"func", map[string]string{"layers": `[{"layer":"a","func":"relu"}]`}, nil, []string{"relu", "tanh"}},
		{"unknown", map[string]string{"layers": `[{"layer":"a","extra":1}]`}, nil, []string{"extra"}},
		{"settings", map[string]string{"layers": `[{"layer":"a","M":5,"O":2,"alpha":1,"func":"o","channels":2,"samples":2}]`}, nil, []string{"odd"}},
		{"channels", map[string]string{"layers": `[{"layer":"a","M":4,"O":2,"alpha":1,"func":"o","channels":1000000000,"samples":2}]`}, nil, []string{"[2 3]", "1000000000"}},
		{"samples", map[string]string{"layers": `[{"layer":"a","M":4,"O":2,"alpha":1,"func":"o","channels":2,"samples":-1}]`}, nil, []string{"-1 samples"}},
		{"dtype", nil, []safetensors.Tensor{safetensors.Float32("a.counts", []int{2, 3}, make([]float32, 6))}, []string{"a.counts", "F32"}},
		{"name", nil, []safetensors.Tensor{safetensors.Int32("b.counts", []int{2, 3}, make([]int32, 6))}, []string{"a.counts"}},
		{"more", nil, []safetensors.Tensor{counts(0, 0, 0, 0, 0, 0), safetensors.Int32("b", []int{1}, []int32{1})}, []string{"2 tensors"}},
		{"negative", nil, []safetensors.Tensor{counts(0, -1, 0, 0, 0, 0)}, []string{"channel 0, bin 1", "-1"}},
		{"sum", nil, []safetensors.Tensor{counts(0, 0, 0, 1, 2, 0)}, []string{"channel 1", "3 samples", "2 in all"}},
		{"unreachable", nil, []safetensors.Tensor{counts(0, 0, 0, 0, 0, 1)}, []string{"channel 1", "bin 2", "no state reaches"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			meta := map[string]string{"format": fileFormat, "version": fileVersion, "layers": good}
			for k, v := range c.meta {
				meta[k] = v
			}
			tensors := c.tensors
			if tensors == nil {
				tensors = []safetensors.Tensor{counts(0, 0, 0, 0, 0, 0)}
			}
			path := filepath.Join(t.TempDir(), c.name+".safetensors")
			must(t, safetensors.Write(path, tensors, meta))
			_, err := Load(path)
			wants(t, err, append(c.words, path)...)
		})
	}
	whole := smallFile(t)
	for cut := range len(whole) {
		_, err := Decode("cut.safetensors", bytes.NewReader(whole[:cut]), int64(cut))
		wants(t, err, "cut.safetensors")
	}
}

// FuzzDecode: no file may panic, and one that is accepted must be written back
// as what it says.
func FuzzDecode(f *testing.F) {
	f.Add(smallFile(f))
	f.Add([]byte("not a coverage"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode("fuzz", bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		again := encoded(t, c)
		d, err := Decode("again", bytes.NewReader(again), int64(len(again)))
		must(t, err)
		if !bytes.Equal(again, encoded(t, d)) {
			t.Fatal("not stable")
		}
		for _, l := range c.Layers {
			x := make([]float32, l.Channels())
			must(t, l.Score(x, x, 1, make([]float32, 1)))
		}
	})
}

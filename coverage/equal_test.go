package coverage

import (
	"encoding/json"
	"math"
	"testing"

	"nac/internal/safetensors"
)

// Thresholds, counts and coverage of NAC-ME are those of the reference's code on the
// same activations and gradients; bench/train/nacme.py ran it.
func TestEqualBinsLikeReference(t *testing.T) {
	f, err := safetensors.Read("testdata/nacme.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := func(name string) ([]float32, []int) {
		v, shape, err := f.Float32s(name)
		if err != nil {
			t.Fatal(err)
		}
		return v, shape
	}
	o, shape := read("o")
	g, _ := read("g")
	right, _, err := f.Uint8s("right")
	if err != nil {
		t.Fatal(err)
	}
	channels := shape[1]
	for tag, text := range f.Metadata() {
		s := LayerSettings{Layer: tag, Equal: true, Func: SigmoidOG}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		th, err := EqualThresholds(s.M)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := read(tag + ".thresholds")
		for i, w := range want {
			if th[i] != float64(w) {
				t.Errorf("%s: threshold %d is %v, want %v", tag, i, th[i], w)
			}
		}
		l, err := NewLayer(s, channels)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range right {
			if r == 0 {
				continue
			}
			if err := l.Add(o[i*channels:(i+1)*channels], g[i*channels:(i+1)*channels], 1); err != nil {
				t.Fatal(err)
			}
		}
		counts, _ := read(tag + ".counts")
		got := l.Counts()
		for b := range s.M - 1 {
			for c := range channels {
				if got[c*(s.M-1)+b] != uint32(counts[b*channels+c]) {
					t.Errorf("%s: neuron %d, bin %d holds %d states, want %v", tag, c, b, got[c*(s.M-1)+b], counts[b*channels+c])
				}
			}
		}
		whole, _ := read(tag + ".coverage")
		if d := math.Abs(l.Summary().Coverage - float64(whole[0])); d > 1e-6*float64(whole[0]) {
			t.Errorf("%s: coverage %v, want %v", tag, l.Summary().Coverage, whole[0])
		}
	}
}

// A state of exactly 1 has no bin among equal ones, and 0 has the first.
func TestEqualBinsEnds(t *testing.T) {
	l, err := NewLayer(LayerSettings{Layer: "l", M: 50, O: 1, Alpha: 1, Equal: true}, 4)
	if err != nil {
		t.Fatal(err)
	}
	bins := make([]int32, 4)
	if err := l.Bins([]float32{100, 10, -200, float32(math.NaN())}, []float32{1, 1, 1, 1}, 1, bins); err != nil {
		t.Fatal(err)
	}
	if bins[0] != -1 || bins[1] != 48 || bins[2] != 0 || bins[3] != -1 {
		t.Errorf("bins %v", bins)
	}
}

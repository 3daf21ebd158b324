package detector

import (
	"math"
	"testing"

	"nac/internal/safetensors"
	"nac/internal/shareddata"
)

// baselines are the scores that the reference's own classes gave, from stored
// logits and features.
type baselines struct {
	file             *safetensors.File
	network          Network
	train, val, test *Inputs
}

func openBaselines(t *testing.T) *baselines {
	t.Helper()
	f, err := safetensors.Read(shareddata.Path(t, "golden", "baselines.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := &baselines{file: f}
	b.network.Weight, b.network.Bias = b.float32s(t, "fc.weight"), b.float32s(t, "fc.bias")
	b.network.Classes = len(b.network.Bias)
	b.network.Features = len(b.network.Weight) / b.network.Classes
	b.train, b.val, b.test = b.inputs(t, "train"), b.inputs(t, "val"), b.inputs(t, "test")
	b.test.Labels = nil
	return b
}

func (b *baselines) float32s(t *testing.T, name string) []float32 {
	t.Helper()
	v, _, err := b.file.Float32s(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// floats reads a tensor of either precision.
func (b *baselines) floats(t *testing.T, name string) []float64 {
	t.Helper()
	if v, _, err := b.file.Float64s(name); err == nil {
		return v
	}
	v := b.float32s(t, name)
	return widen(v, make([]float64, len(v)))
}

func (b *baselines) inputs(t *testing.T, split string) *Inputs {
	t.Helper()
	in := &Inputs{Logits: b.float32s(t, split+".logits"), Feature: b.float32s(t, split+".feature")}
	labels, _, err := b.file.Int32s(split + ".label")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range labels {
		in.Labels = append(in.Labels, int(l))
	}
	in.N = len(labels)
	return in
}

// fit fits a detector in uneven batches.
func (b *baselines) fit(t *testing.T, key string, s Settings) Detector {
	t.Helper()
	d, err := New(key, s)
	if err != nil {
		t.Fatal(err)
	}
	fitOn(t, d, b.network, b.train, b.val, 100)
	return d
}

// relativeError is max|got-want| / max|want|.
func relativeError(got, want []float64) float64 {
	worst, size := 0.0, 0.0
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= worst) {
			worst = d
		}
		size = max(size, math.Abs(w))
	}
	return worst / size
}

func TestBaselines(t *testing.T) {
	b := openBaselines(t)
	for _, c := range []struct {
		key       string
		s         map[string]float64
		golden    string
		tolerance float64
	}{
		{"msp", nil, "msp.conf", 2e-5},
		{"mls", nil, "mls.conf", 2e-5},
		{"ebo", nil, "ebo.conf", 2e-5},
		{"temp_scaling", nil, "temp_scaling.conf", 1e-4},
		{"knn", nil, "knn.conf", 1e-4},
	} {
		t.Run(c.golden, func(t *testing.T) {
			d := b.fit(t, c.key, Settings{Params: c.s})
			want := b.floats(t, c.golden)
			e := relativeError(scores(t, d, b.test), want)
			t.Logf("error %.2g", e)
			if !(e <= c.tolerance) {
				t.Errorf("error %.3g, want at most %g", e, c.tolerance)
			}
		})
	}
}

// What fitting found out, where the reference's is stored.
func TestBaselinesFitted(t *testing.T) {
	b := openBaselines(t)
	for _, c := range []struct {
		key       string
		found     func(Detector) []float64
		golden    string
		tolerance float64
	}{
		{"temp_scaling", func(d Detector) []float64 { return []float64{d.(*tempScaling).temperature} }, "temp_scaling.temperature", 1e-4},
	} {
		e := relativeError(c.found(b.fit(t, c.key, Settings{})), b.floats(t, c.golden))
		t.Logf("%s: error %.2g", c.golden, e)
		if !(e <= c.tolerance) {
			t.Errorf("%s: error %.3g, want at most %g", c.golden, e, c.tolerance)
		}
	}
}

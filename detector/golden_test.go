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
	type golden struct {
		name      string
		tolerance float64
	}
	b := openBaselines(t)
	for _, c := range []struct {
		key    string
		s      map[string]float64
		scores []golden
		// fitted are what fitting found out, where the reference's is stored.
		fitted map[golden]func(Detector) []float64
	}{
		{key: "msp", scores: []golden{{"msp.conf", 2e-5}, {"msp.conf_f64", 2e-5}}},
		{key: "mls", scores: []golden{{"mls.conf", 2e-5}}},
		{key: "ebo", scores: []golden{{"ebo.conf", 2e-5}}},
		{key: "temp_scaling", scores: []golden{{"temp_scaling.conf", 1e-4}}, fitted: map[golden]func(Detector) []float64{
			{"temp_scaling.temperature", 1e-5}: func(d Detector) []float64 { return []float64{d.(*tempScaling).temperature} },
		}},
		{key: "knn", scores: []golden{{"knn.conf", 1e-4}}},
		{key: "mds", scores: []golden{{"mds.conf", 1e-4}, {"mds.conf_f64", 1e-4}}},
		{key: "rmds", scores: []golden{{"rmds.conf", 1e-3}, {"rmds.conf_f64", 1e-3}}},
		{key: "vim", scores: []golden{{"vim.conf", 3e-3}, {"vim.conf_f64", 1e-5}}, fitted: map[golden]func(Detector) []float64{
			{"vim.u", 1e-5}:     func(d Detector) []float64 { return d.(*vim).space.origin },
			{"vim.alpha", 1e-3}: func(d Detector) []float64 { return []float64{d.(*vim).alpha} },
		}},
		{key: "react", scores: []golden{{"react.conf", 2e-5}}, fitted: map[golden]func(Detector) []float64{
			{"react.threshold", 1e-6}: func(d Detector) []float64 { return []float64{d.(*react).threshold} },
		}},
		{key: "dice", scores: []golden{{"dice.conf", 2e-5}}},
		{key: "ash", scores: []golden{{"ash.conf", 2e-5}, {"ash.conf_f64", 2e-5}}},
		{key: "klm", scores: []golden{{"klm.conf", 1e-4}, {"klm.conf_f64", 1e-4}}, fitted: map[golden]func(Detector) []float64{
			{"klm.mean_softmax_val", 1e-5}: func(d Detector) []float64 { return d.(*klm).means },
		}},
		{key: "she", scores: []golden{{"she.conf", 2e-5}, {"she.conf_f64", 2e-5}}, fitted: map[golden]func(Detector) []float64{
			{"she.class_mean_correct", 1e-5}: func(d Detector) []float64 { return d.(*she).patterns },
		}},
		{key: "gen", scores: []golden{{"gen.conf", 2e-5}, {"gen.conf_f64", 2e-5}}},
		{key: "gen", s: map[string]float64{"gen.M": 3}, scores: []golden{{"gen_m3.conf", 2e-5}}},
		{key: "gradnorm", scores: []golden{{"gradnorm.conf", 1e-4}}},
		{key: "openmax", scores: []golden{{"openmax.conf", 1e-4}, {"openmax.conf_f64", 1e-4}}, fitted: map[golden]func(Detector) []float64{
			{"openmax.mav", 1e-5}:           func(d Detector) []float64 { return d.(*openMax).means },
			{"openmax.weibull_shape", 1e-4}: func(d Detector) []float64 { return d.(*openMax).shape },
			{"openmax.weibull_scale", 1e-5}: func(d Detector) []float64 { return d.(*openMax).scale },
			{"openmax.weibull_small", 1e-5}: func(d Detector) []float64 { return d.(*openMax).smallness },
		}},
	} {
		t.Run(c.key, func(t *testing.T) {
			d := b.fit(t, c.key, Settings{Params: c.s})
			compare := func(g golden, got []float64) {
				e := relativeError(got, b.floats(t, g.name))
				t.Logf("%s: error %.2g", g.name, e)
				if !(e <= g.tolerance) {
					t.Errorf("%s: error %.3g, want at most %g", g.name, e, g.tolerance)
				}
			}
			for g, found := range c.fitted {
				compare(g, found(d))
			}
			for _, g := range c.scores {
				compare(g, scores(t, d, b.test))
			}
		})
	}
}

// ViM is the energy less alpha times the residual.
func TestResidual(t *testing.T) {
	b := openBaselines(t)
	vim, energy, alpha := b.floats(t, "vim.conf_f64"), b.floats(t, "ebo.conf_f64"), b.floats(t, "vim.alpha")
	want := make([]float64, len(vim))
	for i := range vim {
		want[i] = (vim[i] - energy[i]) / alpha[0]
	}
	if e := relativeError(scores(t, b.fit(t, "residual", Settings{}), b.test), want); !(e <= 1e-4) {
		t.Errorf("error %.3g, want at most 1e-4", e)
	}
}

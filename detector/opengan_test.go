package detector

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/internal/safetensors"
	"nac/metric"
)

func init() {
	toyParams["opengan.epochs"], toyParams["opengan.width"], toyParams["opengan.batch"] = 10, 8, 32
}

// OpenOOD's own trainer, in float32, from the same weights on the same features and
// noise: bench/newer/opengan.py. The first epoch is in train mode, the others are not.
func TestOpenGANSteps(t *testing.T) {
	const n, features, noise, width, batch, tests = 70, 24, 10, 8, 16, 20
	data, err := os.ReadFile("testdata/opengan.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		LossD, LossG []float64
		Logits       [][]float64
		Weights      map[string][]float64
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	made := func(name string, n int, f func(v float64) float64) []float32 {
		v := make([]float32, n)
		for i, x := range fill("opengan."+name, n) {
			v[i] = float32(f(x))
		}
		return v
	}
	relu := func(v float64) float64 { return max(v, 0) }
	g, err := newGAN(newGenerator(noise, width, features), newDiscriminator(features, width), batch, 1e-3)
	if err != nil {
		t.Fatal(err)
	}
	// The names are those of PyTorch's modules in order, activations counted.
	tensors := map[string][]float32{}
	for name, layers := range map[string][]*ganLayer{"netG": g.generator.layers, "netD": g.discriminator.layers} {
		at := 0
		module := func() string { at++; return fmt.Sprintf("%s.main.%d", name, at-1) }
		for _, l := range layers {
			m := module()
			scale := float32(1.5 * math.Sqrt(float64(1/float32(l.in))))
			copy(l.weight, made(m+".weight", len(l.weight), func(v float64) float64 { return float64(float32(v) * scale) }))
			tensors[m+".weight"] = l.weight
			if l.bias != nil {
				copy(l.bias, made(m+".bias", l.out, func(v float64) float64 { return 0.1 * v }))
				tensors[m+".bias"] = l.bias
			}
			if b := l.batchNorm; b != nil {
				m := module()
				copy(b.weight, made(m+".weight", l.out, func(v float64) float64 { return 1 + 0.2*v }))
				copy(b.bias, made(m+".bias", l.out, func(v float64) float64 { return 0.1 * v }))
				tensors[m+".weight"], tensors[m+".bias"] = b.weight, b.bias
				tensors[m+".running_mean"], tensors[m+".running_var"] = b.mean, b.variance
			}
			module() // the activation
		}
	}
	real := made("feature", n*features, relu)
	test := made("test", tests*features, relu)
	var lossD, lossG []float64
	worst := 0.0
	compare := func(what string, got, want []float64) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
		}
		e := relativeError(got, want)
		worst = max(worst, e)
		if !(e <= 1e-5) {
			t.Errorf("%s: error %.3g, want at most 1e-5", what, e)
		}
	}
	for epoch, logits := range want.Logits {
		g.frozen = epoch > 0
		for from := 0; from < n; from += batch {
			to := min(from+batch, n)
			z := made(fmt.Sprintf("noise.%d", len(lossD)), (to-from)*noise, func(v float64) float64 { return 1.7 * v })
			d, gen, err := g.step(real[from*features:to*features], z, to-from)
			if err != nil {
				t.Fatal(err)
			}
			lossD, lossG = append(lossD, d), append(lossG, gen)
		}
		compare(fmt.Sprintf("logits after epoch %d", epoch+1), discriminate(fold(g.discriminator.layers), test), logits)
	}
	compare("losses of the discriminator", lossD, want.LossD)
	compare("losses of the generator", lossG, want.LossG)
	if len(tensors) != len(want.Weights) {
		t.Errorf("%d tensors, want %d", len(tensors), len(want.Weights))
	}
	for name, v := range tensors {
		var some []float64
		for i := 0; i < len(v); i += 7 {
			some = append(some, float64(v[i]))
		}
		compare(name, some, want.Weights[name])
	}
	t.Logf("largest error %.2g after %d steps", worst, len(lossD))
}

// With OOD validation images the best epoch is taken, without them the last; a seed
// decides everything else.
func TestOpenGANEpoch(t *testing.T) {
	r := toy{rand.New(rand.NewPCG(21, 22))}
	train, val, ood, in := r.batch(200, true), r.batch(60, true), r.batch(60, false), r.batch(20, true)
	fit := func(epochs int, seed float64, outliers *Inputs) *openGAN {
		s := toySettings()
		s.Params = map[string]float64{"opengan.epochs": float64(epochs), "opengan.width": 4, "opengan.rate": 0.003, "opengan.seed": seed}
		d, err := New("opengan", s)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Begin(r.network()); err != nil {
			t.Fatal(err)
		}
		if err := d.Fit(train); err != nil {
			t.Fatal(err)
		}
		if err := d.(ValidationFitter).FitValidation(val); err != nil {
			t.Fatal(err)
		}
		if outliers != nil {
			if err := d.(OODValidationFitter).FitOODValidation(outliers); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		return d.(*openGAN)
	}
	auroc := func(d *openGAN) float64 {
		a, err := metric.AUROC(scores(t, d, val), scores(t, d, ood))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	const epochs = 8
	best, chosen := 0.0, 0
	for epoch := 1; epoch <= epochs; epoch++ {
		d := fit(epoch, 1, nil)
		if d.epoch != epoch {
			t.Errorf("without OOD images epoch %d of %d is taken", d.epoch, epoch)
		}
		if a := auroc(d); a >= best {
			best, chosen = a, epoch
		}
	}
	d := fit(epochs, 1, ood)
	if got := auroc(d); d.epoch != chosen || got != best {
		t.Errorf("epoch %d with %v, want %d with %v", d.epoch, got, chosen, best)
	}
	if !slices.Equal(scores(t, d, in), scores(t, fit(epochs, 1, ood), in)) {
		t.Error("the same seed gives other scores")
	}
	if slices.Equal(scores(t, d, in), scores(t, fit(epochs, 2, ood), in)) {
		t.Error("another seed gives the same scores")
	}
	none, err := New("opengan", toySettings())
	if err != nil {
		t.Fatal(err)
	}
	if err := none.Begin(r.network()); err != nil {
		t.Fatal(err)
	}
	if err := none.Fit(train); err != nil {
		t.Fatal(err)
	}
	if err := none.(OODValidationFitter).FitOODValidation(ood); err != nil {
		t.Fatal(err)
	}
	if err := none.End(); err == nil || !strings.Contains(err.Error(), "no ID ones") {
		t.Errorf("OOD validation images without ID ones: %v", err)
	}
}

// A file of sizes that would take terabytes is refused before anything is allocated.
func TestOpenGANOfHugeSizes(t *testing.T) {
	one := func(name string, v int64) safetensors.Tensor { return safetensors.Int64(name, []int{1}, []int64{v}) }
	path := filepath.Join(t.TempDir(), "huge")
	meta := map[string]string{
		"format": fileFormat, "version": fileVersion, "detector": "opengan", "settings": `{"params":{"opengan.width":4096}}`,
	}
	if err := safetensors.Write(path, []safetensors.Tensor{one("classes", 2), one("features", maxCount), one("epoch", 1)}, meta); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(path); err == nil || !strings.Contains(err.Error(), "discriminator.0.weight") {
		t.Errorf("%v, want an error about discriminator.0.weight", err)
	}
}

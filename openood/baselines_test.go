package openood

import (
	"math"
	"slices"
	"testing"

	"nac/detector"
	"nac/metric"
)

// recorder is a detector that keeps what it is given, so that baselines can be
// fitted on other images than nac was without running the network again.
type recorder struct {
	detector.Detector
	train, scored recorded
}

type recorded struct {
	logits, features []float32
	labels           []int
}

func (r *recorded) add(in *detector.Inputs) {
	r.logits, r.features = append(r.logits, in.Logits...), append(r.features, in.Feature...)
	r.labels = append(r.labels, in.Labels...)
}

// part returns the next n images.
func (r *recorded) part(n int, of detector.Network) *recorded {
	p := &recorded{logits: r.logits[:n*of.Classes], features: r.features[:n*of.Features]}
	r.logits, r.features = r.logits[n*of.Classes:], r.features[n*of.Features:]
	return p
}

// batches calls f for batches of images.
func (r *recorded) batches(of detector.Network, f func(in *detector.Inputs) error) error {
	n := len(r.logits) / of.Classes
	for from := 0; from < n; from += 64 {
		to := min(from+64, n)
		in := &detector.Inputs{
			N: to - from, Logits: r.logits[from*of.Classes : to*of.Classes], Feature: r.features[from*of.Features : to*of.Features],
		}
		if r.labels != nil {
			in.Labels = r.labels[from:to]
		}
		if err := f(in); err != nil {
			return err
		}
	}
	return nil
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	d, err := detector.New("msp", detector.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return &recorder{Detector: d}
}

func (r *recorder) Fit(in *detector.Inputs) error {
	r.train.add(in)
	return r.Detector.Fit(in)
}

func (r *recorder) Score(in *detector.Inputs, dst []float64) error {
	r.scored.add(in)
	return r.Detector.Score(in, dst)
}

// compareBaselines fits each method on main_train and sub_train together, as the
// reference's were, and compares its table.
func compareBaselines(t *testing.T, r *recorder, network detector.Network, report *Report, want realTables) {
	t.Helper()
	sets := map[string]*recorded{}
	for _, s := range report.Scores {
		sets[s.Set] = r.scored.part(len(s.Labels), network)
		sets[s.Set].labels = s.Labels
	}
	train := &recorded{
		logits:   slices.Concat(r.train.logits, sets["sub_train"].logits),
		features: slices.Concat(r.train.features, sets["sub_train"].features),
		labels:   slices.Concat(r.train.labels, sets["sub_train"].labels),
	}
	settings := detector.Settings{Params: map[string]float64{"vim.dim": 32, "dice.p": 90, "react.percentile": 90, "knn.K": 50}}
	worst := 0.0
	for _, key := range []string{"temp_scaling", "knn", "mds", "rmds", "vim", "react", "dice", "klm", "she", "gradnorm"} {
		d, err := detector.New(key, settings)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Begin(network); err != nil {
			t.Fatal(err)
		}
		if err := train.batches(network, d.Fit); err != nil {
			t.Fatal(err)
		}
		if v, ok := d.(detector.ValidationFitter); ok {
			if err := sets["val"].batches(network, v.FitValidation); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		scores := func(set string) (all []float64) {
			if err := sets[set].batches(network, func(in *detector.Inputs) error {
				dst := make([]float64, in.N)
				all = append(all, dst...)
				if err := d.Score(in, dst); err != nil {
					return err
				}
				copy(all[len(all)-in.N:], dst)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return all
		}
		id := scores("test")
		for _, set := range []string{"tin", "mnist", "texture"} {
			got, err := metric.OOD(id, scores(set))
			if err != nil {
				t.Fatal(err)
			}
			ref := want.row(t, key, set)
			off := 100 * max(math.Abs(got.AUROC-ref.AUROC), math.Abs(got.FPR95-ref.FPR95))
			t.Logf("%s on %s: AUROC %.3f (%.3f), FPR@95 %.3f (%.3f)", key, set, 100*got.AUROC, 100*ref.AUROC, 100*got.FPR95, 100*ref.FPR95)
			worst = max(worst, off)
			if !(off <= 0.05) {
				t.Errorf("%s on %s: off by %.3f points", key, set, off)
			}
		}
	}
	t.Logf("baselines: largest difference of an AUROC or FPR@95: %.4f points", worst)
}

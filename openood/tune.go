package openood

import (
	"context"
	"errors"
	"fmt"

	"nac/detector"
	"nac/imageset"
	"nac/metric"
	"nac/probe"
)

// Tuned is what a parameter search found for one method.
type Tuned struct {
	Key      string            `json:"key"`
	Settings detector.Settings `json:"settings"` // the best
	AUROC    float64           `json:"auroc"`    // of the best
	// Trials are in order, that of the settings given first. The first of equal
	// ones is the best.
	Trials []Trial `json:"trials"`
}

// Trial is one of the settings that were compared.
type Trial struct {
	Settings detector.Settings `json:"settings"`
	AUROC    float64           `json:"auroc"`
	// Refused says why a method cannot be fitted or score with them.
	Refused string `json:"refused,omitempty"`
}

// Tune chooses settings as OpenOOD's automatic parameter search does, by the AUROC of
// ID validation images against OOD validation images, for those of the methods that have
// a sweep: see detector.Sweep. open makes the network of what they need; it runs once over the training and validation images,
// and each of them is fitted on and scored by all methods with all their settings.
// Methods for which no settings work keep those given, for Run to say why.
func Tune(ctx context.Context, data *Data, open func(probe.Needs) (Probe, error), keys []string, given detector.Settings, progress Progress) ([]Tuned, error) {
	if data.ValOOD == nil {
		return nil, errors.New("openood: a parameter search needs OOD validation images; there are none")
	}
	r := &runner{ctx: ctx, progress: progress}
	var detectors []detector.Detector
	var all []*tried
	for _, key := range keys {
		variants, err := detector.SweepVariants(key, given)
		if err != nil {
			return nil, err
		}
		for _, v := range variants {
			t := &tried{Detector: v.Detector, key: key, variants: v}
			m := Method{key, t}
			if _, ok := v.Detector.(detector.ValidationFitter); ok {
				m.Detector = triedOnValidation{t}
			}
			all, r.methods, detectors = append(all, t), append(r.methods, m), append(detectors, v.Detector)
		}
	}
	network, err := open(probe.For(detectors...))
	if err != nil {
		return nil, err
	}
	r.network, r.probe = network.Network(), network
	r.cost = make([]MethodCost, len(r.methods))
	if err := r.fit(data); err != nil {
		return nil, err
	}
	for i, set := range []struct {
		name   string
		source Source
	}{{"val", data.Val}, {"val_ood", data.ValOOD}} {
		err := r.each(set.name, detector.Scoring, set.source, nil, func(_ *imageset.Batch, in *detector.Inputs) error {
			if err := finite(in.Logits); err != nil {
				return err
			}
			for _, t := range all {
				t.score(i, in)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var found []Tuned
	for _, t := range all {
		if len(found) == 0 || found[len(found)-1].Key != t.key {
			found = append(found, Tuned{Key: t.key, Settings: given, AUROC: -1})
		}
		f := &found[len(found)-1]
		for i, s := range t.variants.Settings {
			trial := Trial{Settings: s}
			err := errors.Join(t.err, t.refused[i])
			if err == nil {
				trial.AUROC, err = metric.AUROC(t.scores[0][i], t.scores[1][i])
			}
			if err != nil {
				trial.Refused = err.Error()
			} else if trial.AUROC > f.AUROC {
				f.AUROC, f.Settings = trial.AUROC, s
			}
			f.Trials = append(f.Trials, trial)
		}
	}
	for i := range found {
		found[i].AUROC = max(found[i].AUROC, 0)
	}
	return found, nil
}

// tried is a detector whose failure takes it out of the search and does not stop it.
type tried struct {
	detector.Detector
	key      string
	variants detector.Variants
	err      error          // of fitting
	refused  []error        // of scoring, by settings
	scores   [2][][]float64 // ID and OOD, by settings
}

func (t *tried) do(f func() error) error {
	if t.err == nil {
		t.err = f()
	}
	return nil
}

func (t *tried) Begin(n detector.Network) error {
	t.refused = make([]error, len(t.variants.Settings))
	for i := range t.scores {
		t.scores[i] = make([][]float64, len(t.refused))
	}
	return t.do(func() error { return t.Detector.Begin(n) })
}

func (t *tried) Fit(in *detector.Inputs) error {
	return t.do(func() error { return t.Detector.Fit(in) })
}

func (t *tried) End() error { return t.do(t.Detector.End) }

// score adds the scores of a batch of the ID (0) or OOD (1) images with all settings.
func (t *tried) score(which int, in *detector.Inputs) {
	for i := range t.refused {
		if t.err != nil || t.refused[i] != nil {
			continue
		}
		t.variants.Use(i)
		s := &t.scores[which][i]
		at := len(*s)
		*s = append(*s, make([]float64, in.N)...)
		if err := t.Detector.Score(in, (*s)[at:]); err != nil {
			t.refused[i] = fmt.Errorf("openood: %w", err)
		}
	}
}

// triedOnValidation is one that learns from validation images.
type triedOnValidation struct{ *tried }

func (t triedOnValidation) FitValidation(in *detector.Inputs) error {
	return t.do(func() error { return t.Detector.(detector.ValidationFitter).FitValidation(in) })
}

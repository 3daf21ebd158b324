package openood

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nac/detector"
	"nac/metric"
	"nac/probe"
)

// linear is a network of one linear layer: images are their own features.
type linear struct {
	detector.Network
	runs int // images that went through
}

func newLinear(classes, features int, random *rand.Rand) *linear {
	l := &linear{Network: detector.Network{Classes: classes, Features: features, Bias: make([]float32, classes)}}
	for range classes * features {
		l.Weight = append(l.Weight, float32(random.NormFloat64()))
	}
	return l
}

func (l *linear) Run(images []float32, n int, _ detector.Phase) (*detector.Inputs, error) {
	l.runs += n
	b := &detector.Inputs{N: n, Feature: images}
	for i := range n {
		for k := range l.Classes {
			sum := float32(0)
			for f := range l.Features {
				sum += l.Weight[k*l.Features+f] * images[i*l.Features+f]
			}
			b.Logits = append(b.Logits, sum)
		}
	}
	return b, nil
}

func (*linear) MemoryBytes() int64 { return 0 }

func (*linear) Needs(detector.Phase) detector.Needs { return detector.Needs{} }

// prober is a linear as a Probe.
type prober struct{ *linear }

func (p prober) Network() detector.Network { return p.linear.Network }

// images are n features near the weights of a class, or of none.
func (l *linear) images(name string, n int, id bool, random *rand.Rand) Source {
	var pixels []float32
	var labels []int
	for i := range n {
		label := i % l.Classes
		labels = append(labels, label)
		for f := range l.Features {
			v := math.Abs(random.NormFloat64())
			if id {
				v += max(0, float64(l.Weight[label*l.Features+f]))
			}
			pixels = append(pixels, float32(v))
		}
		if !id {
			labels[i] = -1
		}
	}
	return Tensors(name, pixels, labels, 32)
}

// A search gives every setting the AUROC that a detector made and fitted with it alone
// has, and runs the network once.
func TestTune(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	l := newLinear(5, 20, random)
	data := &Data{
		Train: l.images("train", 120, true, random), Val: l.images("val", 60, true, random),
		ValOOD: l.images("val_ood", 60, false, random),
	}
	var keys []string
	settings := 0
	for _, m := range detector.Methods() {
		if slices.ContainsFunc(m.Params, func(p detector.Param) bool { return len(p.Sweep) > 0 && m.Key != "nnguide" }) {
			d, err := detector.New(m.Key, detector.Settings{})
			if err != nil {
				continue
			}
			if needs := d.Needs(l.Network, detector.Scoring); needs.Images() || len(needs.Layers) > 0 {
				continue // reads layers or further passes, of which this network has none
			}
			keys = append(keys, m.Key)
			settings += len(detector.Sweep(m.Key, detector.Settings{}))
		}
	}
	for _, key := range []string{"knn", "react", "dice", "gen", "ash", "scale", "vim"} {
		if !slices.Contains(keys, key) {
			t.Errorf("%s has no sweep", key)
		}
	}
	open := func(probe.Needs) (Probe, error) { return prober{l}, nil }
	found, err := Tune(t.Context(), data, open, keys, detector.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The validation images twice: some methods learn from them.
	if want := 120 + 60 + 60 + 60; l.runs != want {
		t.Errorf("the network ran on %d images, want %d for %d settings", l.runs, want, settings)
	}
	if len(found) != len(keys) {
		t.Fatalf("%d methods, want %d", len(found), len(keys))
	}
	batch := func(s Source) *detector.Inputs {
		src := s.(*tensors)
		in, _ := l.Run(src.images, len(src.labels), detector.Fitting)
		in.Labels = src.labels
		return in
	}
	train, val, ood := batch(data.Train), batch(data.Val), batch(data.ValOOD)
	for i, f := range found {
		if f.Key != keys[i] {
			t.Fatalf("%s in the place of %s", f.Key, keys[i])
		}
		sweep := detector.Sweep(f.Key, detector.Settings{})
		best := 0.0
		for _, trial := range f.Trials {
			want := alone(f.Key, trial.Settings, l.Network, train, val, ood)
			switch {
			case (want < 0) != (trial.Refused != ""):
				t.Errorf("%s %v: refused %q, alone it has %v", f.Key, trial.Settings.Params, trial.Refused, want)
			case want >= 0 && trial.AUROC != want:
				t.Errorf("%s %v: %v, alone it has %v", f.Key, trial.Settings.Params, trial.AUROC, want)
			}
			best = max(best, want)
		}
		if f.AUROC != best || len(f.Trials) == 0 {
			t.Errorf("%s: the best of %d is %v, want %v", f.Key, len(f.Trials), f.AUROC, best)
		}
		if len(f.Trials) > len(sweep) {
			t.Errorf("%s: %d settings were tried, of %d", f.Key, len(f.Trials), len(sweep))
		}
		if f.Key == "knn" {
			refused := 0
			for _, trial := range f.Trials {
				if strings.Contains(trial.Refused, "there are only 120 training images") {
					refused++
				}
			}
			if refused != 3 { // 200, 500, 1000
				t.Errorf("knn: %d settings are refused, want 3", refused)
			}
		}
	}
	data.ValOOD = nil
	if _, err := Tune(t.Context(), data, open, keys, detector.Settings{}, nil); err == nil || !strings.Contains(err.Error(), "OOD validation images") {
		t.Errorf("without OOD validation images: %v", err)
	}
}

// alone is the AUROC of a detector with some settings, -1 if there is none.
func alone(key string, s detector.Settings, n detector.Network, train, val, ood *detector.Inputs) float64 {
	d, err := detector.New(key, s)
	if err != nil || d.Begin(n) != nil || d.Fit(train) != nil {
		return -1
	}
	if v, ok := d.(detector.ValidationFitter); ok && v.FitValidation(val) != nil {
		return -1
	}
	if d.End() != nil {
		return -1
	}
	a, b := make([]float64, val.N), make([]float64, ood.N)
	if d.Score(val, a) != nil || d.Score(ood, b) != nil {
		return -1
	}
	auroc, err := metric.AUROC(a, b)
	if err != nil {
		return -1
	}
	return auroc
}

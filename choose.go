package nac

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
)

// The rule for nac's settings, which reads ID images alone: alpha is the reciprocal
// of the standard deviation of z*g over a layer's neurons and images, so that
// sigmoid(alpha*z*g) spreads over the bins whatever the network's scale; M = 50; O is
// 3 % of the images. With OOD images to choose by, its neighbours are tried too.
const (
	ruleM         = 50
	ruleO         = 0.03
	keptImages    = 2000
	keptBytes     = 256 << 20
	mostCandidate = 64
)

var (
	triedAlphas = []float64{0.1, 0.3, 1, 3, 10} // times the rule's
	triedO      = []float64{0.01, 0.03, 0.1}    // of the images
)

// candidates makes the detectors that are to be fitted: one, or all that are
// compared on OOD validation images.
func (f *fitter) candidates() error {
	settings := []detector.Settings{f.o.Settings}
	compare := len(f.valOOD.Items) > 0
	switch {
	case f.asGiven:
	case f.rules():
		scales, err := f.scales()
		if err != nil {
			return err
		}
		settings = f.nacSettings(scales, compare)
	case compare && f.o.Detector == "nac_auto":
		settings = nil
		for _, o := range triedO {
			s := f.o.Settings
			s.Params = maps.Clone(s.Params)
			if s.Params == nil {
				s.Params = map[string]float64{}
			}
			s.Params["nac_auto.O"] = 100 * o
			settings = append(settings, s)
		}
	case compare:
		settings = detector.Sweep(f.o.Detector, f.o.Settings)
		settings = settings[:min(len(settings), mostCandidate)]
	}
	for _, s := range settings {
		d, err := detector.New(f.o.Detector, s)
		if err != nil {
			return err
		}
		f.fitting = append(f.fitting, d)
	}
	return nil
}

// rules tells whether the settings are to be found by the rule.
func (f *fitter) rules() bool { return f.o.Detector == "nac" && len(f.o.Settings.Layers) == 0 }

// anySettings are settings with which the detector can be made, to ask what it is.
func (f *fitter) anySettings() detector.Settings {
	s := f.o.Settings
	if f.rules() {
		s.Layers = []coverage.LayerSettings{{Layer: "any", M: ruleM, O: 1, Alpha: 1}}
	}
	return s
}

// scale is the standard deviation of z*g in a layer.
type scale struct {
	layer string
	std   float64
}

// scales runs the network over the first training images, which are chosen at
// random, and keeps what it yields.
func (f *fitter) scales() ([]scale, error) {
	layers := f.o.Layers
	if len(layers) == 0 {
		return nil, fmt.Errorf("nac: no layer of %s suggests itself; name some", f.model.info.Name)
	}
	perImage := f.network.Classes + f.network.Features
	for i, l := range layers {
		if slices.Contains(layers[:i], l) {
			return nil, fmt.Errorf("nac: layer %s is named twice", l)
		}
		layer, err := f.model.network.Layer(l)
		if err != nil {
			return nil, err
		}
		perImage += 2 * layer.Channels
	}
	e, err := f.engine(detector.Fitting, func(detector.Network, detector.Phase) detector.Needs {
		return detector.Needs{Layers: layers, Gradients: true}
	})
	if err != nil {
		return nil, err
	}
	f.keptN = min(len(f.train.Items), keptImages, max(batchImages, keptBytes/(4*perImage)))
	sums := make([]moments, len(layers))
	err = f.pass("scales", f.train.upTo(f.keptN), e, func(_ *imageset.Batch, in *detector.Inputs) error {
		for i, s := range in.States {
			for k, z := range s.Z {
				sums[i].add(float64(z * s.G[k]))
			}
		}
		f.kept = append(f.kept, clone(in))
		return nil
	})
	if err != nil {
		return nil, err
	}
	var scales []scale
	for i, l := range layers {
		// A layer that never changes tells nothing, and has no scale.
		if std := sums[i].std(); std > 0 && !math.IsInf(1/std, 0) && !math.IsInf(std, 0) {
			scales = append(scales, scale{l, std})
		}
	}
	if len(scales) == 0 {
		return nil, fmt.Errorf("nac: no neuron of the layers %v changes from image to image", layers)
	}
	return scales, nil
}

// moments add up numbers in float64 (Welford, "Note on a Method for Calculating
// Corrected Sums of Squares and Products", 1962).
type moments struct{ n, mean, squares float64 }

func (m *moments) add(x float64) {
	m.n++
	d := x - m.mean
	m.mean += d / m.n
	m.squares += d * (x - m.mean)
}

func (m *moments) std() float64 { return math.Sqrt(m.squares / m.n) }

// clone copies what a network yielded, which the next run overwrites.
func clone(in *detector.Inputs) *detector.Inputs {
	c := &detector.Inputs{
		N: in.N, Logits: slices.Clone(in.Logits), Feature: slices.Clone(in.Feature), Labels: slices.Clone(in.Labels),
	}
	for _, s := range in.States {
		c.States = append(c.States, coverage.States{Layer: s.Layer, Z: slices.Clone(s.Z), G: slices.Clone(s.G)})
	}
	return c
}

// nacSettings are the rule's, and to compare also its neighbours: other alphas, other
// O, and the deepest layers alone.
func (f *fitter) nacSettings(scales []scale, compare bool) (all []detector.Settings) {
	make := func(scales []scale, alpha, o float64) {
		var s detector.Settings
		for _, l := range scales {
			s.Layers = append(s.Layers, coverage.LayerSettings{
				Layer: l.layer, M: ruleM, O: max(1, int(math.Round(o*float64(len(f.train.Items))))), Alpha: alpha / l.std,
			})
		}
		all = append(all, s)
	}
	make(scales, 1, ruleO)
	if !compare {
		return all
	}
	for n := len(scales); n > 0; n-- {
		for _, a := range triedAlphas {
			for _, o := range triedO {
				if n < len(scales) || a != 1 || o != ruleO {
					make(scales[:n], a, o)
				}
			}
		}
	}
	return all
}

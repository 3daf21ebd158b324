package detector

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"nac/internal/safetensors"
)

// fusion adds the scores of several detectors, each standardised by its mean and
// standard deviation over ID training images that none of them was fitted on. Methods
// on early layers are strong where an image is far from all ID ones, methods on logits
// and features where it is near; a sum of standardised scores keeps both, because far
// images lie tens of standard deviations out (after Magesh et al., "CombOOD", 2024,
// which combines statistics of near and far). docs/nac-auto.md tells how the parts were
// chosen.
type fusion struct {
	params
	keys  []string
	parts []Detector

	phase     phase
	network   Network
	sample    sample
	held      []heldOut
	fitted    int // images that the parts were given
	mean, std []float64
}

// heldOut is an image that the parts are not fitted on.
type heldOut struct {
	priority uint64
	in       *Inputs
}

// FusionParts are the parts of nac_fusion unless Settings.Fusion names others.
var FusionParts = []string{"vim", "ebo", "rmds", "mds_layers"}

const fusionKey = "nac_fusion"

var nacFusionParams = []Param{
	{Name: "images", About: "training images held out to standardise the parts' scores, at most", Default: 1000, Min: 2, Max: 1 << 20, Whole: true},
	{Name: "share", About: "share of the training images held out, as long as they are not more than that, in percent", Default: 20, Min: 1, Max: 90},
}

var _ = register(Method{
	Key: fusionKey, About: "standardised scores of several detectors added: early layers for far-OOD, others for near-OOD",
	Paper: "after Magesh, 2024", Params: nacFusionParams, make: newFusion,
})

func newFusion(p params) (Detector, error) {
	d := &fusion{params: p, keys: p.all.Fusion}
	if len(d.keys) == 0 {
		d.keys = FusionParts
	}
	learns := false
	for i, key := range d.keys {
		if key == fusionKey || slices.Contains(d.keys[:i], key) {
			return nil, d.errorf("%s cannot be a part, or is one twice", key)
		}
		part, err := New(key, p.all)
		if err != nil {
			return nil, d.errorf("%w", err)
		}
		d.parts = append(d.parts, part)
		_, validation := part.(ValidationFitter)
		learns = learns || validation
	}
	if learns {
		return &fusionWithValidation{d}, nil
	}
	return d, nil
}

// fusionWithValidation is a fusion of which a part learns from validation images.
type fusionWithValidation struct{ *fusion }

func (d *fusionWithValidation) FitValidation(in *Inputs) error {
	for _, p := range d.parts {
		if v, ok := p.(ValidationFitter); ok {
			if err := v.FitValidation(in); err != nil {
				return d.errorf("%w", err)
			}
		}
	}
	return nil
}

func (d *fusion) errorf(format string, args ...any) error {
	return fmt.Errorf("detector: %s: %w", fusionKey, fmt.Errorf(format, args...))
}

// Settings returns those of all parts too.
func (d *fusion) Settings() Settings {
	s := d.params.settings()
	s.Fusion = d.keys
	for _, p := range d.parts {
		of := p.Settings()
		maps.Copy(s.Params, of.Params)
		if of.Layers != nil {
			s.Layers = of.Layers
		}
		if of.LayerNames != nil {
			s.LayerNames = of.LayerNames
		}
		if of.Temperature != 0 {
			s.Temperature = of.Temperature
		}
	}
	return s
}

// Needs has what any phase reads in all of them: images that are held out are scored
// when fitting ends. Which they are is not known before, so that further passes of the
// network that a part needs are made over all training images.
func (d *fusion) Needs(n Network, _ Phase) Needs {
	var all Needs
	for p := range Phases {
		all.add(Union(d.parts, n, Phase(p)))
	}
	return all
}

func (d *fusion) Begin(n Network) error {
	d.phase = fresh
	for i, p := range d.parts {
		for _, f := range p.Needs(n, Scoring).Passes {
			if _, later := f.Pass.Loss.(fittedLoss); later {
				return d.errorf("%s cannot be a part: images that are held out would have to be moved by what fitting is yet to find", d.keys[i])
			}
		}
		if err := p.Begin(n); err != nil {
			return d.errorf("%w", err)
		}
	}
	d.network, d.held, d.fitted, d.phase = n, nil, 0, begun
	d.sample = newSample(d.int("images"), d.float("share")/100)
	return nil
}

func (d *fusion) Fit(in *Inputs) error {
	if d.phase != begun {
		return d.errorf("Fit outside of Begin and End")
	}
	if err := d.check(in); err != nil {
		return err
	}
	from := 0
	for i := range in.N {
		priority, take := d.sample.next()
		if !take {
			continue
		}
		if err := d.fit(in.Rows(from, i)); err != nil {
			return err
		}
		from = i + 1
		d.held = append(d.held, heldOut{priority, in.Rows(i, i+1).clone()})
		for d.sample.full() {
			if err := d.release(); err != nil {
				return err
			}
		}
	}
	return d.fit(in.Rows(from, in.N))
}

// check makes sure that a batch can be cut into rows.
func (d *fusion) check(in *Inputs) error {
	if err := rows("logits", in.Logits, in.N, d.network.Classes); err != nil {
		return d.errorf("%w", err)
	}
	if err := rows("features", in.Feature, in.N, d.network.Features); err != nil {
		return d.errorf("%w", err)
	}
	if in.Labels != nil && len(in.Labels) < in.N {
		return d.errorf("%d labels for %d images", len(in.Labels), in.N)
	}
	for _, s := range in.States {
		if c := d.network.Channels[s.Layer]; len(s.Z) < in.N*c || len(s.G) > 0 && len(s.G) < in.N*c {
			return d.errorf("the states of layer %q are too few for %d images", s.Layer, in.N)
		}
	}
	return nil
}

func (d *fusion) fit(in *Inputs) error {
	if in.N == 0 {
		return nil
	}
	d.fitted += in.N
	for _, p := range d.parts {
		if err := p.Fit(in); err != nil {
			return d.errorf("%w", err)
		}
	}
	return nil
}

// release gives about half of the images held out to the parts.
func (d *fusion) release() error {
	d.sample.halve()
	kept := d.held[:0]
	for _, h := range d.held {
		if d.sample.holds(h.priority) {
			kept = append(kept, h)
		} else if err := d.fit(h.in); err != nil {
			return err
		}
	}
	clear(d.held[len(kept):])
	d.held = kept
	return nil
}

func (d *fusion) End() error {
	if d.phase != begun {
		return d.errorf("End without Begin")
	}
	d.phase = fresh
	if d.fitted == 0 || len(d.held) < 2 {
		return d.errorf("%d training images, of which %d are held out, are too few: it takes at least 2 to hold out, better 200",
			d.fitted+len(d.held), len(d.held))
	}
	d.mean, d.std = nil, nil
	for i, p := range d.parts {
		if err := p.End(); err != nil {
			return d.errorf("%w", err)
		}
		scores := make([]float64, len(d.held))
		for j, h := range d.held {
			if err := p.Score(h.in, scores[j:]); err != nil {
				return d.errorf("%w", err)
			}
		}
		mean, std, err := spreadOf(scores)
		if err != nil {
			return d.errorf("the score of %s %w", d.keys[i], err)
		}
		d.mean, d.std = append(d.mean, mean), append(d.std, std)
	}
	d.held, d.phase = nil, ended
	return nil
}

func (d *fusion) Score(in *Inputs, dst []float64) error {
	if d.phase != ended {
		return d.errorf("%w", ErrUnfitted)
	}
	if len(dst) < in.N {
		return d.errorf("room for %d scores of %d images", len(dst), in.N)
	}
	dst = dst[:in.N]
	clear(dst)
	scores := make([]float64, in.N)
	for i, p := range d.parts {
		if err := p.Score(in, scores); err != nil {
			return d.errorf("%w", err)
		}
		for j, s := range scores {
			dst[j] += (s - d.mean[i]) / d.std[i]
		}
	}
	return nil
}

func (d *fusion) tensors() ([]safetensors.Tensor, error) {
	if d.phase != ended {
		return nil, ErrUnfitted
	}
	s := &storage{saving: true}
	d.store(s)
	for i, p := range d.parts {
		found, err := p.tensors()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.keys[i], err)
		}
		for _, t := range found {
			t.Name = d.keys[i] + "." + t.Name
			s.tensors = append(s.tensors, t)
		}
	}
	return s.tensors, s.err
}

func (d *fusion) restore(f *safetensors.File) error {
	s := &storage{file: f}
	d.store(s)
	if s.err != nil {
		return s.err
	}
	for i, p := range d.parts {
		if err := p.restore(f.Below(d.keys[i] + ".")); err != nil {
			return fmt.Errorf("%s: %w", d.keys[i], err)
		}
	}
	d.phase = ended
	return nil
}

func (d *fusion) store(s *storage) {
	s.float64s("mean", &d.mean, len(d.parts))
	s.float64s("std", &d.std, len(d.parts))
	if s.err == nil && slices.ContainsFunc(d.std, func(v float64) bool { return !(v > 0) }) {
		s.fail(fmt.Errorf("std of %s is %v; all must be above 0", strings.Join(d.keys, ", "), d.std))
	}
}

func (in *Inputs) clone() *Inputs {
	out := *in
	out.Logits, out.Feature, out.Labels = slices.Clone(in.Logits), slices.Clone(in.Feature), slices.Clone(in.Labels)
	out.States, out.Maps = slices.Clone(in.States), slices.Clone(in.Maps)
	for i, s := range in.States {
		out.States[i].Z, out.States[i].G = slices.Clone(s.Z), slices.Clone(s.G)
	}
	for i, m := range in.Maps {
		out.Maps[i].Values = slices.Clone(m.Values)
	}
	out.Passes = slices.Clone(in.Passes)
	for i, p := range in.Passes {
		out.Passes[i].Inputs = p.Inputs.clone()
	}
	return &out
}

package detector

import (
	"errors"
	"fmt"

	"nac/coverage"
	"nac/internal/safetensors"
)

// nac is NAC-UE (Liu et al., "Neuron Activation Coverage: Rethinking
// Out-of-distribution Detection and Generalization", ICLR 2024): the share of a
// layer's neurons whose state falls where ID training images put it, mean over
// layers. See package coverage.
type nac struct {
	settings []coverage.LayerSettings
	coverage *coverage.Coverage
	fitted   bool
}

var _ = register(Method{
	Key: "nac", About: "neuron activation coverage (NAC-UE)", Paper: "Liu, ICLR 2024",
	make: newNAC,
})

func newNAC(p params) (Detector, error) {
	if len(p.all.Layers) == 0 {
		return nil, errors.New("detector: nac: no layers are set")
	}
	seen := map[string]bool{}
	for _, l := range p.all.Layers {
		if err := l.Validate(); err != nil {
			return nil, fmt.Errorf("detector: nac: %w", err)
		}
		if seen[l.Layer] {
			return nil, fmt.Errorf("detector: nac: layer %q is set twice", l.Layer)
		}
		seen[l.Layer] = true
	}
	return &nac{settings: p.all.Layers}, nil
}

func (d *nac) Needs(Network, Phase) Needs {
	var n Needs
	for _, l := range d.settings {
		n.Layers = append(n.Layers, l.Layer)
		n.Gradients = n.Gradients || l.Func.UsesGradient()
	}
	return n
}

func (d *nac) Begin(n Network) error {
	c, err := coverage.New(d.settings, n.Channels)
	if err != nil {
		return fmt.Errorf("detector: nac: %w", err)
	}
	d.coverage, d.fitted = c, false
	return nil
}

func (d *nac) Fit(in *Inputs) error {
	if d.coverage == nil || d.fitted {
		return errors.New("detector: nac: Fit outside of Begin and End")
	}
	if err := d.coverage.Add(in.States, in.N); err != nil {
		return fmt.Errorf("detector: nac: %w", err)
	}
	return nil
}

func (d *nac) End() error {
	if d.coverage == nil || d.coverage.Samples() == 0 {
		return errors.New("detector: nac: no training images to cover")
	}
	d.fitted = true
	return nil
}

func (d *nac) Score(in *Inputs, dst []float64) error {
	if !d.fitted {
		return fmt.Errorf("detector: nac: %w", ErrUnfitted)
	}
	if len(dst) < in.N {
		return fmt.Errorf("detector: nac: room for %d scores of %d images", len(dst), in.N)
	}
	scores := make([]float32, in.N)
	if err := d.coverage.Score(in.States, in.N, scores); err != nil {
		return fmt.Errorf("detector: nac: %w", err)
	}
	for i, s := range scores {
		dst[i] = float64(s)
	}
	return nil
}

func (d *nac) Settings() Settings { return Settings{Layers: d.settings} }

func (d *nac) tensors() ([]safetensors.Tensor, error) {
	if !d.fitted {
		return nil, ErrUnfitted
	}
	tensors, layers, err := d.coverage.Tensors()
	return append(tensors, safetensors.Uint8("layers", []int{len(layers)}, []byte(layers))), err
}

func (d *nac) restore(f *safetensors.File) error {
	layers, _, err := f.Uint8s("layers")
	if err != nil {
		return err
	}
	c, err := coverage.FromTensors(f, string(layers))
	if err != nil {
		return err
	}
	d.coverage, d.settings, d.fitted = c, c.Settings(), true
	return nil
}

// Coverage returns what was counted; see Covered.
func (d *nac) Coverage() *coverage.Coverage { return d.coverage }

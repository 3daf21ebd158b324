package detector

import (
	"fmt"

	"nac/coverage"
)

// NeuronCoverage is how far ID training images cover the states of a layer's neurons
// for each image of a batch, a row of Channels values for each.
type NeuronCoverage struct {
	// Layer is the layer's name, or responseLayer.
	Layer    string
	Channels int
	// Feature tells that the neurons are those of the penultimate feature.
	Feature bool
	// Covered is 1 where enough training images had such a state, 0 where none had.
	Covered []float32
	// Bins are those of the states, -1 for none; nil if the method has no bins there.
	Bins []int32
}

// responseLayer stands for the response of the penultimate feature to the KL gradient.
const responseLayer = "response"

// Explainer is a Detector that measures coverage neuron by neuron.
type Explainer interface {
	Detector
	// Neurons returns the coverage of each layer's neurons. It may be called by many
	// goroutines at once.
	Neurons(in *Inputs) ([]NeuronCoverage, error)
	// Binned returns the layers that have bins, in the order of Neurons. They are the
	// detector's own.
	Binned() []*coverage.Layer
}

func (d *nac) Binned() []*coverage.Layer { return d.coverage.Layers }

func (d *nac) Neurons(in *Inputs) ([]NeuronCoverage, error) {
	if !d.fitted {
		return nil, fmt.Errorf("detector: nac: %w", ErrUnfitted)
	}
	all := make([]NeuronCoverage, len(d.coverage.Layers))
	for i, l := range d.coverage.Layers {
		var z, g []float32
		for _, s := range in.States {
			if s.Layer == l.Settings().Layer {
				z, g = s.Z, s.G
			}
		}
		if err := all[i].cover(l, z, g, in.N); err != nil {
			return nil, fmt.Errorf("detector: nac: %w", err)
		}
	}
	return all, nil
}

// cover fills in what a layer with bins says.
func (c *NeuronCoverage) cover(l *coverage.Layer, z, g []float32, n int) error {
	*c = NeuronCoverage{
		Layer: l.Settings().Layer, Channels: l.Channels(),
		Covered: make([]float32, n*l.Channels()), Bins: make([]int32, n*l.Channels()),
	}
	if err := l.ScoreNeurons(z, g, n, c.Covered); err != nil {
		return err
	}
	return l.Bins(z, g, n, c.Bins)
}

func (d *nacAuto) Binned() []*coverage.Layer { return []*coverage.Layer{d.response} }

// Neurons has the response first, then the tails.
func (d *nacAuto) Neurons(in *Inputs) ([]NeuronCoverage, error) {
	if err := d.scoring(in, make([]float64, in.N)); err != nil {
		return nil, err
	}
	all := make([]NeuronCoverage, 1, 1+len(d.layers))
	if err := all[0].cover(d.response, d.responses(in), nil, in.N); err != nil {
		return nil, d.errorf("%w", err)
	}
	all[0].Feature = true
	for i := range d.layers {
		l := &d.layers[i]
		if l.feature {
			continue
		}
		z, err := l.activations(in)
		if err != nil {
			return nil, d.errorf("%w", err)
		}
		c := NeuronCoverage{Layer: l.name, Channels: l.channels, Covered: make([]float32, len(z))}
		for k, v := range z {
			at := k % l.channels * d.minSamples
			c.Covered[k] = float32(beyond(l.low[at:][:d.minSamples], l.high[at:][:d.minSamples], v)) / float32(d.minSamples)
		}
		all = append(all, c)
	}
	return all, nil
}

package detector

import (
	"fmt"
	"math"
	"slices"
)

// pooledLayer is a layer whose pooled activations a method reads beside the feature.
// One whose activations are the feature itself, up to a factor, is told from others.
type pooledLayer struct {
	name     string
	channels int
	feature  bool // so far, activations are the feature times ratio
	ratio    float64
}

// pooledLayers returns the layers of the settings.
func (f *fitting) pooledLayers() (layers []pooledLayer, err error) {
	for _, name := range f.all.layerNames() {
		if slices.ContainsFunc(layers, func(l pooledLayer) bool { return l.name == name }) {
			return nil, f.errorf("layer %q is set twice", name)
		}
		layers = append(layers, pooledLayer{name: name})
	}
	if len(layers) == 0 {
		return nil, f.errorf("no layers are set")
	}
	return layers, nil
}

func (l *pooledLayer) begin(n Network) error {
	if l.channels = n.Channels[l.name]; l.channels < 1 {
		return fmt.Errorf("the network has no layer %q", l.name)
	}
	l.feature, l.ratio = l.channels == n.Features, 0
	return nil
}

// activations finds the activations of the layer in a batch.
func (l *pooledLayer) activations(in *Inputs) ([]float32, error) {
	for _, s := range in.States {
		if s.Layer != l.name {
			continue
		}
		if err := rows("activations of layer "+l.name, s.Z, in.N, l.channels); err != nil {
			return nil, err
		}
		return s.Z, nil
	}
	return nil, fmt.Errorf("the states of layer %q are missing", l.name)
}

// compare sees whether an image's activations are the feature times a number that
// is the same for all images.
func (l *pooledLayer) compare(activations, feature []float32) {
	if !l.feature {
		return
	}
	product, square, largest := 0.0, 0.0, 0.0
	for i, a := range activations {
		product += float64(a) * float64(feature[i])
		square += float64(feature[i]) * float64(feature[i])
		largest = max(largest, math.Abs(float64(a)))
	}
	if l.ratio == 0 && square > 0 {
		l.ratio = product / square
	}
	for i, a := range activations {
		if math.Abs(float64(a)-l.ratio*float64(feature[i])) > 1e-3*largest {
			l.feature = false
		}
	}
}

func (l *pooledLayer) store(s *storage) {
	s.count(l.name+".neurons", &l.channels)
	feature := 0.0
	if l.feature {
		feature = 1
	}
	s.number(l.name+".is_feature", &feature)
	l.feature = feature != 0
}

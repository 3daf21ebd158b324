package arch

import (
	"fmt"

	"nac/nn"
)

// Activations computes whole activations of one image at a time. It is not for
// concurrent use.
type Activations struct {
	model   *Model
	layers  []Layer
	session *nn.Session
}

// NewActivations plans the forward pass to the named layers. For a layer that is the
// mean over space of another, that other is computed: it has the same channels.
// The empty name stands for the penultimate feature.
func (m *Model) NewActivations(names []string) (*Activations, error) {
	a := &Activations{model: m}
	var want nn.Want
	for _, name := range names {
		node := m.feature
		if name != "" {
			i, err := m.layer(name)
			if err != nil {
				return nil, err
			}
			node = m.nodes[i]
		}
		for _, spatial := range m.nodes {
			if node.Averages(spatial) {
				node = spatial
				break
			}
		}
		s := node.Shape()
		a.layers = append(a.layers, Layer{Name: name, Channels: s.C, Height: s.H, Width: s.W})
		want.Maps = append(want.Maps, nn.Map{Node: node, Size: s.C * s.H * s.W, Reduce: func(activation, dst []float32) { copy(dst, activation) }})
	}
	program, err := nn.Compile(m.graph, want, nn.Options{MaxBatch: 1})
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", m.Name, err)
	}
	a.session = program.NewSession()
	return a, nil
}

// Layers describes what Run returns, in the order of the names.
func (a *Activations) Layers() []Layer { return a.layers }

// Run computes an image, given as to [Extractor.Run]. It returns for each layer
// Height×Width pixels of Channels values, valid until the next run.
func (a *Activations) Run(image []float32) ([][]float32, error) {
	r, err := a.session.Run(image, 1)
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", a.model.Name, err)
	}
	return r.Maps, nil
}

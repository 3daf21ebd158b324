package arch

import (
	"fmt"

	"nac/nn"
)

// Extractor computes logits, penultimate features and pooled neuron states of
// batches of images. Its memory does not grow with the number of batches. It is
// not for concurrent use; a model may have several.
type Extractor struct {
	model   *Model
	layers  []Layer
	program *nn.Program
	session *nn.Session
	batch   Batch
}

// NewExtractor plans the request for batches of at most maxBatch images on the
// given number of workers; 0 means all processors. Asking for no layer yields
// logits and features alone.
func (m *Model) NewExtractor(r Request, maxBatch, workers int) (*Extractor, error) {
	want := nn.Want{Logits: m.logits, Feature: m.feature, Gradients: r.Gradients}
	if r.Bare {
		want.Logits, want.Feature = nil, nil
	}
	e := &Extractor{model: m}
	for _, name := range r.Layers {
		i, err := m.layer(name)
		if err != nil {
			return nil, err
		}
		want.Layers = append(want.Layers, m.nodes[i])
		e.layers = append(e.layers, m.Layers[i])
	}
	for _, a := range r.Maps {
		p, err := m.place(a.Layer)
		if err != nil {
			return nil, err
		}
		want.Maps = append(want.Maps, nn.Map{Node: p.node, Size: a.Size, Reduce: a.Reduce})
	}
	if r.From != "" {
		p, err := m.place(r.From)
		if err != nil {
			return nil, err
		}
		want.From = p.node
	}
	for _, l := range r.Losses {
		node := m.logits
		if l.Layer != "" {
			p, err := m.place(l.Layer)
			if err != nil {
				return nil, err
			}
			node = p.node
		}
		want.Losses = append(want.Losses, nn.Loss{Node: node, Gradient: l.Gradient})
	}
	var err error
	options := nn.Options{Kernel: r.Kernel, MaxBatch: maxBatch, Workers: workers}
	if e.program, err = nn.Compile(m.graph, want, options); err != nil {
		return nil, fmt.Errorf("arch: %s: %w", m.Name, err)
	}
	e.use(e.program.NewSession())
	return e, nil
}

// use makes ready to run in a session.
func (e *Extractor) use(s *nn.Session) {
	e.session, e.batch = s, Batch{States: make([]LayerStates, len(e.layers))}
	for i, l := range e.layers {
		e.batch.States[i].Name, e.batch.States[i].Channels = l.Name, l.Channels
	}
}

// Split returns two extractors that share e's weights and memory and have half of its
// workers each; see [nn.Session.Split], which also says when there are none.
func (e *Extractor) Split() (halves []*Extractor) {
	for _, s := range e.session.Split() {
		half := *e
		half.use(s)
		halves = append(halves, &half)
	}
	return halves
}

// Run computes the first n images, given as float32 NCHW, normalised as the
// checkpoint expects. The result is valid until the next run. What an image
// yields depends neither on the others nor on the number of workers.
func (e *Extractor) Run(images []float32, n int) (*Batch, error) {
	r, err := e.session.Run(images, n)
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", e.model.Name, err)
	}
	b := &e.batch
	b.N, b.Logits, b.Feature = n, r.Logits, r.Feature
	b.Maps, b.InputGradients = r.Maps, r.InputGradients
	for i := range b.States {
		b.States[i].Z = r.Z[i]
		if len(r.G) > 0 {
			b.States[i].G = r.G[i]
		}
	}
	return b, nil
}

// MemoryBytes is what the extractor holds: working memory and packed weights.
func (e *Extractor) MemoryBytes() int64 {
	return e.program.WeightBytes() + e.session.Bytes()
}

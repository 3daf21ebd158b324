package arch

import (
	"errors"
	"fmt"
	"slices"

	"nac/nn"
)

// NamedNode is a layer of a Network.
type NamedNode struct {
	Name string
	Node *nn.Node
}

// Network is a classifier of one's own, built with package nn.
type Network struct {
	Name  string
	Graph *nn.Graph
	// Input is the image, Logits the classes' scores, 1x1.
	Input, Logits *nn.Node
	// Feature is the penultimate feature, 1x1: what the head reads. A network without
	// a linear layer at its end has the logits themselves here.
	Feature *nn.Node
	// Head is the last linear layer; it is empty if there is none.
	Head Head
	// Layers are the places that can be read, from the image on.
	Layers []NamedNode
}

// Model returns the network as a model, for any detector. It checks what it is
// given: the error says what does not fit.
func (n Network) Model() (*Model, error) {
	fail := func(format string, args ...any) (*Model, error) {
		return nil, fmt.Errorf("arch: %s: %w", n.Name, fmt.Errorf(format, args...))
	}
	if n.Graph == nil || n.Input == nil || n.Logits == nil || n.Feature == nil {
		return nil, fmt.Errorf("arch: %s: %w", n.Name, errors.New("want a graph, an input, logits and a feature"))
	}
	in, logits, feature := n.Input.Shape(), n.Logits.Shape(), n.Feature.Shape()
	for _, s := range []nn.Shape{logits, feature} {
		if s.H != 1 || s.W != 1 {
			return fail("logits of %v and a feature of %v: want 1x1", logits, feature)
		}
	}
	if w, b := len(n.Head.Weight), len(n.Head.Bias); w+b > 0 && (w != logits.C*feature.C || b != logits.C) {
		return fail("a head of %d weights and %d biases for %d features and %d classes", w, b, feature.C, logits.C)
	}
	m := &Model{
		Name: n.Name, Classes: logits.C, Features: feature.C, InputSize: [3]int{in.C, in.H, in.W},
		graph: n.Graph, logits: n.Logits, feature: n.Feature, head: n.Head,
	}
	seen := map[string]bool{}
	for _, l := range slices.Backward(n.Layers) {
		if l.Name == "" || l.Node == nil || seen[l.Name] {
			return fail("layer %q has no name or activation, or is there twice", l.Name)
		}
		seen[l.Name] = true
		s := l.Node.Shape()
		m.Layers = append(m.Layers, Layer{Name: l.Name, Channels: s.C, Height: s.H, Width: s.W})
		m.nodes = append(m.nodes, l.Node)
	}
	return m, nil
}

// Package arch holds the classifiers that nac knows by name: it turns a
// checkpoint's tensors into a network, and a network into an extractor of
// logits, penultimate features and pooled neuron states.
//
// One file holds one family; its layer names are those of the NAC reference
// (Liu et al., ICLR 2024), so that published settings apply unchanged.
package arch

import (
	"fmt"
	"strings"
)

// Layer is a place in a network whose activations can be read.
type Layer struct {
	Name string
	// Channels is the number of neurons: a pooled state has one value a channel.
	Channels int
	// Height and Width are the size of the unpooled activation, 1x1 for a
	// pooled feature.
	Height, Width int
}

// Head is the last linear layer: logits = Weight*feature + Bias.
type Head struct {
	Weight []float32 // K×F, row-major
	Bias   []float32 // K
}

// Request says what an Extractor is to compute.
type Request struct {
	// Layers names the layers whose pooled states are wanted, in the order wanted.
	Layers []string
	// Gradients asks for the KL gradients too. Without it only the forward pass
	// runs and LayerStates.G is nil.
	Gradients bool
}

// LayerStates are the pooled states of one layer for a batch.
type LayerStates struct {
	Name     string
	Channels int
	Z        []float32 // N×Channels: activations, pooled as the architecture's rule says
	G        []float32 // N×Channels: gradient of KL(uniform || softmax) with respect to them, pooled alike
}

// Batch is what one run of an Extractor yields.
type Batch struct {
	N       int
	Logits  []float32 // N×K
	Feature []float32 // N×F, the penultimate feature
	States  []LayerStates
}

func unknownLayer(model, name string, layers []Layer) error {
	names := make([]string, len(layers))
	for i, l := range layers {
		names[i] = l.Name
	}
	return fmt.Errorf("arch: %s has no layer %q; its layers are %s", model, name, strings.Join(names, ", "))
}

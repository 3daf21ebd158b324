package arch

import (
	"fmt"

	"nac/nn"
	"nac/weights"
)

// TrainOptions are how a Trainee is trained.
type TrainOptions struct {
	nn.TrainOptions
	// Dropout is the rate at which values of the penultimate feature are dropped.
	Dropout float64
}

// NamedParameter is a parameter with its name in the checkpoint.
type NamedParameter struct {
	Name  string
	Shape []int
	*nn.Parameter
}

// Trainee is a network in training: its outputs are logits and the penultimate
// feature. It writes to the tensors of the checkpoint that it was made of.
type Trainee struct {
	*nn.Training
	Name              string
	Classes, Features int
	InputSize         [3]int
	// Named are the parameters in the checkpoint's order.
	Named []NamedParameter
	// Classifier are weight and bias of the last linear layer.
	Classifier [2]*nn.Parameter

	sd *weights.StateDict
}

// NewTrainee compiles the named architecture for training. sd, whose tensors it
// changes from then on, comes from Init or a file.
func NewTrainee(name string, sd *weights.StateDict, o TrainOptions) (*Trainee, error) {
	b := newBuilder(sd)
	b.dropout = o.Dropout
	if _, err := build(name, b); err != nil {
		return nil, err
	}
	m, err := b.model(name)
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", name, err)
	}
	feature := m.feature
	if b.dropped != nil {
		feature = b.dropped
	}
	t, err := nn.CompileTraining(m.graph, []*nn.Node{m.logits, feature}, o.TrainOptions)
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", name, err)
	}
	n := &Trainee{Training: t, Name: name, Classes: m.Classes, Features: m.Features, InputSize: m.InputSize, sd: sd}
	of := map[*float32]*nn.Parameter{}
	for _, p := range t.Parameters() {
		of[&p.Value[0]] = p
	}
	n.Classifier = [2]*nn.Parameter{of[&m.head.Weight[0]], of[&m.head.Bias[0]]}
	for _, name := range sd.Names() {
		tensor, _ := sd.Lookup(name)
		if len(tensor.Data) == 0 {
			continue
		}
		if p := of[&tensor.Data[0]]; p != nil {
			n.Named = append(n.Named, NamedParameter{name, tensor.Shape, p})
		}
	}
	if len(n.Named) != len(of) {
		return nil, fmt.Errorf("arch: %s: %d parameters, of which %d are the checkpoint's", name, len(of), len(n.Named))
	}
	return n, nil
}

// StateDict is the checkpoint as it stands.
func (t *Trainee) StateDict() *weights.StateDict { return t.sd }

// Logits are those of the last Forward: a row of Classes for each image.
func (t *Trainee) Logits() []float32 { return t.Output(0) }

// Feature is the penultimate feature of the last Forward, behind dropout: a row of
// Features for each image.
func (t *Trainee) Feature() []float32 { return t.Output(1) }

// Model is the network in eval mode with the weights of this moment. Training on
// may change them or not.
func (t *Trainee) Model() (*Model, error) { return Load(t.Name, t.sd) }

package arch

import (
	"fmt"
	"slices"
	"strings"

	"nac/nn"
	"nac/weights"
)

// builder makes a graph from a checkpoint's tensors and notes which it asked
// for, so that a family names each tensor once.
type builder struct {
	sd     *weights.StateDict
	specs  []weights.Spec
	graph  *nn.Graph
	layers []Layer
	nodes  []*nn.Node

	input           nn.Shape
	logits, feature *nn.Node
	head            Head
	foreign         []string // constants that have other values
	stages          []place

	// dropout is the rate at which training drops values of the feature; dropped is what
	// is left of it, nil for all.
	dropout float64
	dropped *nn.Node
	// fresh makes tensors for a new network; nil when there is a checkpoint.
	fresh *initializer
}

func newBuilder(sd *weights.StateDict) *builder {
	return &builder{sd: sd, graph: nn.NewGraph()}
}

// tensor returns the named tensor. One that is missing or wrongly shaped is
// zeros here and an error in model.
func (b *builder) tensor(name string, shape ...int) []float32 {
	b.specs = append(b.specs, weights.Spec{Name: name, Shape: shape})
	if t, ok := b.sd.Lookup(name); ok && slices.Equal(t.Shape, shape) {
		return t.Data
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	v := make([]float32, n)
	if b.fresh != nil {
		b.fresh.fill(b.sd, name, shape, v)
		b.sd.Set(name, weights.Tensor{Shape: shape, Data: v})
	}
	return v
}

// constant is a tensor that follows from the architecture. A checkpoint need not
// hold it, but no other in its place.
func (b *builder) constant(name string, want []float32, shape ...int) {
	t, ok := b.sd.Lookup(name)
	if !ok {
		return
	}
	b.specs = append(b.specs, weights.Spec{Name: name, Shape: shape})
	if !slices.Equal(t.Data, want) {
		b.foreign = append(b.foreign, name)
	}
}

// image is the network's input.
func (b *builder) image(c, h, w int) *nn.Node {
	b.input = nn.Shape{C: c, H: h, W: w}
	return b.graph.Input(b.input)
}

// channels is the number of channels of images: what the named first convolution
// reads, or the given number where there is no checkpoint that says so.
func (b *builder) channels(first string, usual int) int {
	if t, ok := b.sd.Lookup(first); ok && len(t.Shape) == 4 && t.Shape[1] > 0 {
		return t.Shape[1]
	}
	if b.fresh != nil && b.fresh.channels > 0 {
		return b.fresh.channels
	}
	return usual
}

// conv is a convolution without bias.
func (b *builder) conv(name string, x *nn.Node, out, size, stride, pad int) *nn.Node {
	return b.convOf(name, x, out, nn.ConvShape{Size: size, Stride: stride, Pad: pad})
}

// convOf is conv for any geometry.
func (b *builder) convOf(name string, x *nn.Node, out int, k nn.ConvShape) *nn.Node {
	return b.graph.Conv(x, b.tensor(name+".weight", out, x.Shape().C, k.Size, k.Size), nil, k)
}

// norm is PyTorch's BatchNorm2d with its default epsilon.
func (b *builder) norm(name string, x *nn.Node) *nn.Node {
	c := x.Shape().C
	return b.graph.BatchNorm(x, b.tensor(name+".weight", c), b.tensor(name+".bias", c),
		b.tensor(name+".running_mean", c), b.tensor(name+".running_var", c), 1e-5)
}

// patches is a convolution with bias whose squares touch: a linear layer of each.
func (b *builder) patches(name string, x *nn.Node, out, size int) *nn.Node {
	w := b.tensor(name+".weight", out, x.Shape().C, size, size)
	return b.graph.Conv(x, w, b.tensor(name+".bias", out), nn.ConvShape{Size: size, Stride: size})
}

// linear is a linear layer of each pixel or token.
func (b *builder) linear(name string, x *nn.Node, out int) *nn.Node {
	return b.linearOf(x, out, b.tensor(name+".weight", out, x.Shape().C), b.tensor(name+".bias", out))
}

func (b *builder) linearOf(x *nn.Node, out int, weight, bias []float32) *nn.Node {
	return b.graph.Conv(x, weight, bias, nn.ConvShape{Size: 1, Stride: 1})
}

func (b *builder) layerNorm(name string, x *nn.Node, eps float64) *nn.Node {
	c := x.Shape().C
	return b.graph.LayerNorm(x, b.tensor(name+".weight", c), b.tensor(name+".bias", c), eps)
}

// layer names an activation. Families call it from the image on, so the deepest
// comes last.
func (b *builder) layer(name string, x *nn.Node) {
	s := x.Shape()
	b.layers = append(b.layers, Layer{Name: name, Channels: s.C, Height: s.H, Width: s.W})
	b.nodes = append(b.nodes, x)
}

// stage marks the activation behind the stem or a stage; see Model.Stages.
func (b *builder) stage(x *nn.Node) {
	b.stages = append(b.stages, placeOf(stageName(len(b.stages)), x))
}

// classifier is the last linear layer; as many classes as the checkpoint has.
func (b *builder) classifier(name string, x *nn.Node) {
	classes, features := 1, x.Shape().C
	if b.fresh != nil {
		classes = b.fresh.classes
	}
	if t, ok := b.sd.Lookup(name + ".weight"); ok && len(t.Shape) == 2 {
		classes = t.Shape[0]
	}
	b.head = Head{Weight: b.tensor(name+".weight", classes, features), Bias: b.tensor(name+".bias", classes)}
	b.feature = x
	if b.dropout > 0 {
		x = b.graph.Dropout(x, b.dropout)
		b.dropped = x
	}
	b.logits = b.graph.Linear(x, b.head.Weight, b.head.Bias)
	b.layer(name, b.logits)
}

func (b *builder) model(name string) (*Model, error) {
	if err := b.sd.Match(b.specs); err != nil {
		return nil, err
	}
	if len(b.foreign) > 0 {
		return nil, fmt.Errorf("%s: other values than the architecture's: %s", b.sd.Source(), strings.Join(b.foreign, ", "))
	}
	slices.Reverse(b.layers)
	slices.Reverse(b.nodes)
	return &Model{
		Name:      name,
		Classes:   b.logits.Shape().C,
		Features:  b.feature.Shape().C,
		InputSize: [3]int{b.input.C, b.input.H, b.input.W},
		Layers:    b.layers,
		graph:     b.graph,
		nodes:     b.nodes,
		stages:    b.stages,
		logits:    b.logits,
		feature:   b.feature,
		head:      b.head,
	}, nil
}

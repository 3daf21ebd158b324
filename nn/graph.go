// Package nn is the network engine: it builds a graph of layers once, compiles
// it for a set of wanted activations, and runs the forward pass and one
// backward pass of KL(uniform || softmax) to those activations.
//
// Images come in as float32 NCHW. Inside, activations are NHWC with channels
// rounded up to whole vectors and a border of zeros around each image, so that
// a convolution reads its input in place; see docs/architecture.md.
//
// Building a graph with shapes that do not fit is a mistake of the caller and
// panics; package arch checks a checkpoint's shapes before it builds.
package nn

import (
	"fmt"
	"math"
	"slices"
)

// Shape is the shape of one image's activation.
type Shape struct{ C, H, W int }

func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.C, s.H, s.W) }

// Node is one operation of a graph and the activation that it yields.
type Node struct {
	op     op
	inputs []*Node
	shape  Shape
	id     int
}

// Shape returns the shape of the node's activation.
func (n *Node) Shape() Shape { return n.shape }

// Averages reports whether n is the mean over space of x.
func (n *Node) Averages(x *Node) bool {
	_, mean := n.op.(meanOp)
	return mean && n.inputs[0] == x
}

// op is one of the operation types below.
type op interface{}

type (
	inputOp struct{}
	// convOp's weight is OIHW as in PyTorch. Scale, if not nil, is a factor of each
	// output channel's weights, from a batch norm that follows.
	convOp struct {
		weight, bias []float32
		k            ConvShape
		scale        []float64
	}
	// affineOp is batch norm in eval mode: x*scale + shift per channel.
	affineOp struct {
		scale, shift []float64
		source       *normSource // what scale and shift were made of; nil if nothing
	}
	reluOp struct{}
	addOp  struct{}
	maxOp  struct{ window }
	// avgOp counts the border as zeros unless inner.
	avgOp struct {
		window
		inner bool
	}
	meanOp struct{}
	// shortcutOp is He et al.'s option A.
	shortcutOp struct{ stride, before int }
)

type window struct{ size, stride, pad int }

// normSource is a batch norm's parameters; without mean and variance it is
// x*weight + bias. bias may be nil.
type normSource struct {
	weight, bias, mean, variance []float32
	eps                          float64
}

// Graph is a network under construction: nodes in topological order.
type Graph struct{ nodes []*Node }

// NewGraph returns an empty graph.
func NewGraph() *Graph { return &Graph{} }

func (g *Graph) add(o op, shape Shape, inputs ...*Node) *Node {
	if shape.C < 1 || shape.H < 1 || shape.W < 1 {
		panic(fmt.Sprintf("nn: %T of %v yields an empty activation %v", o, inputs[0].shape, shape))
	}
	n := &Node{op: o, inputs: inputs, shape: shape, id: len(g.nodes)}
	g.nodes = append(g.nodes, n)
	return n
}

// Input is the image.
func (g *Graph) Input(shape Shape) *Node { return g.add(inputOp{}, shape) }

// ConvShape is the geometry of a square convolution. Trail is the number of rows
// and columns of zeros that follow the image beyond Pad: TensorFlow's SAME
// padding has none in front and some behind when a stride of 2 meets an even
// size. Groups of channels, if more than 1, are convolved each by itself.
type ConvShape struct{ Size, Stride, Pad, Trail, Groups int }

func (k ConvShape) groups() int { return max(k.Groups, 1) }

// point reports whether each pixel goes into one pixel alone, at the same place.
func (k ConvShape) point() bool { return k.Size == 1 && k.Stride == 1 && k.Pad == 0 && k.Trail == 0 }

func (k ConvShape) of(s Shape, channels int) Shape {
	out := func(n int) int { return (n+2*k.Pad+k.Trail-k.Size)/k.Stride + 1 }
	return Shape{channels, out(s.H), out(s.W)}
}

// Conv is a convolution. The weight is [out][in/groups][size][size] and fixes the
// number of output channels; bias may be nil.
func (g *Graph) Conv(x *Node, weight, bias []float32, k ConvShape) *Node {
	groups := k.groups()
	per := x.shape.C / groups * k.Size * k.Size
	if x.shape.C%groups != 0 || len(weight) == 0 || len(weight)/max(per, 1)%groups != 0 || len(weight)%per != 0 || (bias != nil && len(bias) != len(weight)/per) {
		panic(fmt.Sprintf("nn: convolution of %v by %d weights and %d biases", x.shape, len(weight), len(bias)))
	}
	return g.add(convOp{weight: weight, bias: bias, k: k}, k.of(x.shape, len(weight)/per), x)
}

// Linear is a linear layer with weight [out][in] on a 1x1 activation; bias may be nil.
func (g *Graph) Linear(x *Node, weight, bias []float32) *Node {
	if x.shape.H != 1 || x.shape.W != 1 {
		panic(fmt.Sprintf("nn: linear layer of %v", x.shape))
	}
	return g.Conv(x, weight, bias, ConvShape{Size: 1, Stride: 1})
}

// BatchNorm is batch normalisation in eval mode (Ioffe and Szegedy, 2015).
func (g *Graph) BatchNorm(x *Node, weight, bias, mean, variance []float32, eps float64) *Node {
	c := x.shape.C
	if len(weight) != c || len(bias) != c || len(mean) != c || len(variance) != c {
		panic(fmt.Sprintf("nn: batch norm of %v by %d weights", x.shape, len(weight)))
	}
	a := affineOp{scale: make([]float64, c), shift: make([]float64, c), source: &normSource{weight, bias, mean, variance, eps}}
	for i := range c {
		a.scale[i] = float64(weight[i]) / math.Sqrt(float64(variance[i])+eps)
		a.shift[i] = float64(bias[i]) - float64(mean[i])*a.scale[i]
	}
	return g.add(a, x.shape, x)
}

// ReLU is max(x, 0).
func (g *Graph) ReLU(x *Node) *Node { return g.add(reluOp{}, x.shape, x) }

// Add is the sum of two activations of one shape.
func (g *Graph) Add(x, y *Node) *Node {
	if x.shape != y.shape {
		panic(fmt.Sprintf("nn: sum of %v and %v", x.shape, y.shape))
	}
	return g.add(addOp{}, x.shape, x, y)
}

func (w window) of(s Shape) Shape {
	return Shape{s.C, (s.H+2*w.pad-w.size)/w.stride + 1, (s.W+2*w.pad-w.size)/w.stride + 1}
}

// MaxPool is max pooling; the border does not take part.
func (g *Graph) MaxPool(x *Node, size, stride, pad int) *Node {
	w := window{size, stride, pad}
	return g.add(maxOp{w}, w.of(x.shape), x)
}

// AvgPool is average pooling; the border counts as zeros, as in PyTorch's default.
func (g *Graph) AvgPool(x *Node, size, stride, pad int) *Node {
	w := window{size, stride, pad}
	return g.add(avgOp{w, false}, w.of(x.shape), x)
}

// Pool describes a pooling whose windows may leave the image.
type Pool struct {
	Size, Stride, Pad int
	// Height and Width are those of the output; every window must touch the image.
	Height, Width int
	// Average pools by the mean instead of the largest; Inner leaves the border out of
	// the mean, which is zeros otherwise.
	Average, Inner bool
}

// Pool is max or average pooling to an output size that need not be the usual
// one: that of PyTorch's ceil_mode, or of padding behind the image only.
func (g *Graph) Pool(x *Node, p Pool) *Node {
	w := window{p.Size, p.Stride, p.Pad}
	fits := func(out, size int) bool { return out > 0 && (out-1)*p.Stride-p.Pad < size && p.Pad < p.Size }
	if !fits(p.Height, x.shape.H) || !fits(p.Width, x.shape.W) {
		panic(fmt.Sprintf("nn: pooling of %v by %+v", x.shape, p))
	}
	s := Shape{x.shape.C, p.Height, p.Width}
	if p.Average {
		return g.add(avgOp{w, p.Inner}, s, x)
	}
	return g.add(maxOp{w}, s, x)
}

// GlobalAvgPool is the mean over space.
func (g *Graph) GlobalAvgPool(x *Node) *Node { return g.add(meanOp{}, Shape{x.shape.C, 1, 1}, x) }

// ShortcutA is the parameter-free shortcut of He et al. (2016), option A: every
// stride-th pixel, with before channels of zeros in front and as many as are
// needed behind to reach channels.
func (g *Graph) ShortcutA(x *Node, stride, before, channels int) *Node {
	if before < 0 || before+x.shape.C > channels {
		panic(fmt.Sprintf("nn: shortcut of %v to %d channels", x.shape, channels))
	}
	return g.add(shortcutOp{stride, before}, Shape{channels, (x.shape.H + stride - 1) / stride, (x.shape.W + stride - 1) / stride}, x)
}

// Ancestors returns the nodes that n is computed from, n among them.
func (g *Graph) Ancestors(n *Node) map[*Node]bool {
	found := map[*Node]bool{n: true}
	for _, x := range slices.Backward(g.nodes[:n.id+1]) {
		if found[x] {
			for _, in := range x.inputs {
				found[in] = true
			}
		}
	}
	return found
}

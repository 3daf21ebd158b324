package nn

import "fmt"

// Scale multiplies each channel by a constant factor, as ConvNeXt's layer scale
// does. A convolution in front takes it along.
func (g *Graph) Scale(x *Node, factors []float32) *Node {
	return g.Affine(x, factors, make([]float32, len(factors)))
}

// Affine is x*scale + shift for each channel.
func (g *Graph) Affine(x *Node, scale, shift []float32) *Node {
	if len(scale) != x.shape.C || len(shift) != x.shape.C {
		panic(fmt.Sprintf("nn: %d factors and %d terms for %v", len(scale), len(shift), x.shape))
	}
	a := affineOp{scale: make([]float64, len(scale)), shift: make([]float64, len(scale))}
	for i, s := range scale {
		a.scale[i], a.shift[i] = float64(s), float64(shift[i])
	}
	return g.add(a, x.shape, x)
}

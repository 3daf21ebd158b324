package nn

import "fmt"

// Scale multiplies each channel by a constant factor, as ConvNeXt's layer scale
// does. A convolution in front takes it along.
func (g *Graph) Scale(x *Node, factors []float32) *Node {
	return g.affine(x, factors, nil)
}

// Affine is x*scale + shift for each channel.
func (g *Graph) Affine(x *Node, scale, shift []float32) *Node {
	if len(shift) != x.shape.C {
		panic(fmt.Sprintf("nn: %d terms for %v", len(shift), x.shape))
	}
	return g.affine(x, scale, shift)
}

func (g *Graph) affine(x *Node, scale, shift []float32) *Node {
	if len(scale) != x.shape.C {
		panic(fmt.Sprintf("nn: %d factors for %v", len(scale), x.shape))
	}
	a := affineOp{scale: make([]float64, len(scale)), shift: make([]float64, len(scale)), source: &normSource{weight: scale, bias: shift}}
	for i, s := range scale {
		if a.scale[i] = float64(s); shift != nil {
			a.shift[i] = float64(shift[i])
		}
	}
	return g.add(a, x.shape, x)
}

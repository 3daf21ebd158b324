package arch

import (
	"fmt"

	"nac/nn"
)

// convNeXt is the network of Liu et al. (2022), with torchvision's names. Layer
// norms are over the channels of each pixel.
//
//	stage       tiny            output at 224
//	features.0  4x4, stride 4   96x56x56
//	features.1  block x 3       96x56x56
//	features.2  2x2, stride 2   192x28x28
//	features.3  block x 3       192x28x28
//	features.4  2x2, stride 2   384x14x14
//	features.5  block x 9       384x14x14
//	features.6  2x2, stride 2   768x7x7
//	features.7  block x 3       768x7x7
//	avgpool                     768
//	classifier.0                768, layer norm: the penultimate feature
//	classifier.2                K
//
// A block is [depthwise 7x7, layer norm, 1x1 of four times the width, GELU, 1x1],
// scaled by a factor for each channel, and a shortcut.
func convNeXt(channels, blocks [4]int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.biased("features.0.0", b.image(3, 224, 224), channels[0], 4, 4)
		x = b.layerNorm("features.0.1", x)
		b.layer("features.0", x)
		for stage, n := range blocks {
			if stage > 0 {
				name := fmt.Sprintf("features.%d", 2*stage)
				x = b.biased(name+".1", b.layerNorm(name+".0", x), channels[stage], 2, 2)
				b.layer(name, x)
			}
			name := fmt.Sprintf("features.%d", 2*stage+1)
			for i := range n {
				x = convNeXtBlock(b, fmt.Sprintf("%s.%d", name, i), x)
			}
			b.layer(name, x)
		}
		x = g.GlobalAvgPool(x)
		b.layer("avgpool", x)
		x = b.layerNorm("classifier.0", x)
		b.layer("classifier.0", x)
		b.classifier("classifier.2", x)
	}
}

func convNeXtBlock(b *builder, name string, x *nn.Node) *nn.Node {
	g, c := b.graph, x.Shape().C
	linear := func(name string, x *nn.Node, out int) *nn.Node {
		w := b.tensor(name+".weight", out, x.Shape().C)
		return g.Conv(x, w, b.tensor(name+".bias", out), nn.ConvShape{Size: 1, Stride: 1})
	}
	scale := b.tensor(name+".layer_scale", c, 1, 1)
	dw := name + ".block.0"
	y := g.Depthwise(x, b.tensor(dw+".weight", c, 1, 7, 7), b.tensor(dw+".bias", c), nn.ConvShape{Size: 7, Stride: 1, Pad: 3})
	y = b.layerNorm(name+".block.2", y)
	y = g.Apply(nn.GELU, linear(name+".block.3", y, 4*c))
	y = g.Scale(linear(name+".block.5", y, c), scale)
	return g.Add(y, x)
}

// biased is a convolution with bias and without padding.
func (b *builder) biased(name string, x *nn.Node, out, size, stride int) *nn.Node {
	w := b.tensor(name+".weight", out, x.Shape().C, size, size)
	return b.graph.Conv(x, w, b.tensor(name+".bias", out), nn.ConvShape{Size: size, Stride: stride})
}

func (b *builder) layerNorm(name string, x *nn.Node) *nn.Node {
	c := x.Shape().C
	return b.graph.LayerNorm(x, b.tensor(name+".weight", c), b.tensor(name+".bias", c), 1e-6)
}

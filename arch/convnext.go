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
		x := b.patches("features.0.0", b.image(3, 224, 224), channels[0], 4)
		x = b.layerNorm("features.0.1", x, 1e-6)
		b.layer("features.0", x)
		for stage, n := range blocks {
			if stage > 0 {
				name := fmt.Sprintf("features.%d", 2*stage)
				x = b.patches(name+".1", b.layerNorm(name+".0", x, 1e-6), channels[stage], 2)
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
		x = b.layerNorm("classifier.0", x, 1e-6)
		b.layer("classifier.0", x)
		b.classifier("classifier.2", x)
	}
}

func convNeXtBlock(b *builder, name string, x *nn.Node) *nn.Node {
	g, c := b.graph, x.Shape().C
	scale := b.tensor(name+".layer_scale", c, 1, 1)
	dw := name + ".block.0"
	y := g.Depthwise(x, b.tensor(dw+".weight", c, 1, 7, 7), b.tensor(dw+".bias", c), nn.ConvShape{Size: 7, Stride: 1, Pad: 3})
	y = b.layerNorm(name+".block.2", y, 1e-6)
	y = g.Apply(nn.GELU, b.linear(name+".block.3", y, 4*c))
	y = g.Scale(b.linear(name+".block.5", y, c), scale)
	return g.Add(y, x)
}

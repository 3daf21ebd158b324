package arch

import (
	"fmt"

	"nac/nn"
)

// The DenseNet-BC of Huang et al. (2017): a layer reads all that came before it in
// its block and adds growth channels; a transition halves channels and size.

// imageNetDenseNet is torchvision's.
//
//	stage                 121                                 output at 224
//	features.conv0        7x7, stride 2                       64x112x112
//	features.pool0        max 3x3, stride 2                   64x56x56
//	features.denseblockN  [1x1 of 128, 3x3 of 32] x 6         256x56x56
//	features.transitionN  1x1, average 2x2                    128x28x28
//	                      x 12                                512x28x28, 256x14x14
//	                      x 24                                1024x14x14, 512x7x7
//	                      x 16                                1024x7x7
//	features.norm5        batch norm, before its ReLU         1024x7x7
//	avgpool                                                   1024
//	classifier            K
func imageNetDenseNet(growth, stem int, blocks ...int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.conv("features.conv0", b.image(3, 224, 224), stem, 7, 2, 3)
		b.layer("features.conv0", x)
		x = g.MaxPool(g.ReLU(b.norm("features.norm0", x)), 3, 2, 1)
		b.layer("features.pool0", x)
		// The published checkpoints are older than PyTorch's ban on dots in a module's
		// name: norm.1 instead of norm1.
		dot := ""
		if _, old := b.sd.Lookup("features.denseblock1.denselayer1.norm.1.weight"); old {
			dot = "."
		}
		for i, layers := range blocks {
			block := fmt.Sprintf("features.denseblock%d", i+1)
			for l := range layers {
				name := func(kind string, n int) string {
					return fmt.Sprintf("%s.denselayer%d.%s%s%d", block, l+1, kind, dot, n)
				}
				y := b.conv(name("conv", 1), g.ReLU(b.norm(name("norm", 1), x)), 4*growth, 1, 1, 0)
				y = b.conv(name("conv", 2), g.ReLU(b.norm(name("norm", 2), y)), growth, 3, 1, 1)
				x = g.Concat(x, y)
			}
			b.layer(block, x)
			if i < len(blocks)-1 {
				name := fmt.Sprintf("features.transition%d", i+1)
				x = transition(b, name+".norm", name+".conv", x)
				b.layer(name, x)
			}
		}
		x = b.norm("features.norm5", x)
		b.layer("features.norm5", x)
		x = g.GlobalAvgPool(g.ReLU(x))
		b.layer("avgpool", x)
		b.classifier("classifier", x)
	}
}

// cifarDenseNet is the form for 32x32 images, with names as in OpenOOD's
// checkpoints.
//
//	stage    depth 100, growth 12            output
//	conv1    3x3                             24x32x32
//	block1   [1x1 of 48, 3x3 of 12] x 16     216x32x32
//	trans1   1x1, average 2x2                108x16x16
//	block2   the same                        300x16x16
//	trans2                                   150x8x8
//	block3                                   342x8x8
//	relu     batch norm, ReLU                342x8x8
//	avgpool                                  342
//	fc       K
func cifarDenseNet(depth, growth int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.conv("conv1", b.image(3, 32, 32), 2*growth, 3, 1, 1)
		b.layer("conv1", x)
		for i := range 3 {
			block := fmt.Sprintf("block%d", i+1)
			for l := range (depth - 4) / 6 {
				name := fmt.Sprintf("%s.layer.%d.", block, l)
				y := b.conv(name+"conv1", g.ReLU(b.norm(name+"bn1", x)), 4*growth, 1, 1, 0)
				y = b.conv(name+"conv2", g.ReLU(b.norm(name+"bn2", y)), growth, 3, 1, 1)
				x = g.Concat(x, y)
			}
			b.layer(block, x)
			if i < 2 {
				name := fmt.Sprintf("trans%d", i+1)
				x = transition(b, name+".bn1", name+".conv1", x)
				b.layer(name, x)
			}
		}
		x = g.ReLU(b.norm("bn1", x))
		b.layer("relu", x)
		x = g.GlobalAvgPool(x)
		b.layer("avgpool", x)
		b.classifier("fc", x)
	}
}

func transition(b *builder, norm, conv string, x *nn.Node) *nn.Node {
	y := b.conv(conv, b.graph.ReLU(b.norm(norm, x)), x.Shape().C/2, 1, 1, 0)
	return b.graph.AvgPool(y, 2, 2, 0)
}

package arch

import (
	"fmt"

	"nac/nn"
)

// The ResNets of He et al. (2016) for ImageNet, and OpenOOD's forms of ResNet-18
// for small images, with projection shortcuts (option B).
//
//	stage    18, 34          50, 101                  output at 224
//	conv1    7x7, stride 2   7x7, stride 2            64x112x112
//	maxpool  3x3, stride 2   3x3, stride 2            64x56x56
//	layer1   [3x3, 3x3]      [1x1, 3x3, 1x1]          64 or 256 x56x56
//	layer2   the same, stride 2 in the first block    128 or 512 x28x28
//	layer3                                            256 or 1024 x14x14
//	layer4                                            512 or 2048 x7x7
//	avgpool                                           512 or 2048
//	fc       K
//
// Layer conv1 is the convolution's own output, before its batch norm, and fc the
// logits, as those modules are in PyTorch. As in torchvision the bottleneck's stride is in its 3x3 convolution.

// block is a residual block: channels is its width before expansion, shortcut
// the name of the projection's module.
type block func(b *builder, name, shortcut string, x *nn.Node, channels, stride int) *nn.Node

// imageNetResNet is torchvision's.
func imageNetResNet(block block, blocks ...int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.conv("conv1", b.image(3, 224, 224), 64, 7, 2, 3)
		b.layer("conv1", x)
		x = g.ReLU(b.norm("bn1", x))
		x = g.MaxPool(x, 3, 2, 1)
		b.layer("maxpool", x)
		b.stage(x)
		residualStages(b, x, block, "downsample", blocks)
	}
}

// smallResNet18 is OpenOOD's ResNet18_32x32 and ResNet18_64x64: a 3x3 stem and no
// max pooling.
func smallResNet18(size int) func(*builder) {
	return func(b *builder) {
		x := b.conv("conv1", b.image(3, size, size), 64, 3, 1, 1)
		b.layer("conv1", x)
		x = b.graph.ReLU(b.norm("bn1", x))
		b.stage(x)
		residualStages(b, x, basicBlock, "shortcut", []int{2, 2, 2, 2})
	}
}

func residualStages(b *builder, x *nn.Node, block block, shortcut string, blocks []int) {
	for stage, n := range blocks {
		layer := fmt.Sprintf("layer%d", stage+1)
		for i := range n {
			stride := 1
			if stage > 0 && i == 0 {
				stride = 2
			}
			x = block(b, fmt.Sprintf("%s.%d", layer, i), shortcut, x, 64<<stage, stride)
		}
		b.layer(layer, x)
		b.stage(x)
	}
	x = b.graph.GlobalAvgPool(x)
	b.layer("avgpool", x)
	b.classifier("fc", x)
}

func projection(b *builder, name string, x *nn.Node, channels, stride int) *nn.Node {
	if stride == 1 && x.Shape().C == channels {
		return x
	}
	return b.norm(name+".1", b.conv(name+".0", x, channels, 1, stride, 0))
}

func basicBlock(b *builder, name, shortcut string, x *nn.Node, channels, stride int) *nn.Node {
	g := b.graph
	id := projection(b, name+"."+shortcut, x, channels, stride)
	y := g.ReLU(b.norm(name+".bn1", b.conv(name+".conv1", x, channels, 3, stride, 1)))
	y = b.norm(name+".bn2", b.conv(name+".conv2", y, channels, 3, 1, 1))
	return g.ReLU(g.Add(y, id))
}

func bottleneck(b *builder, name, shortcut string, x *nn.Node, channels, stride int) *nn.Node {
	g := b.graph
	id := projection(b, name+"."+shortcut, x, 4*channels, stride)
	y := g.ReLU(b.norm(name+".bn1", b.conv(name+".conv1", x, channels, 1, 1, 0)))
	y = g.ReLU(b.norm(name+".bn2", b.conv(name+".conv2", y, channels, 3, stride, 1)))
	y = b.norm(name+".bn3", b.conv(name+".conv3", y, 4*channels, 1, 1, 0))
	return g.ReLU(g.Add(y, id))
}

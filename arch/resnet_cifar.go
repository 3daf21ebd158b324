package arch

import (
	"fmt"

	"nac/nn"
)

// cifarResNet is the ResNet of He et al. (2016), section 4.2, for 32x32 images,
// with n blocks a stage: 6n+2 layers. Names follow the widely used PyTorch
// checkpoints of Idelbayev, whose shortcuts are option A: every other pixel,
// with zeros for the new channels, half of them in front.
//
//	stage    output    blocks
//	conv1    16x32x32  3x3
//	layer1   16x32x32  [3x3, 3x3] x n
//	layer2   32x16x16  [3x3, 3x3] x n
//	layer3   64x8x8    [3x3, 3x3] x n
//	avgpool  64x1x1
//	linear   K
func cifarResNet(n int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.conv("conv1", b.image(3, 32, 32), 16, 3, 1, 1)
		b.layer("conv1", x)
		x = g.ReLU(b.norm("bn1", x))
		b.stage(x)
		for stage, channels := range []int{16, 32, 64} {
			for i := range n {
				stride := 1
				if stage > 0 && i == 0 {
					stride = 2
				}
				x = optionABlock(b, fmt.Sprintf("layer%d.%d", stage+1, i), x, channels, stride)
			}
			b.layer(fmt.Sprintf("layer%d", stage+1), x)
			b.stage(x)
		}
		x = g.GlobalAvgPool(x)
		b.layer("avgpool", x)
		b.classifier("linear", x)
	}
}

func optionABlock(b *builder, name string, x *nn.Node, channels, stride int) *nn.Node {
	g := b.graph
	shortcut := x
	if stride != 1 || x.Shape().C != channels {
		shortcut = g.ShortcutA(x, stride, channels/4, channels)
	}
	y := g.ReLU(b.norm(name+".bn1", b.conv(name+".conv1", x, channels, 3, stride, 1)))
	y = b.norm(name+".bn2", b.conv(name+".conv2", y, channels, 3, 1, 1))
	return g.ReLU(g.Add(y, shortcut))
}

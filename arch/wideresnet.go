package arch

import (
	"fmt"

	"nac/nn"
)

// wideResNet is the Wide ResNet of Zagoruyko and Komodakis (2016) for 32x32
// images, of the given depth and width, with names as in OpenOOD's checkpoints.
// Batch norm and ReLU stand in front of the convolutions.
//
//	stage    output          blocks
//	conv1    16x32x32        3x3
//	block1   16*width x32x32 [3x3, 3x3] x n, n = (depth-4)/6
//	block2   32*width x16x16 [3x3, 3x3] x n
//	block3   64*width x8x8   [3x3, 3x3] x n
//	relu     the same        batch norm, ReLU
//	avgpool  64*width
//	fc       K
//
// A block's output is a sum that no ReLU has passed.
func wideResNet(depth, width int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.conv("conv1", b.image(3, 32, 32), 16, 3, 1, 1)
		b.layer("conv1", x)
		for stage, channels := range []int{16 * width, 32 * width, 64 * width} {
			for i := range (depth - 4) / 6 {
				stride := 1
				if stage > 0 && i == 0 {
					stride = 2
				}
				x = wideBlock(b, fmt.Sprintf("block%d.layer.%d", stage+1, i), x, channels, stride)
			}
			b.layer(fmt.Sprintf("block%d", stage+1), x)
		}
		x = g.ReLU(b.norm("bn1", x))
		b.layer("relu", x)
		x = g.GlobalAvgPool(x)
		b.layer("avgpool", x)
		b.classifier("fc", x)
	}
}

// wideBlock's shortcut is the identity, or a convolution of what the first batch
// norm and ReLU yield.
func wideBlock(b *builder, name string, x *nn.Node, channels, stride int) *nn.Node {
	g := b.graph
	y := g.ReLU(b.norm(name+".bn1", x))
	if x.Shape().C != channels {
		x = b.conv(name+".convShortcut", y, channels, 1, stride, 0)
	}
	y = b.conv(name+".conv1", y, channels, 3, stride, 1)
	y = b.conv(name+".conv2", g.ReLU(b.norm(name+".bn2", y)), channels, 3, 1, 1)
	return g.Add(x, y)
}

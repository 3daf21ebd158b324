package arch

import "nac/nn"

// leNet is LeNet-5 (LeCun et al., 1998) with ReLUs, for 28x28 images, as OpenOOD
// trains it on MNIST; grey or colour as the checkpoint's first convolution says.
//
//	stage   output    layers
//	block1  6x14x14   5x5 with a border of 2, ReLU, max 2x2
//	block2  16x5x5    5x5, ReLU, max 2x2
//	block3  120       5x5, ReLU
//	relu    84        linear classifier1, ReLU
//	fc      K
func leNet(b *builder) {
	g := b.graph
	channels := b.channels("block1.0.weight", 3)
	conv := func(name string, x *nn.Node, out, pad int) *nn.Node {
		k := nn.ConvShape{Size: 5, Stride: 1, Pad: pad}
		return g.ReLU(g.Conv(x, b.tensor(name+".weight", out, x.Shape().C, 5, 5), b.tensor(name+".bias", out), k))
	}
	x := g.MaxPool(conv("block1.0", b.image(channels, 28, 28), 6, 2), 2, 2, 0)
	b.layer("block1", x)
	x = g.MaxPool(conv("block2.0", x, 16, 0), 2, 2, 0)
	b.layer("block2", x)
	x = conv("block3.0", x, 120, 0)
	b.layer("block3", x)
	x = g.ReLU(g.Linear(x, b.tensor("classifier1.weight", 84, 120), b.tensor("classifier1.bias", 84)))
	b.layer("relu", x)
	b.classifier("fc", x)
}

package arch

import (
	"fmt"

	"nac/nn"
)

// mnistCNN is DomainBed's MNIST_CNN (Gulrajani and Lopez-Paz, 2021) with its
// classifier, for images of 28x28 and any number of channels.
//
//	stage    output     layers
//	bn0      64x28x28   3x3, ReLU, group norm
//	bn1      128x14x14  3x3, stride 2, ReLU, group norm
//	bn2      128x14x14  3x3, ReLU, group norm
//	bn3      128x14x14  3x3, ReLU, group norm
//	avgpool  128
//	fc       K
//
// Names are those of DomainBed's algorithms; bn3 is the layer that NAC-ME's
// reference reads.
func mnistCNN(b *builder) {
	g := b.graph
	x := b.image(b.channels("featurizer.conv1.weight", 2), 28, 28)
	for i, channels := range []int{64, 128, 128, 128} {
		name := fmt.Sprintf("featurizer.conv%d", i+1)
		k := nn.ConvShape{Size: 3, Stride: 1, Pad: 1}
		if i == 1 {
			k.Stride = 2
		}
		x = g.ReLU(g.Conv(x, b.tensor(name+".weight", channels, x.Shape().C, 3, 3), b.tensor(name+".bias", channels), k))
		name = fmt.Sprintf("featurizer.bn%d", i)
		x = g.GroupNorm(x, 8, b.tensor(name+".weight", channels), b.tensor(name+".bias", channels), 1e-5)
		b.layer(fmt.Sprintf("bn%d", i), x)
	}
	x = g.GlobalAvgPool(x)
	b.layer("avgpool", x)
	b.classifier("classifier", x)
}

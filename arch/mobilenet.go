package arch

import (
	"fmt"

	"nac/nn"
)

// mobileNetV2 is the network of Sandler et al. (2018), with torchvision's names.
//
//	stage           output at 224  inverted residuals: expansion, stride of the first
//	features.0      32x112x112     3x3, stride 2
//	features.1      16x112x112     1, 1
//	features.2-3    24x56x56       6, 2
//	features.4-6    32x28x28       6, 2
//	features.7-10   64x14x14       6, 2
//	features.11-13  96x14x14       6, 1
//	features.14-16  160x7x7        6, 2
//	features.17     320x7x7        6, 1
//	features.18     1280x7x7       1x1
//	avgpool         1280
//	classifier.1    K
//
// A 3x3 convolution of stride 2 has a border of one pixel all around in PyTorch.
// With same it is padded as TensorFlow's SAME does, for checkpoints that were
// trained there: an even size gets zeros below and at the right only.
func mobileNetV2(same bool) func(*builder) {
	return func(b *builder) {
		g := b.graph
		m := mobileNet{builder: b, same: same}
		x := b.image(3, 224, 224)
		x = g.Clip(b.norm("features.0.1", b.convOf("features.0.0", x, 32, m.shape(x, 2))), 6)
		b.layer("features.0", x)
		n := 1
		for _, s := range []struct{ expansion, channels, blocks, stride int }{
			{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
		} {
			for i := range s.blocks {
				stride := 1
				if i == 0 {
					stride = s.stride
				}
				name := fmt.Sprintf("features.%d", n)
				x = m.block(name+".conv", x, s.expansion, s.channels, stride)
				b.layer(name, x)
				n++
			}
		}
		x = g.Clip(b.norm("features.18.1", b.conv("features.18.0", x, 1280, 1, 1, 0)), 6)
		b.layer("features.18", x)
		x = g.GlobalAvgPool(x)
		b.layer("avgpool", x)
		b.classifier("classifier.1", x)
	}
}

type mobileNet struct {
	*builder
	same bool
}

// shape is that of a 3x3 convolution.
func (m mobileNet) shape(x *nn.Node, stride int) nn.ConvShape {
	if m.same && stride == 2 && x.Shape().H%2 == 0 && x.Shape().W%2 == 0 {
		return nn.ConvShape{Size: 3, Stride: 2, Trail: 1}
	}
	return nn.ConvShape{Size: 3, Stride: stride, Pad: 1}
}

// block is an inverted residual: widen, convolve each channel by itself, narrow
// without a ReLU.
func (m mobileNet) block(name string, x *nn.Node, expansion, channels, stride int) *nn.Node {
	g := m.graph
	y, part := x, 0
	next := func() string {
		part++
		return fmt.Sprintf("%s.%d", name, part-1)
	}
	if wide := expansion * x.Shape().C; expansion > 1 {
		name := next()
		y = g.Clip(m.norm(name+".1", m.conv(name+".0", y, wide, 1, 1, 0)), 6)
	}
	dw := next()
	weight := m.tensor(dw+".0.weight", y.Shape().C, 1, 3, 3)
	y = g.Clip(m.norm(dw+".1", g.Depthwise(y, weight, nil, m.shape(y, stride))), 6)
	y = m.conv(next(), y, channels, 1, 1, 0)
	y = m.norm(next(), y)
	if stride == 1 && x.Shape().C == channels {
		y = g.Add(x, y)
	}
	return y
}

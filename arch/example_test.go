package arch_test

import (
	"fmt"

	"nac/arch"
	"nac/nn"
)

// A classifier of one's own: two convolutions and a linear layer. Real weights
// would come from a checkpoint, opened with package weights.
func ExampleNetwork() {
	weights := func(n int) []float32 {
		w := make([]float32, n)
		for i := range w {
			w[i] = float32(i%7-3) / 8
		}
		return w
	}
	g := nn.NewGraph()
	image := g.Input(nn.Shape{C: 1, H: 8, W: 8})
	conv1 := g.ReLU(g.Conv(image, weights(16*9), nil, nn.ConvShape{Size: 3, Stride: 1, Pad: 1}))
	conv2 := g.ReLU(g.Conv(g.MaxPool(conv1, 2, 2, 0), weights(32*16*9), nil, nn.ConvShape{Size: 3, Stride: 1, Pad: 1}))
	feature := g.GlobalAvgPool(conv2)
	head := arch.Head{Weight: weights(10 * 32), Bias: make([]float32, 10)}

	model, err := arch.Network{
		Name: "two layers", Graph: g, Input: image,
		Feature: feature, Logits: g.Linear(feature, head.Weight, head.Bias), Head: head,
		Layers: []arch.NamedNode{{Name: "conv1", Node: conv1}, {Name: "conv2", Node: conv2}, {Name: "feature", Node: feature}},
	}.Model()
	if err != nil {
		fmt.Println(err)
		return
	}
	extractor, err := model.NewExtractor(arch.Request{Layers: model.Suggested(), Gradients: true}, 4, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	batch, err := extractor.Run(make([]float32, 2*8*8), 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range batch.States {
		fmt.Printf("%s: %d neurons of %d images\n", s.Name, s.Channels, len(s.Z)/s.Channels)
	}
	// Output:
	// feature: 32 neurons of 2 images
	// conv2: 32 neurons of 2 images
	// conv1: 16 neurons of 2 images
}

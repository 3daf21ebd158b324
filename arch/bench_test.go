package arch

import (
	"fmt"
	"testing"

	"nac/internal/kernel"
)

// BenchmarkExtract is neuron-state extraction: the forward pass and the backward
// pass to layer1, states of all stages, on every instruction set there is.
func BenchmarkExtract(b *testing.B) {
	for _, a := range []struct {
		arch   string
		layers []string
	}{
		{"resnet20", []string{"avgpool", "layer3", "layer2", "layer1"}},
		{"resnet18_32x32", []string{"avgpool", "layer3", "layer2", "layer1"}},
		{"resnet50", []string{"avgpool", "layer3", "layer2", "layer1"}},
		{"wrn_28_10", []string{"avgpool", "block3", "block2", "block1"}},
		{"densenet121", []string{"avgpool", "features.denseblock4", "features.denseblock3", "features.denseblock2"}},
		{"mobilenet_v2", []string{"avgpool", "features.18", "features.13", "features.6"}},
	} {
		for _, gradients := range []bool{true, false} {
			for _, set := range kernel.Available() {
				for _, batch := range []int{1, 64, 256} {
					if a.arch != "resnet20" && a.arch != "resnet18_32x32" && batch > 64 {
						continue
					}
					what := "states"
					if !gradients {
						what = "forward"
					}
					b.Run(fmt.Sprintf("%s/%s/%s/batch=%d", a.arch, what, set.Name(), batch), func(b *testing.B) {
						m, err := Load(a.arch, made(b, a.arch, 10, 1))
						if err != nil {
							b.Fatal(err)
						}
						e, err := m.NewExtractor(Request{Layers: a.layers, Gradients: gradients, Kernel: set.Name()}, batch, 0)
						if err != nil {
							b.Fatal(err)
						}
						images := madeInput(m.InputSize, batch)
						b.ReportAllocs()
						b.ResetTimer()
						for range b.N {
							if _, err := e.Run(images, batch); err != nil {
								b.Fatal(err)
							}
						}
						b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "images/s")
						b.ReportMetric(float64(e.MemoryBytes())/(1<<20), "MB")
					})
				}
			}
		}
	}
}

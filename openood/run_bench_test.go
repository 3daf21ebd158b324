package openood

import (
	"math/rand/v2"
	"testing"

	"nac/arch"
	"nac/detector"
	"nac/probe"
)

// One pass over the data serves all detectors: together they must not cost much more
// than the dearest one alone. The last benchmark says how many times as much.
func BenchmarkDetectors(b *testing.B) {
	const architecture, classes = "resnet20", 10
	sd, err := arch.Init(architecture, arch.InitOptions{Classes: classes, Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	m, err := arch.Load(architecture, sd)
	if err != nil {
		b.Fatal(err)
	}
	bench, err := Lookup("cifar10")
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 6))
	source := func(name string, n int) Source {
		pixels, labels := make([]float32, n*3*32*32), make([]int, n)
		for i := range labels {
			labels[i] = i % classes
			at := pixels[i*3*32*32:][:3*32*32]
			for j := range at {
				at[j] = float32(random.NormFloat64()) + float32(labels[i])/classes
			}
		}
		return Tensors(name, pixels, labels, 64)
	}
	data := &Data{
		Train: source("train", 1000), Val: source("val", 100), Test: source("test", 1000),
		Near: []Images{{"near", source("near", 1000)}},
	}
	settings := detector.Settings{Layers: bench.Layers}
	run := func(b *testing.B, keys []string) float64 {
		for b.Loop() {
			var methods []Method
			var detectors []detector.Detector
			for _, key := range keys {
				d, err := detector.New(key, settings)
				if err != nil {
					b.Fatal(err)
				}
				methods, detectors = append(methods, Method{key, d}), append(detectors, d)
			}
			network, err := probe.New(m, probe.For(detectors...), probe.Options{MaxBatch: 64, Std: [3]float32{1, 1, 1}})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := Run(b.Context(), data, network, methods, nil); err != nil {
				b.Fatal(err)
			}
		}
		return b.Elapsed().Seconds() / float64(b.N)
	}
	dearest := 0.0
	for _, key := range detector.Keys() {
		b.Run(key, func(b *testing.B) { dearest = max(dearest, run(b, []string{key})) })
	}
	b.Run("all", func(b *testing.B) {
		all := run(b, detector.Keys())
		if dearest > 0 {
			b.ReportMetric(all/dearest, "x-dearest")
		}
	})
}

package coverage

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// benchmarks has the settings of the reference's two ends: a ResNet-18 layer
// with few bins and a ResNet-50 layer with many.
var benchmarks = []struct{ m, o, channels, samples int }{
	{50, 50, 512, 64},
	{1000, 1, 2048, 64},
	{1000, 3000, 2048, 256},
	{50, 50, 64, 1},
}

func benchLayer(b *testing.B, m, o, channels, n int) (l *Layer, z, g []float32) {
	r := rand.New(rand.NewPCG(1, 1))
	l = newLayer(b, LayerSettings{Layer: "a", M: m, O: o, Alpha: 100, Func: SigmoidOG}, channels)
	// Activations after a ReLU, gradients of either sign, products within
	// the steep part of the sigmoid and beyond it.
	z, g = normal(r, n*channels, 1), normal(r, n*channels, 0.02)
	for i, v := range z {
		z[i] = max(v, 0)
	}
	return l, z, g
}

func run(b *testing.B, do func(l *Layer, z, g []float32, n int) error) {
	for _, c := range benchmarks {
		b.Run(fmt.Sprintf("M=%d/O=%d/C=%d/N=%d", c.m, c.o, c.channels, c.samples), func(b *testing.B) {
			l, z, g := benchLayer(b, c.m, c.o, c.channels, c.samples)
			must(b, l.Add(z, g, c.samples))
			must(b, do(l, z, g, c.samples))
			b.ReportAllocs()
			states := 0
			for b.Loop() {
				must(b, do(l, z, g, c.samples))
				states += len(z)
			}
			b.ReportMetric(float64(states)/b.Elapsed().Seconds()/1e6, "Mstates/s")
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	run(b, func(l *Layer, z, g []float32, n int) error {
		l.samples = 0 // far more are added than a layer may hold
		return l.Add(z, g, n)
	})
}

func BenchmarkScore(b *testing.B) {
	dst := make([]float32, 1024)
	run(b, func(l *Layer, z, g []float32, n int) error { return l.Score(z, g, n, dst[:n]) })
}

func BenchmarkNewLayer(b *testing.B) {
	for _, m := range []int{50, 1000} {
		b.Run(fmt.Sprintf("M=%d", m), func(b *testing.B) {
			for b.Loop() {
				newLookup(SigmoidOG, 100, thresholds(m))
			}
		})
	}
}

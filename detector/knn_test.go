package detector

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkKNN scores 1,024 features of 512 numbers against 50,000, the fit set of OpenOOD's
// CIFAR benchmarks; bench/knn/peer.py does the same with other libraries.
func BenchmarkKNN(b *testing.B) {
	const images, features, queries, batch = 50_000, 512, 1024, 64
	r := rand.New(rand.NewPCG(1, 2))
	made := func(n int) *Inputs {
		in := &Inputs{N: n, Logits: make([]float32, n), Feature: make([]float32, n*features)}
		for i := range in.Feature {
			in.Feature[i] = float32(max(r.NormFloat64(), 0))
		}
		return in
	}
	d, err := New("knn", Settings{})
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Begin(Network{Classes: 1, Features: features}); err != nil {
		b.Fatal(err)
	}
	for range images / 1000 {
		if err := d.Fit(made(1000)); err != nil {
			b.Fatal(err)
		}
	}
	if err := d.End(); err != nil {
		b.Fatal(err)
	}
	in, dst := made(queries), make([]float64, batch)
	for b.Loop() {
		for from := 0; from < queries; from += batch {
			if err := d.Score(in.Rows(from, from+batch), dst); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/queries*1e6, "µs/image")
}

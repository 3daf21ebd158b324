package nn

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"nac/internal/kernel"
)

// BenchmarkConv is the arithmetic of single convolutions, forward and to the input's
// gradient, in the shapes that ResNet-20, ResNet-18 and ResNet-50 are made of.
// GFLOP/s counts the direct form's multiplications and additions, so Winograd's
// may exceed what the machine can do.
func BenchmarkConv(b *testing.B) {
	const batch = 32
	for _, c := range []struct {
		in, out, size, kernel, stride int
	}{
		{3, 64, 32, 3, 1},
		{16, 16, 32, 3, 1},
		{32, 32, 16, 3, 1},
		{64, 64, 8, 3, 1},
		{64, 64, 32, 3, 1},
		{64, 128, 32, 3, 2},
		{128, 128, 16, 3, 1},
		{256, 256, 8, 3, 1},
		{512, 512, 4, 3, 1},
		{3, 64, 224, 7, 2},
		{256, 64, 56, 1, 1},
		{64, 64, 56, 3, 1},
		{512, 1024, 28, 1, 2},
		{512, 512, 7, 3, 1},
		{512, 2048, 7, 1, 1},
	} {
		for _, pass := range []string{"forward", "backward"} {
			if pass == "backward" && c.in == 3 {
				continue // nobody wants the gradient of the image
			}
			for _, set := range kernel.Available() {
				b.Run(fmt.Sprintf("%dx%d,%d-%d,%dx%d/%d/%s/%s", c.kernel, c.kernel, c.in, c.out, c.size, c.size, c.stride, pass, set.Name()), func(b *testing.B) {
					r := rand.New(rand.NewPCG(1, 1))
					g := NewGraph()
					x := g.Input(Shape{c.in, c.size, c.size})
					y := g.ReLU(conv(g, r, x, c.out, c.kernel, c.stride, c.kernel/2))
					logits, feature := head(g, r, y, 10)
					want := Want{Logits: logits, Feature: feature}
					if pass == "backward" {
						want.Layers, want.Gradients = []*Node{x}, true
					}
					p, err := Compile(g, want, Options{Kernel: set.Name(), MaxBatch: batch})
					if err != nil {
						b.Fatal(err)
					}
					s := p.NewSession()
					images := normal(r, batch*c.in*c.size*c.size, 1)
					if _, err := s.Run(images, batch); err != nil {
						b.Fatal(err)
					}
					// In order: convolution, linear, linear back, convolution back. What is kept
					// stays in its phase of a pass.
					from, to := 0, 1
					if pass == "backward" {
						from, to = 3, len(p.jobs)
					}
					var kept []job
					seen, head, tail := 0, 0, 0
					for i, j := range p.jobs {
						if _, ok := j.(convolution); !ok {
							continue
						}
						if seen >= from && seen < to {
							kept = append(kept, j)
							if i < p.head {
								head++
							}
							if i < p.tail {
								tail++
							}
						}
						seen++
					}
					p.jobs, p.head, p.tail = kept, head, tail
					b.ResetTimer()
					for range b.N {
						if _, err := s.Run(images, batch); err != nil {
							b.Fatal(err)
						}
					}
					flops := 2 * float64(batch*y.shape.H*y.shape.W*c.kernel*c.kernel*c.in*c.out)
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

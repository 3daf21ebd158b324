package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestProductLayout(t *testing.T) {
	var a ProductArgs
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"In", unsafe.Offsetof(a.In), 0}, {"Weights", unsafe.Offsetof(a.Weights), 8}, {"Out", unsafe.Offsetof(a.Out), 16},
		{"InPlane", unsafe.Offsetof(a.InPlane), 24}, {"OutPlane", unsafe.Offsetof(a.OutPlane), 32}, {"Block", unsafe.Offsetof(a.Block), 40},
		{"Depth", unsafe.Offsetof(a.Depth), 48}, {"Groups", unsafe.Offsetof(a.Groups), 56},
		{"Panels", unsafe.Offsetof(a.Panels), 64}, {"Planes", unsafe.Offsetof(a.Planes), 72}, {"Rest", unsafe.Offsetof(a.Rest), 80},
	} {
		if f.got != f.want {
			t.Errorf("%s lies at %d, the assembly reads it at %d", f.name, f.got, f.want)
		}
	}
}

// productCase is products of random operands between guard values.
type productCase struct {
	in, weights, out []float32
	args             ProductArgs
}

func newProductCase(p Product, depth, groups, rest, panels, planes int) *productCase {
	r := rand.New(rand.NewPCG(1, uint64(depth)))
	random := func(n int) []float32 {
		v := Aligned(n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	block := Lanes * (p.Rows*groups + rest + 1)
	inPlane, outPlane := depth*block+Lanes, panels*p.Width/Lanes*block+2*Lanes
	c := &productCase{in: random(planes * inPlane), weights: random(planes * panels * p.Width * depth * Lanes), out: Aligned(planes * outPlane)}
	for i := range c.out {
		c.out[i] = guard
	}
	c.args = ProductArgs{
		In: &c.in[0], Weights: &c.weights[0], Out: &c.out[0], InPlane: 4 * int64(inPlane), OutPlane: 4 * int64(outPlane), Block: 4 * int64(block),
		Depth: int64(depth), Groups: int64(groups), Panels: int64(panels), Planes: int64(planes), Rest: int64(rest),
	}
	return c
}

func TestProductAgainstFormula(t *testing.T) {
	for _, s := range Available() {
		for _, p := range s.products {
			for _, size := range [][4]int{{1, 1, 1, 1}, {1, 3, 1, 16}, {2, 2, 2, 3}, {5, 1, 3, 36}, {2, 0, 2, 3}} {
				for _, rest := range []int{0, p.Rest} {
					if size[1]+rest == 0 {
						continue // no rows
					}
					t.Run(fmt.Sprintf("%s/%d/%v/%d", s.Name(), p.Width, size, rest), func(t *testing.T) {
						testProduct(t, p, newProductCase(p, size[0], size[1], rest, size[2], size[3]))
					})
				}
			}
		}
	}
}

func testProduct(t *testing.T, p Product, c *productCase) {
	a := &c.args
	p.Run(a)
	depth, block := Lanes*int(a.Depth), int(a.Block/4)
	want := make([]float64, len(c.out))
	for i := range want {
		want[i] = float64(guard)
	}
	for plane := range int(a.Planes) {
		for r := range int(a.Groups)*p.Rows + int(a.Rest) {
			for j := range int(a.Panels) * p.Width {
				sum := 0.0
				for k := range depth {
					x := c.in[plane*int(a.InPlane/4)+k/Lanes*block+Lanes*r+k%Lanes]
					sum += float64(x) * float64(c.weights[((plane*int(a.Panels)+j/p.Width)*depth+k)*p.Width+j%p.Width])
				}
				want[plane*int(a.OutPlane/4)+j/Lanes*block+Lanes*r+j%Lanes] = sum
			}
		}
	}
	for i, v := range c.out {
		if d := math.Abs(float64(v) - want[i]); !(d < 5e-5) {
			t.Fatalf("output %d is %v, want %v", i, v, want[i])
		}
	}
}

func BenchmarkProduct(b *testing.B) {
	for _, s := range Available() {
		for _, p := range s.products {
			for _, planes := range []int{16, 36} {
				b.Run(fmt.Sprintf("%s/%d/planes=%d", s.Name(), p.Width, planes), func(b *testing.B) {
					c := newProductCase(p, p.Width/Lanes, 48/p.Rows, 0, 1, planes)
					b.ResetTimer()
					for range b.N {
						p.Run(&c.args)
					}
					flops := 2 * float64(planes*48*p.Width*p.Width)
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

func TestProductRound(t *testing.T) {
	p := Product{Rows: 12, Rest: 4}
	for _, c := range [][3]int{{1, 0, 4}, {4, 0, 4}, {5, 1, 0}, {12, 1, 0}, {16, 1, 4}, {17, 2, 0}, {64, 5, 4}} {
		if groups, rest := p.Round(c[0]); groups != c[1] || rest != c[2] {
			t.Errorf("%d rows are %d groups and %d, want %d and %d", c[0], groups, rest, c[1], c[2])
		}
	}
}

package nn

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"nac/internal/kernel"
)

// TestPackedWeights looks up every packed weight where convJob and winogradJob say that it
// lies, forward and for the transpose, scaled by a batch norm.
func TestPackedWeights(t *testing.T) {
	for _, set := range kernel.Available() {
		for _, c := range []struct{ cin, cout, size int }{
			{64, 64, 3}, {48, 128, 3}, {20, 96, 2}, {64, 40, 1}, {33, 70, 3}, {130, 96, 1}, {3, 64, 5}, {64, 10, 1},
		} {
			r := rand.New(rand.NewPCG(uint64(c.cin), uint64(c.cout)))
			op := convOp{weight: normal(r, c.cin*c.cout*c.size*c.size, 1), k: ConvShape{Size: c.size, Stride: 1}, scale: make([]float64, c.cout)}
			for i := range op.scale {
				op.scale[i] = r.NormFloat64()
			}
			in, out := newGeometry(Shape{c.cin, 8, 8}), newGeometry(Shape{c.cout, 8, 8})
			scaled := op.scaled().weight
			for _, turned := range []bool{false, true} {
				// value is what joins channel i of what is read with channel o of what is written.
				value := func(i, o, v int) float32 {
					if turned {
						i, o = o, i
					}
					return scaled[(o*c.cin+i)*c.size*c.size+v]
				}
				t.Run(fmt.Sprintf("%s/%d to %d, %dx%d, turned %v", set.Name(), c.cin, c.cout, c.size, c.size, turned), func(t *testing.T) {
					from, to, f := in, out, op.forward(c.cin)
					if turned {
						from, to, f = out, in, op.backward(c.cin)
					}
					testPackedConv(t, set, from, to, c.size, f, value)
					if c.size == 3 {
						testPackedWinograd(t, set, from, to, f, value)
					}
				})
			}
		}
	}
}

func testPackedConv(t *testing.T, set *kernel.Set, in, out *geometry, size int, f filters, value func(i, o, v int) float32) {
	var taps []tap
	for y := range size {
		for x := range size {
			taps = append(taps, tap{y, x, y*size + x})
		}
	}
	j := newConvJob(set, &buffer{geom: in}, &buffer{geom: out}, taps, f, in.channels, out.channels, 1)
	j.packing.all(2)
	// A tap of few channels is one with its neighbours, gaps included.
	step, w := in.channels, j.tile.Width
	if in.stride < 2*in.channels {
		step = in.stride
	}
	if size == 1 {
		step = in.channels
	}
	for p := range j.panels {
		for n, tp := range taps {
			for i := range in.channels {
				for l := range w {
					want := float32(0)
					if o := p*w + l; o < out.channels {
						want = value(i, o, tp.value)
					}
					if got := j.weights[p*j.panelSize+(n*step+i)*w+l]; got != want {
						t.Fatalf("panel %d of width %d, tap %d, channel %d, lane %d: %v, want %v", p, w, n, i, l, got, want)
					}
				}
			}
		}
	}
}

func testPackedWinograd(t *testing.T, set *kernel.Set, in, out *geometry, f filters, value func(i, o, v int) float32) {
	for _, m := range []int{2, 4} {
		j := newWinogradJob(set, m, &buffer{geom: in}, &buffer{geom: out}, 1, f)
		j.pack().all(2)
		planes, w := j.form.Planes(), j.product.Width
		for panel := range j.groups * j.panels {
			g, p := panel/j.panels, panel%j.panels
			for i := range in.channels {
				for l := range w {
					want := make([]float32, planes)
					if o := panel*w + l; o < out.channels {
						var filter [9]float32
						for v := range filter {
							filter[v] = value(i, o, v)
							if f.turned {
								filter[v] = value(i, o, 8-v)
							}
						}
						j.form.Filter(&filter, want, 1)
					}
					for plane, v := range want {
						if got := j.weights[((g*planes+plane)*j.panels+p)*j.cin*w+i*w+l]; got != v {
							t.Fatalf("F%d, panel %d of width %d, plane %d, channel %d, lane %d: %v, want %v", m, panel, w, plane, i, l, got, v)
						}
					}
				}
			}
		}
	}
}

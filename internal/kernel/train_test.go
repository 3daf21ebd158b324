package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestTrainLayouts(t *testing.T) {
	var o OuterArgs
	var c CombineArgs
	var m MomentsArgs
	for name, offsets := range map[string][]uintptr{
		"OuterArgs": {
			unsafe.Offsetof(o.In), unsafe.Offsetof(o.Grad), unsafe.Offsetof(o.Out), unsafe.Offsetof(o.InOff),
			unsafe.Offsetof(o.RunIn), unsafe.Offsetof(o.RunGrad), unsafe.Offsetof(o.Runs), unsafe.Offsetof(o.Pixels),
			unsafe.Offsetof(o.InStep), unsafe.Offsetof(o.GradStep), unsafe.Offsetof(o.Count), unsafe.Offsetof(o.Flags),
		},
		"CombineArgs": {
			unsafe.Offsetof(c.U), unsafe.Offsetof(c.V), unsafe.Offsetof(c.Out), unsafe.Offsetof(c.Mask),
			unsafe.Offsetof(c.A), unsafe.Offsetof(c.B), unsafe.Offsetof(c.D), unsafe.Offsetof(c.Channels),
			unsafe.Offsetof(c.Pixels), unsafe.Offsetof(c.Step), unsafe.Offsetof(c.Flags),
		},
		"MomentsArgs": {
			unsafe.Offsetof(m.U), unsafe.Offsetof(m.V), unsafe.Offsetof(m.S), unsafe.Offsetof(m.T), unsafe.Offsetof(m.K),
			unsafe.Offsetof(m.L), unsafe.Offsetof(m.Channels), unsafe.Offsetof(m.Pixels), unsafe.Offsetof(m.UStep), unsafe.Offsetof(m.VStep),
		},
	} {
		for i, got := range offsets {
			if want := uintptr(8 * i); got != want {
				t.Errorf("%s: field %d lies at %d, the assembly reads it at %d", name, i, got, want)
			}
		}
	}
}

func normals(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func near(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	for i, w := range want {
		g := float64(got[i])
		if math.IsNaN(w) && math.IsNaN(g) {
			continue
		}
		if !(math.Abs(g-w) <= 2e-5*(1+math.Abs(w))) {
			t.Fatalf("%s: value %d is %v, want %v", name, i, g, w)
		}
	}
}

func TestOuter(t *testing.T) {
	for _, s := range Available() {
		for _, o := range s.outers() {
			for _, count := range []int{1, 3} {
				for pixels := 1; pixels <= 5; pixels++ {
					for _, flags := range []int64{0, Accumulate} {
						r := rand.New(rand.NewPCG(uint64(o.Width), uint64(pixels)))
						const inStep, runs, inRun = 21, 3, 140
						gradStep, gradRun := o.Width+3, 6*(o.Width+3)
						in, grad := normals(r, runs*inRun+80), normals(r, runs*gradRun)
						out := normals(r, count*Rows*o.Width+8)
						want := make([]float64, len(out))
						for i, v := range out {
							want[i] = float64(v)
						}
						var runIn, runGrad []int64
						for i := range runs {
							runIn, runGrad = append(runIn, 4*int64(i*inRun)), append(runGrad, 4*int64((runs-1-i)*gradRun))
						}
						off := make([][Rows]int64, count)
						for n := range off {
							for i := range Rows {
								off[n][i] = 4 * int64(r.IntN(30))
								for j := range o.Width {
									sum := 0.0
									for k := range runs {
										for p := range pixels {
											sum += float64(in[(runIn[k]+off[n][i])/4+int64(p*inStep)]) * float64(grad[runGrad[k]/4+int64(p*gradStep+j)])
										}
									}
									if at := (n*Rows+i)*o.Width + j; flags == 0 {
										want[at] = sum
									} else {
										want[at] += sum
									}
								}
							}
						}
						o.Run(&OuterArgs{
							In: &in[0], Grad: &grad[0], Out: &out[0], InOff: &off[0], RunIn: &runIn[0], RunGrad: &runGrad[0],
							Runs: runs, Pixels: int64(pixels), InStep: 4 * inStep, GradStep: 4 * int64(gradStep), Count: int64(count), Flags: flags,
						})
						near(t, fmt.Sprintf("%s, width %d, %d tiles, %d pixels, flags %d", s.Name(), o.Width, count, pixels, flags), out, want)
					}
				}
			}
		}
	}
}

func TestCombine(t *testing.T) {
	const step = 53
	for _, s := range Available() {
		for variant := range 16 {
			for pixels := 1; pixels <= 4; pixels++ {
				const channels = 48
				r := rand.New(rand.NewPCG(uint64(variant), uint64(pixels)))
				u, v, mask, out := normals(r, 4*step), normals(r, 4*step), normals(r, 4*step), normals(r, 4*step)
				a, b, d := normals(r, channels), normals(r, channels), normals(r, channels)
				u[7], mask[8] = float32(math.NaN()), float32(math.NaN())
				args := CombineArgs{U: &u[0], Out: &out[0], A: &a[0], D: &d[0], Channels: channels, Pixels: int64(pixels), Step: 4 * step}
				if variant&1 != 0 {
					args.V, args.B = &v[0], &b[0]
				}
				if variant&2 != 0 {
					args.Mask = &mask[0]
				}
				if variant&4 != 0 {
					args.Flags |= Accumulate
				}
				if variant&8 != 0 {
					args.Flags |= ReLU
				}
				want := make([]float64, len(out))
				for i, o := range out {
					p, c := i/step, i%step
					if want[i] = float64(o); p >= pixels || c >= channels {
						continue
					}
					acc := float64(u[i])*float64(a[c]) + float64(d[c])
					if args.V != nil {
						acc += float64(v[i]) * float64(b[c])
					}
					if args.Mask != nil && !(mask[i] > 0) {
						acc = 0
					}
					if args.Flags&Accumulate != 0 {
						acc += float64(o)
					}
					if args.Flags&ReLU != 0 && acc < 0 {
						acc = 0
					}
					want[i] = acc
				}
				s.Combine()(&args)
				near(t, fmt.Sprintf("%s, variant %d, %d pixels", s.Name(), variant, pixels), out, want)
			}
		}
	}
}

func TestMoments(t *testing.T) {
	const uStep, vStep, channels = 53, 49, 48
	for _, s := range Available() {
		for pixels := 1; pixels <= 4; pixels++ {
			r := rand.New(rand.NewPCG(1, uint64(pixels)))
			u, v := normals(r, 4*uStep), normals(r, 4*vStep)
			k, l, sum, product := normals(r, channels), normals(r, channels), normals(r, channels), normals(r, channels)
			var wantS, wantT []float64
			for c := range channels {
				a, b := float64(sum[c]), float64(product[c])
				for p := range pixels {
					d := float64(u[p*uStep+c]) - float64(k[c])
					a += d
					b += d * (float64(v[p*vStep+c]) - float64(l[c]))
				}
				wantS, wantT = append(wantS, a), append(wantT, b)
			}
			s.Moments()(&MomentsArgs{
				U: &u[0], V: &v[0], S: &sum[0], T: &product[0], K: &k[0], L: &l[0],
				Channels: channels, Pixels: int64(pixels), UStep: 4 * uStep, VStep: 4 * vStep,
			})
			near(t, fmt.Sprintf("%s, sums of %d pixels", s.Name(), pixels), sum, wantS)
			near(t, fmt.Sprintf("%s, products of %d pixels", s.Name(), pixels), product, wantT)
		}
	}
}

func BenchmarkOuter(b *testing.B) {
	for _, s := range Available() {
		o := s.Outer(64)
		b.Run(s.Name(), func(b *testing.B) {
			const pixels, tiles = 1024, 12
			in, grad, out := make([]float32, pixels*64+64), make([]float32, pixels*64), make([]float32, tiles*Rows*o.Width)
			var run [1]int64
			off := make([][Rows]int64, tiles)
			for n := range off {
				for i := range Rows {
					off[n][i] = 4 * int64(n*5+i)
				}
			}
			for b.Loop() {
				o.Run(&OuterArgs{
					In: &in[0], Grad: &grad[0], Out: &out[0], InOff: &off[0], RunIn: &run[0], RunGrad: &run[0],
					Runs: 1, Pixels: pixels, InStep: 256, GradStep: 256, Count: tiles,
				})
			}
			flops := 2 * float64(pixels*tiles*Rows*o.Width)
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

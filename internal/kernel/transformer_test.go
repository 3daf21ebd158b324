package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestTransformerLayouts(t *testing.T) {
	var g GELUArgs
	var s SoftmaxArgs
	var l LayerNormArgs
	var tr TransposeArgs
	for name, offsets := range map[string][]uintptr{
		"gelu":    {unsafe.Offsetof(g.In), unsafe.Offsetof(g.Out), unsafe.Offsetof(g.Rows), unsafe.Offsetof(g.Channels), unsafe.Offsetof(g.Step)},
		"softmax": {unsafe.Offsetof(s.X), unsafe.Offsetof(s.Grad), unsafe.Offsetof(s.Rows), unsafe.Offsetof(s.Cols)},
		"layer norm": {
			unsafe.Offsetof(l.In), unsafe.Offsetof(l.Out), unsafe.Offsetof(l.Weight), unsafe.Offsetof(l.Bias), unsafe.Offsetof(l.Grad),
			unsafe.Offsetof(l.Res), unsafe.Offsetof(l.Rows), unsafe.Offsetof(l.Channels), unsafe.Offsetof(l.Step), unsafe.Offsetof(l.Eps),
		},
		"transpose": {
			unsafe.Offsetof(tr.In), unsafe.Offsetof(tr.InOff), unsafe.Offsetof(tr.Out), unsafe.Offsetof(tr.Cols),
			unsafe.Offsetof(tr.OutStep), unsafe.Offsetof(tr.Scale),
		},
	} {
		for i, got := range offsets {
			if want := uintptr(8 * i); got != want {
				t.Errorf("%s: field %d lies at %d, the assembly reads it at %d", name, i, got, want)
			}
		}
	}
}

// rows are random rows between guard values.
type rows struct {
	r               *rand.Rand
	n, length, step int
}

func (w rows) random(scale float64) []float32 {
	v := make([]float32, w.n*w.step)
	for i := range v {
		v[i] = guard
		if i%w.step < w.length {
			v[i] = float32(w.r.NormFloat64() * scale)
		}
	}
	return v
}

// near compares the rows and their guards; tolerances are relative to the wanted
// value, and absolute.
func (w rows) near(t *testing.T, got []float32, want []float64, relative, absolute float64) {
	t.Helper()
	for i, v := range got {
		if i%w.step >= w.length {
			if v != guard {
				t.Fatalf("wrote behind a row, at %d", i)
			}
			continue
		}
		if d := math.Abs(float64(v) - want[i]); math.IsNaN(want[i]) != math.IsNaN(float64(v)) || d > relative*math.Abs(want[i])+absolute {
			t.Fatalf("%d is %v, want %v: off by %.2g", i, v, want[i], d)
		}
	}
}

func transformers(t *testing.T, f func(t *testing.T, k *Transformer, w rows)) {
	for _, s := range Available() {
		for _, w := range []rows{{n: 1, length: 16, step: 16}, {n: 3, length: 48, step: 51}, {n: 5, length: 208, step: 208}, {n: 2, length: 768, step: 769}} {
			w.r = rand.New(rand.NewPCG(uint64(w.n), uint64(w.length)))
			t.Run(fmt.Sprintf("%s/%dx%d", s.Name(), w.n, w.length), func(t *testing.T) { f(t, s.Transformer(), w) })
		}
	}
}

func TestGELU(t *testing.T) {
	transformers(t, func(t *testing.T, k *Transformer, w rows) {
		x := w.random(3)
		// The ends of the range, where exp(-x*x/2) vanishes, and no number.
		copy(x, []float32{0, float32(math.Copysign(0, -1)), -13.3, 13.3, -100, 100, float32(math.NaN()), 1e30, -1e30, 1e-30})
		grad := w.random(1)
		phi := func(v float64) float64 { return 0.5 * math.Erfc(-v/math.Sqrt2) }
		value, slope := make([]float64, len(x)), make([]float64, len(x))
		for i, v := range x {
			u := float64(v)
			value[i] = u * phi(u)
			slope[i] = float64(grad[i]) * (phi(u) + u*math.Exp(-u*u/2)/math.Sqrt(2*math.Pi))
		}
		a := GELUArgs{In: &x[0], Out: &grad[0], Rows: int64(w.n), Channels: int64(w.length), Step: 4 * int64(w.step)}
		k.GELUBack(&a)
		// Far on the negative side Phi is as good as the square in its exponent.
		w.near(t, grad, slope, 4e-7, 3e-7)
		a.Out = &x[0]
		k.GELU(&a)
		w.near(t, x, value, 4e-7, 1e-7)
	})
}

func TestSoftmax(t *testing.T) {
	for _, spoil := range []float32{0, float32(math.NaN()), float32(math.Inf(-1)), -300} {
		transformers(t, func(t *testing.T, k *Transformer, w rows) {
			w.step = w.length
			x, grad := w.random(4), w.random(1)
			x[3] = spoil
			wantX, wantGrad := make([]float64, len(x)), make([]float64, len(x))
			for i := range w.n {
				row, p, g := x[i*w.length:][:w.length], wantX[i*w.length:], wantGrad[i*w.length:]
				top, sum, dot := math.Inf(-1), 0.0, 0.0
				for _, v := range row {
					top = max(top, float64(v))
				}
				for j, v := range row {
					p[j] = math.Exp(float64(v) - top)
					sum += p[j]
				}
				for j := range row {
					p[j] /= sum
					dot += p[j] * float64(grad[i*w.length+j])
				}
				for j := range row {
					g[j] = p[j] * (float64(grad[i*w.length+j]) - dot)
				}
			}
			a := SoftmaxArgs{X: &x[0], Grad: &grad[0], Rows: int64(w.n), Cols: int64(w.length)}
			k.Softmax(&a)
			// The difference from the row's maximum, some 20 here, is rounded.
			w.near(t, x, wantX, 3e-6, 1e-30)
			k.SoftmaxBack(&a)
			w.near(t, grad, wantGrad, 1e-6, 5e-7)
		})
	}
}

func TestLayerNorm(t *testing.T) {
	for _, channels := range []int{0, -5} { // whole vectors, and not
		for _, add := range []bool{false, true} {
			transformers(t, func(t *testing.T, k *Transformer, w rows) {
				w.length += channels
				x, grad, res, out := w.random(2), w.random(1), w.random(1), w.random(1)
				for i := range x {
					x[i] += 3
				}
				weight, bias := w.random(1)[:w.length], w.random(1)[:w.length]
				const eps = 1e-3
				forward, back := make([]float64, len(x)), make([]float64, len(x))
				for i := range w.n {
					row := x[i*w.step:][:w.length]
					c := float64(len(row))
					mean, square, sum, product := 0.0, 0.0, 0.0, 0.0
					for _, v := range row {
						mean += float64(v) / c
					}
					for _, v := range row {
						square += (float64(v) - mean) * (float64(v) - mean) / c
					}
					inverse := 1 / math.Sqrt(square+eps)
					n := func(j int) float64 { return (float64(row[j]) - mean) * inverse }
					d := func(j int) float64 { return float64(grad[i*w.step+j]) * float64(weight[j]) }
					for j := range row {
						forward[i*w.step+j] = n(j)*float64(weight[j]) + float64(bias[j])
						sum += d(j) / c
						product += d(j) * n(j) / c
					}
					for j := range row {
						back[i*w.step+j] = inverse * (d(j) - sum - n(j)*product)
						if add {
							back[i*w.step+j] += float64(res[i*w.step+j])
						}
					}
				}
				a := LayerNormArgs{
					In: &x[0], Out: &out[0], Weight: &weight[0], Bias: &bias[0], Grad: &grad[0],
					Rows: int64(w.n), Channels: int64(w.length), Step: 4 * int64(w.step), Eps: eps,
				}
				k.LayerNorm(&a)
				w.near(t, out, forward, 1e-6, 1e-6)
				if add {
					copy(out, res)
					a.Res = &out[0]
				}
				k.LayerNormBack(&a)
				w.near(t, out, back, 2e-6, 2e-6)
			})
		}
	}
}

func TestTranspose(t *testing.T) {
	for _, s := range Available() {
		for _, cols := range []int{1, 7, 8, 24, 32} {
			r := rand.New(rand.NewPCG(uint64(cols), 1))
			in, out := make([]float32, 3000), make([]float32, cols*19+16)
			for i := range in {
				in[i] = float32(i)
			}
			for i := range out {
				out[i] = guard
			}
			var off [Lanes]int64
			for i := range off {
				off[i] = 4 * int64(r.IntN(len(in)-cols))
			}
			s.Transformer().Transpose(&TransposeArgs{In: &in[0], InOff: &off, Out: &out[0], Cols: int64(cols), OutStep: 4 * 19, Scale: 0.5})
			for i, got := range out {
				c, row := i/19, i%19
				want := guard
				if row < Lanes && c < cols {
					want = in[int(off[row])/4+c] * 0.5
				}
				if got != want {
					t.Fatalf("%s: %d columns: %d is %v, want %v", s.Name(), cols, i, got, want)
				}
			}
		}
	}
}

func BenchmarkTransformer(b *testing.B) {
	const n, c = 64, 768
	w := rows{rand.New(rand.NewPCG(1, 1)), n, c, c}
	x, y, weight := w.random(1), w.random(1), w.random(1)
	for _, s := range Available() {
		k := s.Transformer()
		ln := LayerNormArgs{In: &x[0], Out: &y[0], Weight: &weight[0], Bias: &weight[0], Grad: &x[0], Rows: n, Channels: c, Step: 4 * c, Eps: 1}
		ge := GELUArgs{In: &x[0], Out: &y[0], Rows: n, Channels: c, Step: 4 * c}
		so := SoftmaxArgs{X: &y[0], Grad: &x[0], Rows: n, Cols: c}
		tr := TransposeArgs{In: &x[0], InOff: new([Lanes]int64), Out: &y[0], Cols: c, OutStep: 64, Scale: 1}
		for i := range tr.InOff {
			tr.InOff[i] = int64(4 * i * c)
		}
		for _, f := range []struct {
			name   string
			run    func()
			values int
		}{
			{"gelu", func() { k.GELU(&ge) }, n * c}, {"gelu back", func() { k.GELUBack(&ge) }, n * c},
			{"softmax", func() { k.Softmax(&so) }, n * c}, {"softmax back", func() { k.SoftmaxBack(&so) }, n * c},
			{"layer norm", func() { k.LayerNorm(&ln) }, n * c}, {"layer norm back", func() { k.LayerNormBack(&ln) }, n * c},
			{"transpose", func() { k.Transpose(&tr) }, Lanes * c},
		} {
			b.Run(f.name+"/"+s.Name(), func(b *testing.B) {
				for range b.N {
					f.run()
				}
				b.ReportMetric(float64(f.values)*float64(b.N)/b.Elapsed().Seconds()/1e9, "G/s")
			})
		}
	}
}

// What is added up is added up in one order by both sets of vector instructions, so that a
// machine that has more yields the same bits.
func TestTransformerBits(t *testing.T) {
	var sets []*Set
	for _, s := range Available() {
		if s != portable {
			sets = append(sets, s)
		}
	}
	if len(sets) < 2 {
		t.Skip("this machine and build have but one set of vector instructions")
	}
	const n, length = 3, 208
	r := rand.New(rand.NewPCG(5, 5))
	fresh := func() []float32 {
		v := make([]float32, n*length)
		for i := range v {
			v[i] = float32(4 * r.NormFloat64())
		}
		v[17], v[length+40], v[length+3] = float32(math.NaN()), float32(math.Inf(-1)), float32(math.Copysign(0, -1))
		return v
	}
	in, grad, weight, bias := fresh(), fresh(), fresh(), fresh()
	results := func(k *Transformer) (all [][]float32) {
		result := func(start []float32, run func(out *float32)) []float32 {
			out := append([]float32(nil), start...)
			run(&out[0])
			all = append(all, out)
			return out
		}
		gelu := GELUArgs{In: &in[0], Rows: n, Channels: length, Step: 4 * length}
		result(in, func(out *float32) { gelu.Out = out; k.GELU(&gelu) })
		result(grad, func(out *float32) { gelu.Out = out; k.GELUBack(&gelu) })
		shares := result(in, func(out *float32) { k.Softmax(&SoftmaxArgs{X: out, Rows: n, Cols: length}) })
		result(grad, func(out *float32) { k.SoftmaxBack(&SoftmaxArgs{X: &shares[0], Grad: out, Rows: n, Cols: length}) })
		norm := LayerNormArgs{
			In: &in[0], Weight: &weight[0], Bias: &bias[0], Grad: &grad[0], Res: &bias[0],
			Rows: n, Channels: length, Step: 4 * length, Eps: 1e-5,
		}
		result(in, func(out *float32) { norm.Out = out; k.LayerNorm(&norm) })
		result(in, func(out *float32) { norm.Out = out; k.LayerNormBack(&norm) })
		norm.Res = nil
		result(in, func(out *float32) { norm.Out = out; k.LayerNormBack(&norm) })
		return all
	}
	want := results(sets[0].Transformer())
	for _, s := range sets[1:] {
		for k, got := range results(s.Transformer()) {
			for i, v := range got {
				if w := want[k][i]; math.Float32bits(v) != math.Float32bits(w) && !(v != v && w != w) {
					t.Fatalf("kernel %d, value %d: %v with %s, %v with %s", k, i, v, s.Name(), w, sets[0].Name())
				}
			}
		}
	}
}

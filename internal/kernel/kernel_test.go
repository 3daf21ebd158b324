package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// The generator writes these offsets into the assembly.
func TestTileArgsLayout(t *testing.T) {
	var a TileArgs
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"In", unsafe.Offsetof(a.In), 0}, {"Weights", unsafe.Offsetof(a.Weights), 8},
		{"Out", unsafe.Offsetof(a.Out), 16}, {"Bias", unsafe.Offsetof(a.Bias), 24},
		{"Res", unsafe.Offsetof(a.Res), 32}, {"Mask", unsafe.Offsetof(a.Mask), 40},
		{"InOff", unsafe.Offsetof(a.InOff), 48}, {"OutOff", unsafe.Offsetof(a.OutOff), 56},
		{"TapOff", unsafe.Offsetof(a.TapOff), 64}, {"Taps", unsafe.Offsetof(a.Taps), 72},
		{"Cin", unsafe.Offsetof(a.Cin), 80}, {"Flags", unsafe.Offsetof(a.Flags), 88},
		{"Count", unsafe.Offsetof(a.Count), 96}, {"Next", unsafe.Offsetof(a.Next), 104},
		{"Last", unsafe.Offsetof(a.Last), 112},
	} {
		if f.got != f.want {
			t.Errorf("%s lies at %d, the assembly reads it at %d", f.name, f.got, f.want)
		}
	}
}

// tileCase is a tile with random operands between guard values.
type tileCase struct {
	width, taps, cin       int
	in, w, out, bias       []float32
	res, mask              []float32
	inOff, outOff          [][Rows]int64
	tapOff                 []int64
	flags                  int64
	useBias, useRes, useMk bool
}

const guard = float32(-77)

func newTileCase(r *rand.Rand, width, taps, cin int) *tileCase {
	c := &tileCase{width: width, taps: taps, cin: cin}
	fill := func(n int) []float32 {
		s := make([]float32, n)
		for i := range s {
			s[i] = float32(r.NormFloat64())
		}
		return s
	}
	const pixels, count = 21, 3
	stride := cin + r.IntN(5)
	c.in = fill((pixels + taps) * stride)
	c.w = fill(taps * cin * width)
	c.bias = fill(width)
	outStride := width + r.IntN(3)
	c.out = fill(pixels * outStride)
	c.res = fill(len(c.out))
	c.mask = fill(len(c.out))
	perm := r.Perm(pixels)
	c.inOff, c.outOff = make([][Rows]int64, count), make([][Rows]int64, count)
	for i := range count * Rows {
		c.inOff[i/Rows][i%Rows] = int64(4 * stride * r.IntN(pixels))
		c.outOff[i/Rows][i%Rows] = int64(4 * outStride * perm[i])
	}
	for t := range taps {
		c.tapOff = append(c.tapOff, int64(4*stride*r.IntN(taps)))
		_ = t
	}
	return c
}

// want is the formula of TileArgs in float64; size bounds the sum of absolute
// products, by which rounding errors are judged.
func (c *tileCase) want() (out []float64, size []float64) {
	out = make([]float64, len(c.out))
	size = make([]float64, len(c.out))
	for i, v := range c.out {
		out[i] = float64(v)
	}
	for i := range len(c.outOff) * Rows {
		inOff, outOff := int(c.inOff[i/Rows][i%Rows]), int(c.outOff[i/Rows][i%Rows])
		for j := range c.width {
			o := outOff/4 + j
			acc := 0.0
			switch {
			case c.flags&Accumulate != 0:
				acc = float64(c.out[o])
			case c.useBias:
				acc = float64(c.bias[j])
			}
			abs := math.Abs(acc)
			for t := range c.taps {
				for k := range c.cin {
					p := float64(c.in[(inOff+int(c.tapOff[t]))/4+k]) * float64(c.w[(t*c.cin+k)*c.width+j])
					acc += p
					abs += math.Abs(p)
				}
			}
			if c.useRes {
				acc += float64(c.res[o])
			}
			if c.flags&ReLU != 0 && acc < 0 {
				acc = 0
			}
			if c.useMk && !(c.mask[o] > 0) {
				acc = 0
			}
			out[o], size[o] = acc, abs
		}
	}
	return out, size
}

func (c *tileCase) run(tile Tile) []float32 {
	guarded := make([]float32, len(c.out)+64)
	for i := range guarded {
		guarded[i] = guard
	}
	out := guarded[32 : 32+len(c.out)]
	copy(out, c.out)
	a := &TileArgs{
		In: &c.in[0], Weights: &c.w[0], Out: &out[0], InOff: &c.inOff[0], OutOff: &c.outOff[0], Count: int64(len(c.inOff)),
		TapOff: &c.tapOff[0], Taps: int64(c.taps), Cin: int64(c.cin), Flags: c.flags,
	}
	if c.useBias {
		a.Bias = &c.bias[0]
	}
	if c.useRes {
		a.Res = &c.res[0]
	}
	if c.useMk {
		a.Mask = &c.mask[0]
	}
	tile.Run(a)
	for i, v := range guarded {
		if (i < 32 || i >= 32+len(c.out)) && v != guard {
			panic(fmt.Sprintf("wrote outside of the output, at %d", i-32))
		}
	}
	return out
}

func everyTile(t *testing.T, f func(t *testing.T, tile Tile)) {
	for _, s := range Available() {
		for _, tile := range s.Tiles() {
			t.Run(fmt.Sprintf("%s/%d", s.Name(), tile.Width), func(t *testing.T) { f(t, tile) })
		}
	}
}

func TestTileAgainstFormula(t *testing.T) {
	everyTile(t, func(t *testing.T, tile Tile) {
		r := rand.New(rand.NewPCG(1, uint64(tile.Width)))
		for cin := 1; cin <= 37; cin++ {
			for _, taps := range []int{1, 2, 3, 9} {
				for opts := range 32 {
					c := newTileCase(r, tile.Width, taps, cin)
					c.flags = int64(opts & 3)
					c.useBias, c.useRes, c.useMk = opts&4 != 0, opts&8 != 0, opts&16 != 0
					want, size := c.want()
					got := c.run(tile)
					for i := range want {
						// Each of n additions rounds by at most half an ulp of the running sum.
						bound := (size[i]+math.Abs(want[i]))*float64(taps*cin+2)*math.Exp2(-24) + 1e-30
						if math.Abs(float64(got[i])-want[i]) > bound {
							t.Fatalf("cin %d taps %d options %b: output %d is %v, want %v", cin, taps, opts, i, got[i], want[i])
						}
					}
				}
			}
		}
	})
}

func TestTileKeepsNaNAndInfinity(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	everyTile(t, func(t *testing.T, tile Tile) {
		r := rand.New(rand.NewPCG(2, 2))
		for _, bad := range []float32{nan, inf, -inf} {
			c := newTileCase(r, tile.Width, 1, 5)
			c.flags = ReLU
			in, outOff := &c.inOff[0], &c.outOff[0]
			// The same again, for kernels of two tiles.
			c.inOff, c.outOff = [][Rows]int64{*in, *in}, [][Rows]int64{*outOff, *outOff}
			in, outOff = &c.inOff[0], &c.outOff[0]
			for i := range Rows { // rows of their own, so that only row 2 is spoilt
				in[i] = int64(i * len(c.in) / 12 * 4)
			}
			c.inOff[1] = *in
			c.tapOff[0] = 0
			for i := range c.w {
				c.w[i] = 1
			}
			c.in[in[2]/4] = bad
			out := c.run(tile)
			for i := range Rows {
				for j := range tile.Width {
					v := out[int(outOff[i])/4+j]
					overlaps := in[i] <= in[2] && in[2] < in[i]+20
					switch {
					case !overlaps && (v != v || math.IsInf(float64(v), 0)):
						t.Fatalf("%v in row 2 spoilt row %d", bad, i)
					case overlaps && bad != bad && v == v:
						t.Fatalf("NaN was lost in row %d: %v", i, v)
					case overlaps && bad == inf && !math.IsInf(float64(v), 1):
						t.Fatalf("infinity was lost in row %d: %v", i, v)
					case overlaps && bad == -inf && v != 0:
						t.Fatalf("ReLU of -infinity is %v", v)
					}
				}
			}
		}
	})
}

// The end of a batch fills a tile by naming its last pixel again.
func TestTileRepeatedPixel(t *testing.T) {
	everyTile(t, func(t *testing.T, tile Tile) {
		r := rand.New(rand.NewPCG(3, 3))
		c := newTileCase(r, tile.Width, 2, 7)
		c.flags, c.useRes, c.useMk = Accumulate|ReLU, true, true
		last := len(c.inOff) - 1
		for i := 2; i < Rows; i++ {
			c.inOff[last][i], c.outOff[last][i] = c.inOff[last][1], c.outOff[last][1]
		}
		want, _ := c.want()
		for i, v := range c.run(tile) {
			if math.Abs(float64(v)-want[i]) > 1e-4 {
				t.Fatalf("output %d is %v, want %v", i, v, want[i])
			}
		}
	})
}

func TestByName(t *testing.T) {
	for _, s := range Available() {
		got, err := ByName(s.Name())
		if err != nil || got != s {
			t.Errorf("ByName(%q) = %v, %v", s.Name(), got, err)
		}
	}
	if _, err := ByName("mmx"); err == nil {
		t.Error("ByName accepts an unknown set")
	}
}

func BenchmarkTile(b *testing.B) {
	for _, s := range Available() {
		for _, tile := range s.Tiles() {
			for _, cin := range []int{16, 64, 256} {
				b.Run(fmt.Sprintf("%s/%d/cin=%d", s.Name(), tile.Width, cin), func(b *testing.B) {
					r := rand.New(rand.NewPCG(1, 1))
					c := newTileCase(r, tile.Width, 9, cin)
					c.w, c.in = append(Aligned(len(c.w))[:0], c.w...), append(Aligned(len(c.in))[:0], c.in...)
					a := &TileArgs{
						In: &c.in[0], Weights: &c.w[0], Out: &c.out[0], InOff: &c.inOff[0], OutOff: &c.outOff[0], Count: int64(len(c.inOff)),
						TapOff: &c.tapOff[0], Taps: 9, Cin: int64(cin), Flags: ReLU,
					}
					b.ResetTimer()
					for range b.N {
						tile.Run(a)
					}
					flops := 2 * float64(len(c.inOff)*Rows*tile.Width*9*cin)
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

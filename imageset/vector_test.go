package imageset

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// portably runs f without vectors, with them, and gives both results to compare.
func portably(t *testing.T, f func() []byte) (want, got []byte) {
	t.Helper()
	if !vectors {
		t.Skip("no vectors on this machine or in this build")
	}
	vectors = false
	want = f()
	vectors = true
	return want, f()
}

// Vectors give the portable code's bytes for any coefficients, also such as overflow.
func TestVectorIDCT(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const stride = 11
	for i := range 200_000 {
		var b [64]int16
		var mask uint64
		size := []int{4, 60, 1000, 9000, 1 << 16}[i%5]
		for range 1 + r.IntN(64) {
			at := r.IntN(64)
			if i%3 == 0 {
				at = at % 8 * 8 / (1 + i/3%2*7) // first column or row
			}
			b[at] = int16(r.IntN(size) - size/2)
			mask |= 1 << at
		}
		mask &^= 1
		want, got := portably(t, func() []byte {
			out := bytes.Repeat([]byte{77}, 8*stride)
			idct(&b, mask, out, stride)
			return out
		})
		if !bytes.Equal(got, want) {
			t.Fatalf("block %d: %v gives %v, want %v", i, b, got, want)
		}
	}
}

func TestVectorYCbCr(t *testing.T) {
	var in [3][]uint8
	for i := range 1 << 24 {
		if i>>16%5 == 0 || i>>8&255 < 2 || i&255 > 253 {
			for c := range in {
				in[c] = append(in[c], uint8(i>>(8*c)))
			}
		}
	}
	for _, n := range []int{1, 15, 16, 17, 18, 24, 25, 26, 343, len(in[0])} {
		want, got := portably(t, func() []byte {
			out := bytes.Repeat([]byte{77}, 3*n+20)
			ycbcrRow(out[:3*n], in[0][:n], in[1][:n], in[2][:n])
			return out
		})
		if !bytes.Equal(got, want) {
			t.Errorf("%d pixels differ", n)
		}
	}
}

func TestVectorResize(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 400 {
		src := &Image{Width: 1 + r.IntN(70), Height: 1 + r.IntN(70)}
		src.Pix = make([]uint8, 3*src.Width*src.Height)
		for k := range src.Pix {
			src.Pix[k] = uint8(r.UintN(256))
			if i%2 == 0 {
				src.Pix[k] = uint8(r.UintN(2) * 255) // filters with negative weights overshoot
			}
		}
		width, height := 1+r.IntN(70), 1+r.IntN(70)
		win := window{r.IntN(width), r.IntN(height), 0, 0}
		win.width, win.height = 1+r.IntN(width-win.x), 1+r.IntN(height-win.y)
		f, stride := Filter(i/2%2), 3*win.width+r.IntN(9)
		want, got := portably(t, func() []byte {
			out := bytes.Repeat([]byte{77}, stride*win.height+40)
			new(resizer).resize(src, f, width, height, win, out, stride)
			return out
		})
		if !bytes.Equal(got, want) {
			t.Fatalf("%dx%d to %dx%d, %+v, %v: bytes differ", src.Width, src.Height, width, height, win, f)
		}
	}
}

package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"nac/internal/kernel"
)

// wideOuter is kernel.OuterArgs' formula for 64 output channels, as the widest vectors
// have it, so that what depends on the width is tested on any machine.
func wideOuter(int) kernel.Outer {
	const w = 64
	return kernel.Outer{Width: w, Run: func(a *kernel.OuterArgs) {
		at := func(p *float32, off int64) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), off)) }
		runIn, runGrad := unsafe.Slice(a.RunIn, a.Runs), unsafe.Slice(a.RunGrad, a.Runs)
		for n, off := range unsafe.Slice(a.InOff, a.Count) {
			for i := range kernel.Rows {
				for j := range w {
					var acc float32
					for r := range a.Runs {
						for p := range a.Pixels {
							acc += *at(a.In, runIn[r]+off[i]+p*a.InStep) * *at(a.Grad, runGrad[r]+p*a.GradStep+4*int64(j))
						}
					}
					*at(a.Out, 4*int64((n*kernel.Rows+i)*w+j)) += acc
				}
			}
		}
	}}
}

// The weight gradient is the sum that defines it, whatever the shape, the number of
// images and the width of the kernel, and the same for any number of workers.
func TestConvGrad(t *testing.T) {
	type outer struct {
		name string
		of   func(int) kernel.Outer
		set  *kernel.Set
	}
	outers := []outer{{"64 wide", wideOuter, kernel.Best()}}
	for _, set := range kernel.Available() {
		outers = append(outers, outer{set.Name(), set.Outer, set})
	}
	for _, c := range []struct {
		in     Shape
		out    int
		k      ConvShape
		images int
	}{
		{Shape{16, 4, 4}, 32, ConvShape{Size: 3, Stride: 1, Pad: 1}, 19},  // blocks of several images
		{Shape{40, 13, 11}, 24, ConvShape{Size: 3, Stride: 2, Pad: 1}, 3}, // part of a slice
		{Shape{32, 35, 50}, 16, ConvShape{Size: 3, Stride: 1, Pad: 1}, 2}, // blocks of rows
		{Shape{3, 37, 37}, 64, ConvShape{Size: 7, Stride: 2, Pad: 3}, 2},
		{Shape{1, 9, 9}, 16, ConvShape{Size: 3, Stride: 1, Pad: 1}, 5},
		{Shape{80, 9, 7}, 48, ConvShape{Size: 1, Stride: 1}, 5},
		{Shape{144, 9, 7}, 128, ConvShape{Size: 1, Stride: 2}, 5},
		{Shape{100, 1, 1}, 70, ConvShape{Size: 1, Stride: 1}, 23}, // linear
		{Shape{96, 6, 6}, 96, ConvShape{Size: 3, Stride: 1, Pad: 1, Groups: 4}, 5},
		{Shape{24, 6, 6}, 48, ConvShape{Size: 3, Stride: 2, Pad: 1, Groups: 12}, 5},
		// By Winograd's transforms.
		{Shape{64, 4, 4}, 64, ConvShape{Size: 3, Stride: 1, Pad: 1}, 53}, // blocks of several images
		{Shape{70, 14, 11}, 100, ConvShape{Size: 3, Stride: 1, Pad: 1}, 3},
		{Shape{96, 9, 10}, 80, ConvShape{Size: 3, Stride: 1}, 4},
	} {
		for _, o := range outers {
			if c.k.Groups > 1 && o.name == "64 wide" {
				continue // groups take the narrowest
			}
			t.Run(fmt.Sprintf("%v-%d,%v,%s", c.in, c.out, c.k, o.name), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				outputs := func(n int) int { return (n+2*c.k.Pad-c.k.Size)/c.k.Stride + 1 }
				in, grad := &buffer{geom: newGeometry(c.in)}, &buffer{slab: 1}
				grad.geom = newGeometry(Shape{c.out, outputs(c.in.H), outputs(c.in.W)})
				if o.name == "64 wide" {
					grad.geom.stride = (c.out + 63) / 64 * 64
				}
				growDirect(c.k, in.geom, grad.geom)
				winograd := winogradGrad(c.k, in.geom, grad.geom)
				if winograd {
					growWinogradGrad(c.k, in.geom, grad.geom)
				}
				ig, og := in.geom, grad.geom
				ws := &workspace{slabs: [][]float32{make([]float32, c.images*ig.image()), make([]float32, c.images*og.image())}}
				for _, b := range []*buffer{in, grad} {
					for image := range c.images {
						for p := range b.geom.pixels() {
							copy(ws.pixel(b, image, p/b.geom.width, p%b.geom.width), normal(r, b.geom.channels, 1))
						}
					}
				}
				groups, size := c.k.groups(), c.k.Size
				cin, per := c.in.C/groups, c.out/groups
				want := make([]float64, c.out*cin*size*size)
				for i := range want {
					out, channel, ky, kx := i/(cin*size*size), i/(size*size)%cin, i/size%size, i%size
					from := out/per*cin + channel
					for image := range c.images {
						for y := range og.height {
							for x := range og.width {
								v := ws.slabs[0][image*ig.image()+ig.offset(y*c.k.Stride+ky-c.k.Pad, x*c.k.Stride+kx-c.k.Pad)+from]
								want[i] += float64(v) * float64(ws.pixel(grad, image, y, x)[out])
							}
						}
					}
				}
				var first []float32
				for _, workers := range []int{1, 3} {
					weight := make([]float32, len(want))
					var j job = newConvGradJob(o.of, convOp{k: c.k}, in, grad, c.images+1, weight)
					if winograd {
						j = newWinogradGradJob(o.set, o.of, convOp{k: c.k}, in, grad, weight)
					}
					s := &scratch{}
					s.grad.grow([]job{j})
					for task := range tasks(j, c.images, workers) {
						j.run(ws, c.images, task, workers, s)
					}
					// A sum of N products of normal numbers is about sqrt(N) in size and rounded
					// by sqrt(N) times the unit of its last addends, 2^-24 of that, or less;
					// Winograd's transforms round three times as coarsely.
					n := float64(c.images * og.pixels())
					for i, v := range weight {
						if math.Abs(float64(v)-want[i]) > 6*n/(1<<24)+1e-6 {
							t.Fatalf("%d workers: gradient %d is %v, want %v", workers, i, v, want[i])
						}
					}
					if first == nil {
						first = weight
					}
					for i, v := range weight {
						if v != first[i] {
							t.Fatalf("gradient %d depends on the number of workers: %v, %v", i, v, first[i])
						}
					}
				}
			})
		}
	}
}

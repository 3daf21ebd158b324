// Command extract writes what a network yields for lists of images, one
// safetensors file a list, for study.py: logits, feature, label, and the pooled
// states LAYER.z and gradients LAYER.g of every layer.
//
//	go run ./bench/nac-auto/extract -arch resnet20 -checkpoint FILE -images DIR -out DIR LIST.txt...
//
// -far also writes OOD images made of the first list's, as far.KIND: nothing but ID
// images is needed for them.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"nac/arch"
	"nac/imageset"
	"nac/internal/safetensors"
	"nac/weights"
)

var (
	name       = flag.String("arch", "", "architecture")
	checkpoint = flag.String("checkpoint", "", "checkpoint")
	images     = flag.String("images", "", "folder that paths in lists are relative to")
	out        = flag.String("out", "", "folder to write to")
	resize     = flag.Int("resize", 32, "length of the shorter side")
	mean       = flag.String("mean", "0.485,0.456,0.406", "mean of the channels")
	std        = flag.String("std", "0.229,0.224,0.225", "standard deviation of the channels")
	quality    = flag.Int("jpeg", 0, "write every image to be given to the network as JPEG of this quality and read it back; 0 does not")
	far        = flag.Bool("far", false, "also write far-OOD images made of the first list's")
)

func main() {
	flag.Parse()
	if err := run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(lists []string) error {
	sd, err := weights.Open(*checkpoint)
	if err != nil {
		return err
	}
	m, err := arch.Load(*name, sd)
	if err != nil {
		return err
	}
	r := arch.Request{Gradients: true}
	for _, l := range m.Layers {
		if l.Channels != m.Classes { // the logits themselves
			r.Layers = append(r.Layers, l.Name)
		}
	}
	const batch = 32
	e, err := m.NewExtractor(r, batch, 0)
	if err != nil {
		return err
	}
	t := imageset.Transform{Resize: *resize, Crop: m.InputSize[1], Filter: imageset.Bilinear}
	for i, s := range []string{*mean, *std} {
		to := []*[3]float32{&t.Mean, &t.Std}[i]
		if _, err := fmt.Sscanf(s, "%g,%g,%g", &to[0], &to[1], &to[2]); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	size := 3 * m.InputSize[1] * m.InputSize[2]
	for i, path := range lists {
		list, err := imageset.ReadList(path, *images)
		if err != nil {
			return err
		}
		stream := imageset.Load(context.Background(), list, imageset.LoadOptions{
			Transform: t, Height: m.InputSize[1], Width: m.InputSize[2], BatchSize: batch,
		})
		set := newSet(m, e, t)
		made := map[string]*rows{}
		for {
			b, err := stream.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if err := set.add(b.Images, b.Labels, b.N); err != nil {
				return err
			}
			if *far && i == 0 {
				for _, kind := range kinds {
					if made[kind.name] == nil {
						made[kind.name] = newSet(m, e, t)
					}
					changed := make([]float32, b.N*size)
					r := rand.New(rand.NewPCG(uint64(b.Index[0]), 1))
					for j := range b.N {
						kind.make(b.Images[j*size:][:size], changed[j*size:][:size], m.InputSize[1], r)
					}
					if err := made[kind.name].add(changed, make([]int, b.N), b.N); err != nil {
						return err
					}
				}
			}
			b.Release()
		}
		stream.Close()
		if err := set.write(strings.TrimSuffix(filepath.Base(path), ".txt")); err != nil {
			return err
		}
		for kind, s := range made {
			if err := s.write("far." + kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// rows gathers the rows of a set.
type rows struct {
	model           *arch.Model
	extract         *arch.Extractor
	transform       imageset.Transform
	n               int
	logits, feature []float32
	labels          []int32
	z, g            map[string][]float32
}

func newSet(m *arch.Model, e *arch.Extractor, t imageset.Transform) *rows {
	return &rows{model: m, extract: e, transform: t, z: map[string][]float32{}, g: map[string][]float32{}}
}

func (s *rows) add(images []float32, labels []int, n int) error {
	if *quality > 0 {
		images = append([]float32(nil), images...)
		size := len(images) / n
		for i := range n {
			if err := s.jpeg(images[i*size:][:size]); err != nil {
				return err
			}
		}
	}
	b, err := s.extract.Run(images, n)
	if err != nil {
		return err
	}
	s.n += n
	s.logits, s.feature = append(s.logits, b.Logits...), append(s.feature, b.Feature...)
	for _, l := range labels {
		s.labels = append(s.labels, int32(l))
	}
	for _, l := range b.States {
		s.z[l.Name], s.g[l.Name] = append(s.z[l.Name], l.Z...), append(s.g[l.Name], l.G...)
	}
	return nil
}

// jpeg leaves in a normalised image what JPEG leaves of it. ID images that are JPEG
// at the network's resolution can be told from all others by that alone.
func (s *rows) jpeg(x []float32) error {
	side := s.model.InputSize[1]
	plane := side * side
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range plane {
		for c := range 3 {
			img.Pix[4*i+c] = uint8(min(max(255*(x[c*plane+i]*s.transform.Std[c]+s.transform.Mean[c])+0.5, 0), 255))
		}
		img.Pix[4*i+3] = 255
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: *quality}); err != nil {
		return err
	}
	back, err := imageset.DecodeBytes("jpeg", b.Bytes())
	if err != nil {
		return err
	}
	whole := s.transform
	whole.Resize, whole.Crop = 0, 0
	return whole.Apply(back, x)
}

func (s *rows) write(name string) error {
	tensors := []safetensors.Tensor{
		safetensors.Float32("logits", []int{s.n, s.model.Classes}, s.logits),
		safetensors.Float32("feature", []int{s.n, s.model.Features}, s.feature),
		safetensors.Int32("label", []int{s.n}, s.labels),
	}
	head := s.model.Head()
	tensors = append(tensors, safetensors.Float32("head.weight", []int{s.model.Classes, s.model.Features}, head.Weight),
		safetensors.Float32("head.bias", []int{s.model.Classes}, head.Bias))
	for _, l := range s.model.Layers {
		if s.z[l.Name] != nil {
			tensors = append(tensors, safetensors.Float32(l.Name+".z", []int{s.n, l.Channels}, s.z[l.Name]),
				safetensors.Float32(l.Name+".g", []int{s.n, l.Channels}, s.g[l.Name]))
		}
	}
	fmt.Println(name, s.n)
	return safetensors.Write(filepath.Join(*out, name+".safetensors"), tensors, nil)
}

// kinds are ways to make a far-OOD image of an ID one.
var kinds = []struct {
	name string
	make func(in, out []float32, side int, r *rand.Rand)
}{
	// Pixels in another order: the colours stay, all structure goes.
	{"shuffle", func(in, out []float32, side int, r *rand.Rand) {
		plane := side * side
		for i, j := range r.Perm(plane) {
			for c := range 3 {
				out[c*plane+i] = in[c*plane+j]
			}
		}
	}},
	// Each pixel of the image drawn between its least and its largest value.
	{"noise", func(in, out []float32, side int, r *rand.Rand) {
		plane := side * side
		for c := range 3 {
			low, high := in[c*plane], in[c*plane]
			for _, v := range in[c*plane:][:plane] {
				low, high = min(low, v), max(high, v)
			}
			for i := range plane {
				out[c*plane+i] = low + (high-low)*r.Float32()
			}
		}
	}},
	// The mean of each quarter of the side: blobs.
	{"blocks", func(in, out []float32, side int, r *rand.Rand) {
		block := side / 4
		for c := range 3 {
			for y := 0; y < side; y += block {
				for x := 0; x < side; x += block {
					sum := float32(0)
					for v := range block {
						for u := range block {
							sum += in[(c*side+y+v)*side+x+u]
						}
					}
					for v := range block {
						for u := range block {
							out[(c*side+y+v)*side+x+u] = sum / float32(block*block)
						}
					}
				}
			}
		}
	}},
	// The image in pieces of a quarter of the side, in another order.
	{"jigsaw", func(in, out []float32, side int, r *rand.Rand) {
		block := side / 4
		for to, from := range r.Perm(16) {
			for c := range 3 {
				for y := range block {
					copy(out[(c*side+to/4*block+y)*side+to%4*block:][:block], in[(c*side+from/4*block+y)*side+from%4*block:][:block])
				}
			}
		}
	}},
	// Bright where the image is above its mean, else dark: no texture, no colour.
	{"binary", func(in, out []float32, side int, r *rand.Rand) {
		plane := side * side
		grey := make([]float32, plane)
		mean := float32(0)
		for i := range plane {
			grey[i] = in[i] + in[plane+i] + in[2*plane+i]
			mean += grey[i] / float32(plane)
		}
		for i := range plane {
			v := float32(-1.8)
			if grey[i] > mean {
				v = 2
			}
			for c := range 3 {
				out[c*plane+i] = v
			}
		}
	}},
	// A piece of a quarter of the side, repeated: a texture.
	{"tile", func(in, out []float32, side int, r *rand.Rand) {
		block := side / 4
		top, left := r.IntN(side-block+1), r.IntN(side-block+1)
		for c := range 3 {
			for y := range side {
				for x := range side {
					out[(c*side+y)*side+x] = in[(c*side+top+y%block)*side+left+x%block]
				}
			}
		}
	}},
	// Differences of neighbouring pixels on black: a line drawing.
	{"edges", func(in, out []float32, side int, _ *rand.Rand) {
		plane := side * side
		grey := func(y, x int) float32 {
			i := min(y, side-1)*side + min(x, side-1)
			return (in[i] + in[plane+i] + in[2*plane+i]) / 3
		}
		for y := range side {
			for x := range side {
				d := max(abs(grey(y, x)-grey(y+1, x)), abs(grey(y, x)-grey(y, x+1)))
				for c := range 3 {
					out[(c*side+y)*side+x] = min(-2+4*d, 2.3)
				}
			}
		}
	}},
	// A quarter of the side, enlarged without smoothing.
	{"zoom", func(in, out []float32, side int, r *rand.Rand) {
		top, left := r.IntN(side-side/4+1), r.IntN(side-side/4+1)
		for c := range 3 {
			for y := range side {
				for x := range side {
					out[(c*side+y)*side+x] = in[(c*side+top+y/4)*side+left+x/4]
				}
			}
		}
	}},
}

func abs(v float32) float32 { return max(v, -v) }

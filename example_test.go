package nac_test

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"nac"
	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/nn"
)

// ownNetwork is a classifier written by hand: red or blue? Real weights would come
// from a checkpoint, opened with package weights.
func ownNetwork() (*arch.Model, error) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []float32 {
		w := make([]float32, n)
		for i := range w {
			w[i] = float32(r.NormFloat64()) / 5
		}
		return w
	}
	head := arch.Head{Weight: random(2 * 16), Bias: make([]float32, 2)}
	filters := random(16 * 3 * 3 * 3)               // of 16 channels, 3 colours, 3x3 pixels
	filters[0*27+0*9+4], filters[1*27+2*9+4] = 2, 2 // red and blue
	head.Weight[1*16+0], head.Weight[0*16+1] = 2, 2

	g := nn.NewGraph()
	picture := g.Input(nn.Shape{C: 3, H: 16, W: 16})
	conv := g.ReLU(g.Conv(picture, filters, nil, nn.ConvShape{Size: 3, Stride: 1, Pad: 1}))
	feature := g.GlobalAvgPool(conv)
	return arch.Network{
		Name: "red or blue", Graph: g, Input: picture,
		Feature: feature, Logits: g.Linear(feature, head.Weight, head.Bias), Head: head,
		Layers: []arch.NamedNode{{Name: "conv", Node: conv}, {Name: "feature", Node: feature}},
	}.Model()
}

// asTrained is how that network wants its images.
var asTrained = imageset.Transform{
	Resize: 16, Crop: 16,
	Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225},
}

// A network of one's own with a detector: fitted on a folder of images, then asked
// about two others.
func ExampleNewModel() {
	dir, err := os.MkdirTemp("", "red-or-blue-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	images, red, checkered, err := pictures(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	network, err := ownNetwork() // an arch.Network, in ten lines
	if err != nil {
		fmt.Println(err)
		return
	}
	m := nac.NewModel(network, "red or blue, 1")
	d, err := nac.Fit(context.Background(), m, images, nac.FitOptions{Detector: "nac", Transform: asTrained})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{red, checkered} {
		r, err := d.ScoreFile(context.Background(), path)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s, out of distribution: %v\n", filepath.Base(path), r.ClassName, r.OOD)
	}
	// Output:
	// red.png: red, out of distribution: false
	// checkered.png: red, out of distribution: true
}

// TestOwnNetwork has every detector work with a network that is in no table.
func TestOwnNetwork(t *testing.T) {
	images, red, checkered, err := pictures(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	network, err := ownNetwork()
	if err != nil {
		t.Fatal(err)
	}
	m := nac.NewModel(network, "red or blue, 1")
	for _, key := range detector.Keys() {
		t.Run(key, func(t *testing.T) {
			d, err := nac.Fit(t.Context(), m, images, nac.FitOptions{Detector: key, Transform: asTrained})
			if err != nil {
				t.Fatal(err)
			}
			id, err := d.ScoreFile(t.Context(), red)
			if err != nil {
				t.Fatal(err)
			}
			ood, err := d.ScoreFile(t.Context(), checkered)
			if err != nil {
				t.Fatal(err)
			}
			if id.OOD || id.ClassName != "red" || id.Score == ood.Score {
				t.Errorf("red: %+v, checkered: %+v", id, ood)
			}
		})
	}
}

// pictures makes a folder of reddish and bluish images, and two more images.
func pictures(dir string) (images imageset.List, red, checkered string, err error) {
	r := rand.New(rand.NewPCG(3, 4))
	paint := func(path string, pixel func(x, y int) color.RGBA) string {
		m := image.NewRGBA(image.Rect(0, 0, 16, 16))
		for i := range 256 {
			m.Set(i%16, i/16, pixel(i%16, i/16))
		}
		path = filepath.Join(dir, path)
		if e := os.MkdirAll(filepath.Dir(path), 0o777); e != nil {
			err = e
			return path
		}
		f, e := os.Create(path)
		if e != nil {
			err = e
			return path
		}
		defer f.Close()
		if e := png.Encode(f, m); e != nil {
			err = e
		}
		return path
	}
	some := func(from, n int) uint8 { return uint8(from + r.IntN(n)) }
	of := func(hue, shade int) func(x, y int) color.RGBA {
		return func(int, int) color.RGBA {
			c := color.RGBA{some(40, 30), some(60, 30), some(40, 30), 255}
			if v := some(130+shade, 30); hue == 0 {
				c.R = v
			} else {
				c.B = v
			}
			return c
		}
	}
	for i := range 100 {
		paint(fmt.Sprintf("train/red/%d.png", i), of(0, r.IntN(80)))
		paint(fmt.Sprintf("train/blue/%d.png", i), of(1, r.IntN(80)))
	}
	red = paint("red.png", of(0, 40))
	checkered = paint("checkered.png", func(x, y int) color.RGBA {
		v := uint8(255 * ((x/2 + y/2) % 2))
		return color.RGBA{v, 255 - v, v, 255}
	})
	if err == nil {
		images, err = imageset.ReadFolder(filepath.Join(dir, "train"))
	}
	return images, red, checkered, err
}

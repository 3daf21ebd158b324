package nac_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nac"
	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/nn"
	"nac/quickstart"
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

// example is that network, images to fit on, and two more to ask about; remove deletes
// the images.
func example() (m *nac.Model, images imageset.List, red, checkered string, remove func()) {
	dir, err := os.MkdirTemp("", "red-or-blue-")
	if err != nil {
		log.Fatal(err)
	}
	if images, red, checkered, err = pictures(dir); err != nil {
		log.Fatal(err)
	}
	network, err := ownNetwork()
	if err != nil {
		log.Fatal(err)
	}
	return nac.NewModel(network, "red or blue, 1"), images, red, checkered, func() { os.RemoveAll(dir) }
}

// A model from a file, here the one that is built in.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "fashion-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := quickstart.Extract(dir); err != nil {
		log.Fatal(err)
	}
	m, err := nac.Open(filepath.Join(dir, quickstart.Checkpoint), "resnet20")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Info().Classes, m.Info().Input)
	// Output: 8 [3 32 32]
}

// Everything is chosen but what the network's file does not tell: how its images were
// normalised.
func ExampleFit() {
	m, images, _, _, remove := example()
	defer remove()
	d, err := nac.Fit(context.Background(), m, images, nac.FitOptions{Transform: asTrained, Rate: 0.1})
	if err != nil {
		log.Fatal(err)
	}
	info := d.Info()
	fmt.Println(info.Detector, info.Settings.LayerNames)
	fmt.Printf("fitted on %d images, calibrated on %d for a false-alarm rate of %v\n", info.Fit.Images, info.Threshold.Images, info.Rate)
	// Output:
	// nac_auto [feature conv]
	// fitted on 160 images, calibrated on 40 for a false-alarm rate of 0.1
}

func ExampleDetector_Score() {
	m, images, _, checkered, remove := example()
	defer remove()
	d, err := nac.Fit(context.Background(), m, images, nac.FitOptions{Transform: asTrained})
	if err != nil {
		log.Fatal(err)
	}
	img, err := imageset.Decode(checkered) // or DecodeBytes of what a request brought
	if err != nil {
		log.Fatal(err)
	}
	r, err := d.Score(context.Background(), img)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("OOD: %v, p = %.3f\n", r.OOD, r.PValue)
	// Output: OOD: true, p = 0.024
}

// A detector is saved once, and loaded wherever images are to be judged.
func ExampleLoad() {
	m, images, red, _, remove := example()
	defer remove()
	d, err := nac.Fit(context.Background(), m, images, nac.FitOptions{Transform: asTrained})
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(red), "detector.nac")
	if err := d.Save(file); err != nil {
		log.Fatal(err)
	}

	loaded, err := nac.Load(file, m)
	if err != nil {
		log.Fatal(err)
	}
	result, err := loaded.ScoreFile(context.Background(), red)
	fmt.Println(result.ClassName, result.OOD, err)
	// Output: red false <nil>
}

// Explain says which layers an image's activations are strange in.
func ExampleDetector_Explain() {
	m, images, _, checkered, remove := example()
	defer remove()
	d, err := nac.Fit(context.Background(), m, images, nac.FitOptions{Transform: asTrained, Detector: "nac"})
	if err != nil {
		log.Fatal(err)
	}
	img, err := imageset.Decode(checkered)
	if err != nil {
		log.Fatal(err)
	}
	e, err := d.Explain(context.Background(), img)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range e.Layers {
		fmt.Printf("%s: less covered than 95 %% of ID images: %v\n", l.Layer, l.Covered < l.Low)
	}
	// Output:
	// feature: less covered than 95 % of ID images: true
	// conv: less covered than 95 % of ID images: true
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

// TestConcurrentUse scores, explains, describes and stores one detector from many
// goroutines: all get what one alone gets. Some give up at once.
func TestConcurrentUse(t *testing.T) {
	m, images, red, checkered, remove := example()
	defer remove()
	for _, key := range []string{"nac", "nac_auto", "mds", "react"} {
		d, err := nac.Fit(t.Context(), m, images, nac.FitOptions{Detector: key, Transform: asTrained})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]nac.Result{}
		for _, path := range []string{red, checkered} {
			if want[path], err = d.ScoreFile(t.Context(), path); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(t.TempDir(), "detector.nac")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var wait sync.WaitGroup
		for i := range 16 {
			wait.Go(func() {
				path := []string{red, checkered}[i%2]
				for range 8 {
					if r, err := d.ScoreFile(t.Context(), path); err != nil || r != want[path] {
						t.Errorf("%s: %+v, %v", path, r, err)
					}
				}
				switch i % 4 {
				case 0:
					if _, err := d.ScoreFile(gone, path); !errors.Is(err, context.Canceled) {
						t.Errorf("given up: %v", err)
					}
				case 1:
					img, err := imageset.Decode(path)
					if err != nil {
						t.Error(err)
						return
					}
					if e, err := d.Explain(t.Context(), img); !errors.Is(err, nac.ErrNoCoverage) && (err != nil || e.Result != want[path]) {
						t.Errorf("explained: %v", err)
					}
				case 2:
					other, err := d.WithRate(0.2)
					if err != nil {
						t.Error(err)
						return
					}
					if r, err := other.ScoreFile(t.Context(), path); err != nil || r.Score != want[path].Score {
						t.Errorf("at another rate: %+v, %v", r, err)
					}
				case 3:
					if err := d.Save(file); err != nil || d.Info().Detector != key {
						t.Errorf("saved: %v", err)
					}
				}
			})
		}
		wait.Wait()
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

package train

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nac/imageset"
	"nac/internal/safetensors"
	"nac/nn"
)

// fill is the rule of bench/train/golden.py.
func fill(name string, n int, low, high float64) []float32 {
	h := uint64(0xcbf29ce484222325)
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	v := make([]float32, n)
	for i := range v {
		z := h + uint64(i) + 0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		v[i] = float32(low + (high-low)*float64((z^z>>31)>>40)/(1<<24))
	}
	return v
}

func golden(t *testing.T) *safetensors.File {
	f, err := safetensors.Read("testdata/pytorch.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func compare(t *testing.T, f *safetensors.File, name string, got []float32, tolerance float64) {
	t.Helper()
	want, _, err := f.Float32s(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	for i, w := range want {
		if !(math.Abs(float64(got[i]-w)) <= tolerance*(1+math.Abs(float64(w)))) {
			t.Fatalf("%s: value %d is %v, want %v", name, i, got[i], w)
		}
	}
}

func TestOptimizersLikePyTorch(t *testing.T) {
	f := golden(t)
	for name, s := range map[string]OptimizerSettings{
		"sgd": SGD(0, false, 0.01), "momentum": SGD(0.9, false, 0.01), "nesterov": SGD(0.9, true, 0.01),
		"adam": Adam(0.01), "adamw": AdamW(0.01),
	} {
		p := &nn.Parameter{Value: fill("value", 17, -1, 1), Grad: make([]float32, 17)}
		o, err := NewOptimizer(s, []*nn.Parameter{p})
		if err != nil {
			t.Fatal(err)
		}
		for step := range 5 {
			copy(p.Grad, fill(fmt.Sprintf("grad.%d", step), 17, -1, 1))
			o.Step(0.1 / float64(step+1))
		}
		compare(t, f, "optimizer."+name, p.Value, 1e-6)
	}
}

func TestLossesLikePyTorch(t *testing.T) {
	f := golden(t)
	logits := fill("logits", 20, -1, 1)
	for i := range logits {
		logits[i] *= 4
	}
	weights := []float64{0.5, 2, 1, 0.25}
	for name, c := range map[string]CrossEntropy{
		"plain": {}, "smooth": {Smoothing: 0.1}, "weighted": {Weights: weights}, "both": {Smoothing: 0.2, Weights: weights},
	} {
		grad := make([]float32, 20)
		loss := c.Loss(logits, []int{1, 0, 3, 2, 3}, grad)
		compare(t, f, "loss."+name, []float32{float32(loss)}, 1e-6)
		compare(t, f, "loss."+name+".grad", grad, 1e-6)
	}
	grad := make([]float32, 9)
	loss := BinaryCrossEntropy(logits[:9], fill("targets", 9, 0, 1), grad)
	compare(t, f, "loss.binary", []float32{float32(loss)}, 1e-6)
	compare(t, f, "loss.binary.grad", grad, 1e-6)
}

// Changes of colour are those of torchvision on Pillow images, bit for bit.
func TestColoursLikeTorchvision(t *testing.T) {
	f := golden(t)
	pixels, shape, err := f.Uint8s("colour.image")
	if err != nil {
		t.Fatal(err)
	}
	changes := map[string]func(*imageset.Image, float64){
		"brightness": brighten, "contrast": contrast, "saturation": saturate, "hue": turnHue,
		"grey": func(img *imageset.Image, _ float64) { saturate(img, 0) },
	}
	seen := 0
	for _, name := range f.Names() {
		change, found := strings.CutPrefix(name, "colour.")
		if !found || change == "image" {
			continue
		}
		kind, factor, _ := strings.Cut(change, ".")
		x, _ := strconv.ParseFloat(factor, 64)
		img := &imageset.Image{Width: shape[1], Height: shape[0], Pix: slices.Clone(pixels)}
		changes[kind](img, x)
		want, _, err := f.Uint8s(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if img.Pix[i] != want[i] {
				t.Errorf("%s: byte %d of pixel %v is %d, want %d", name, i, pixels[i/3*3:i/3*3+3], img.Pix[i], want[i])
				break
			}
		}
		seen++
	}
	if seen != 13 {
		t.Errorf("%d changes compared", seen)
	}
}

func noise(width, height int) *imageset.Image {
	img := &imageset.Image{Width: width, Height: height, Pix: make([]uint8, 3*width*height)}
	for i, v := range fill("noise", len(img.Pix), 0, 256) {
		img.Pix[i] = uint8(v)
	}
	return img
}

package openood

import (
	"math"
	"path/filepath"
	"sync"
	"testing"

	"nac/arch"
	"nac/imageset"
	"nac/internal/shareddata"
	"nac/weights"
)

// A real ImageNet-1k network: MobileNetV2 with TensorFlow's weights, on one image
// of every third class, prepared in two ways that PyTorch was measured with too.
func TestRealImageNetNetwork(t *testing.T) {
	dir := shareddata.Unpacked(t)
	list, err := imageset.ReadList(
		filepath.Join(dir, "benchmark_imglist/imagenet/test_imagenet_sample.txt"), filepath.Join(dir, "images_largescale"))
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 334 {
		t.Fatalf("%d images, want 334", len(list.Items))
	}
	sd, err := weights.Open(filepath.Join(dir, "checkpoints/mobilenet_v2_1.0_224_dequant.pth"))
	if err != nil {
		t.Fatal(err)
	}
	rounded, torchvision := prepared(t, list)
	for _, c := range []struct {
		arch                 string
		rounded, torchvision int // right in PyTorch, the former as stated beside the data
	}{{"mobilenet_v2_same", 301, 300}, {"mobilenet_v2", 279, 277}} {
		m, err := arch.Load(c.arch, sd)
		if err != nil {
			t.Fatal(err)
		}
		if got := right(t, m, rounded, list.Items); got != c.rounded {
			t.Errorf("%s, sides rounded: %d right, want %d", c.arch, got, c.rounded)
		}
		if got := right(t, m, torchvision, list.Items); got != c.torchvision {
			t.Errorf("%s, torchvision's transform: %d right, want %d", c.arch, got, c.torchvision)
		}
	}
}

const imageNetInput = 3 * 224 * 224

// prepared brings the shorter side to 256 and takes the middle 224x224, with
// the longer side and the border rounded to the nearest or as torchvision
// does, down and to even.
func prepared(t *testing.T, list imageset.List) (rounded, torchvision []float32) {
	mean := [3]float32{128. / 255, 128. / 255, 128. / 255}
	cut := imageset.Transform{Crop: 224, Mean: mean, Std: mean}
	whole := cut
	whole.Resize = 256
	rounded = make([]float32, len(list.Items)*imageNetInput)
	torchvision = make([]float32, len(list.Items)*imageNetInput)
	prepare := func(i int) error {
		img, err := imageset.Decode(list.Items[i].Path)
		if err != nil {
			return err
		}
		if err := whole.Apply(img, torchvision[i*imageNetInput:][:imageNetInput]); err != nil {
			return err
		}
		scale := 256 / float64(min(img.Width, img.Height))
		side := func(n int) int { return int(math.RoundToEven(float64(n) * scale)) }
		if img, err = img.Resized(side(img.Width), side(img.Height), imageset.Bilinear); err != nil {
			return err
		}
		return cut.Apply(middle(img), rounded[i*imageNetInput:][:imageNetInput])
	}
	var wait sync.WaitGroup
	errs := make(chan error, len(list.Items))
	for worker := range 2 {
		wait.Go(func() {
			for i := worker; i < len(list.Items); i += 2 {
				if err := prepare(i); err != nil {
					errs <- err
				}
			}
		})
	}
	wait.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	return rounded, torchvision
}

// middle cuts out 224x224, borders rounded down.
func middle(img *imageset.Image) *imageset.Image {
	out := &imageset.Image{Width: 224, Height: 224}
	top, left := (img.Height-224)/2, (img.Width-224)/2
	for y := range 224 {
		out.Pix = append(out.Pix, img.Pix[3*((top+y)*img.Width+left):][:3*224]...)
	}
	return out
}

func right(t *testing.T, m *arch.Model, images []float32, items []imageset.Item) int {
	const batch = 32
	e, err := m.NewExtractor(arch.Request{}, batch, 0)
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for first := 0; first < len(items); first += batch {
		n := min(batch, len(items)-first)
		got, err := e.Run(images[first*imageNetInput:], n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			logits := got.Logits[i*m.Classes:][:m.Classes]
			best := 0
			for k, v := range logits {
				if v > logits[best] {
					best = k
				}
			}
			if best == items[first+i].Label {
				right++
			}
		}
	}
	return right
}

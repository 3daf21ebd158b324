package imageset

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"nac/internal/shareddata"
)

// TestCropSide has torchvision's center_crop: int(round((size-crop)/2)), halves
// to even, and for a smaller picture half of the padding before, rounded down.
func TestCropSide(t *testing.T) {
	for _, c := range []struct{ size, crop, from, n, at int }{
		{10, 10, 0, 10, 0},
		{11, 10, 0, 10, 0}, // 0.5 -> 0
		{13, 10, 2, 10, 0}, // 1.5 -> 2
		{15, 10, 2, 10, 0}, // 2.5 -> 2
		{17, 10, 4, 10, 0}, // 3.5 -> 4
		{14, 10, 2, 10, 0},
		{7, 10, 0, 7, 1},
		{6, 10, 0, 6, 2},
	} {
		if from, n, at := cropSide(c.size, c.crop); from != c.from || n != c.n || at != c.at {
			t.Errorf("%d cropped to %d: from %d, %d pixels, at %d; want %+v", c.size, c.crop, from, n, at, c)
		}
	}
}

func TestLayout(t *testing.T) {
	imagenet, _ := Preset("imagenet")
	for _, c := range []struct{ w, h, rw, rh int }{
		{500, 375, 341, 256}, // 256*500/375 = 341.33
		{375, 500, 256, 341},
		{256, 300, 256, 300}, // already there
		{300, 256, 300, 256},
		{257, 256, 257, 256},
		{1, 3, 256, 768},
		{100, 100, 256, 256},
	} {
		if l := imagenet.layout(c.w, c.h); l.width != c.rw || l.height != c.rh || l.outWidth != 224 || l.outHeight != 224 {
			t.Errorf("%dx%d: %+v, want %dx%d", c.w, c.h, l, c.rw, c.rh)
		}
	}
}

func gradient(w, h int) *Image {
	m := &Image{Width: w, Height: h, Pix: make([]uint8, 3*w*h)}
	for i := range m.Pix {
		m.Pix[i] = uint8(i*7 + i/(3*w)*13)
	}
	return m
}

// TestWindow checks that computing a window alone changes none of its pixels.
func TestWindow(t *testing.T) {
	src := gradient(61, 47)
	for _, f := range []Filter{Bilinear, Bicubic} {
		for _, size := range [][2]int{{30, 25}, {61, 20}, {100, 47}, {90, 80}, {61, 47}} {
			w, h := size[0], size[1]
			full := make([]uint8, 3*w*h)
			new(resizer).resize(src, f, w, h, window{0, 0, w, h}, full, 3*w)
			win := window{5, 3, w - 11, h - 9}
			part := make([]uint8, 3*win.width*win.height)
			new(resizer).resize(src, f, w, h, win, part, 3*win.width)
			for y := range win.height {
				a := full[3*(w*(y+win.y)+win.x):][:3*win.width]
				if n, _ := differ(part[3*win.width*y:][:3*win.width], a); n > 0 {
					t.Fatalf("%v to %dx%d: row %d of the window has %d other values", f, w, h, y, n)
				}
			}
		}
	}
}

func TestPadding(t *testing.T) {
	src := gradient(3, 2)
	got, err := Transform{Crop: 5, Std: [3]float32{1, 1, 1}}.Pixels(src)
	if err != nil {
		t.Fatal(err)
	}
	for y := range 5 {
		for x := range 5 {
			for c := range 3 {
				want := uint8(0)
				if x >= 1 && x < 4 && y >= 1 && y < 3 {
					want = src.Pix[3*(3*(y-1)+x-1)+c]
				}
				if v := got.Pix[3*(5*y+x)+c]; v != want {
					t.Errorf("(%d,%d) channel %d is %d, want %d", x, y, c, v, want)
				}
			}
		}
	}
}

func TestPresets(t *testing.T) {
	for _, name := range PresetNames() {
		tr, err := Preset(name)
		if err != nil || tr.Validate() != nil {
			t.Errorf("%s: %v, %v", name, err, tr.Validate())
		}
	}
	if _, err := Preset("cifar11"); err == nil || !strings.Contains(err.Error(), "cifar10, cifar100") {
		t.Errorf("an unknown preset: %v", err)
	}
	if f, err := ParseFilter("nearest"); err == nil {
		t.Errorf("an unknown filter is %v", f)
	}
}

func TestTransformFaults(t *testing.T) {
	good := Transform{Resize: 8, Crop: 8, Std: [3]float32{1, 1, 1}}
	img := gradient(9, 9)
	nan := float32(math.NaN())
	for name, bad := range map[string]Transform{
		"std 0":     {Resize: 8, Crop: 8},
		"std NaN":   {Resize: 8, Crop: 8, Std: [3]float32{1, nan, 1}},
		"mean NaN":  {Resize: 8, Crop: 8, Mean: [3]float32{nan}, Std: good.Std},
		"resize -1": {Resize: -1, Crop: 8, Std: good.Std},
		"crop 2^20": {Resize: 8, Crop: 1 << 20, Std: good.Std},
		"filter 7":  {Resize: 8, Crop: 8, Filter: 7, Std: good.Std},
	} {
		if err := bad.Apply(img, make([]float32, 3*64)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := good.Apply(img, make([]float32, 3*63)); err == nil {
		t.Error("too little room: no error")
	}
	if err := good.Apply(&Image{Width: 9, Height: 9, Pix: make([]uint8, 9)}, make([]float32, 3*64)); err == nil {
		t.Error("an image with too few bytes: no error")
	}
	// A sliver becomes very long when its short side is resized. Cropped, that is
	// cheap; whole, it must be refused.
	sliver := gradient(1, 60000)
	if err := (Transform{Resize: 224, Crop: 224, Std: good.Std}).Apply(sliver, make([]float32, 3*224*224)); err != nil {
		t.Errorf("a sliver: %v", err)
	}
	if _, err := (Transform{Resize: 10000, Std: good.Std}).Pixels(sliver); err == nil {
		t.Error("a sliver blown up to 6 Tpixel: no error")
	}
}

// TestRealPixels compares decoding and the CIFAR transform of 3,000 real images,
// most of them JPEG with chroma at half size, with the reference's pixels.
func TestRealPixels(t *testing.T) {
	g := readGolden(t, shareddata.Path(t, "golden", "real_cifar10_pixels.safetensors"))
	dir := shareddata.Unpacked(t)
	tr, err := Preset("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	for set, file := range map[string]string{"main_train": "main_train_cifar10", "val": "val_cifar10", "ood_val": "val_tin"} {
		list, err := ReadList(dir+"/benchmark_imglist/cifar10/"+file+".txt", dir+"/images_classic")
		if err != nil {
			t.Fatal(err)
		}
		want := g.bytes(t, set+".pixels", 1000, 3, 32, 32)
		if len(list.Items) != 1000 {
			t.Fatalf("%s has %d images", file, len(list.Items))
		}
		bad := 0
		for i, item := range list.Items {
			img, err := Decode(item.Path)
			if err != nil {
				t.Fatal(err)
			}
			out, err := tr.Pixels(img)
			if err != nil {
				t.Fatal(err)
			}
			if n, worst := differ(planes(out), want[i*3*32*32:][:3*32*32]); n > 0 {
				if bad++; bad <= 5 {
					t.Errorf("%s: %d values differ, by up to %d", item.Path, n, worst)
				}
			}
		}
		if bad > 0 {
			t.Errorf("%s: %d of 1000 images differ", set, bad)
		}
	}
}

func TestTransformJSON(t *testing.T) {
	for _, name := range PresetNames() {
		want, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Transform
		if err := json.Unmarshal(data, &got); err != nil || got != want {
			t.Errorf("%s: %+v becomes %s, becomes %+v (%v)", name, want, data, got, err)
		}
	}
	var got Transform
	if err := json.Unmarshal([]byte(`{"filter":"nearest"}`), &got); err == nil {
		t.Error("an unknown filter is read")
	}
}

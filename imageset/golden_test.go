package imageset

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/internal/shareddata"
)

// goldenImages opens the reference's numbers and lists its images.
func goldenImages(t testing.TB) (golden, string, []string) {
	t.Helper()
	g := readGolden(t, shareddata.Path(t, "golden", "preprocess.safetensors"))
	dir := shareddata.Path(t, "golden", "images")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return g, dir, names
}

// differ counts the values that are not equal.
func differ(a, b []uint8) (n, worst int) {
	if len(a) != len(b) {
		return max(len(a), len(b)), 255
	}
	for i := range a {
		if d := int(a[i]) - int(b[i]); d != 0 {
			n++
			worst = max(worst, d, -d)
		}
	}
	return n, worst
}

func TestDecodeGolden(t *testing.T) {
	g, dir, names := goldenImages(t)
	if len(names) != 11 {
		t.Errorf("%d images, the reference has 11", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			img, err := Decode(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			want := g.bytes(t, name+"|decoded", img.Height, img.Width, 3)
			if n, worst := differ(img.Pix, want); n > 0 {
				t.Errorf("%d of %d values differ from Pillow's, by up to %d", n, len(want), worst)
			}
		})
	}
}

// TestTransformGolden compares every transform tensor of the reference, bit for
// bit, beginning from its decoded pixels.
func TestTransformGolden(t *testing.T) {
	g, _, _ := goldenImages(t)
	seen := 0
	for _, key := range g.Names() {
		name, what, _ := strings.Cut(key, "|")
		if name == "ramp" || what == "decoded" {
			continue
		}
		seen++
		t.Run(key, func(t *testing.T) {
			size := g.shape(t, name+"|decoded")
			decoded := g.bytes(t, name+"|decoded", size...)
			img := &Image{Width: size[1], Height: size[0], Pix: slices.Clone(decoded)}
			if what, ok := strings.CutPrefix(what, "resize."); ok {
				filterName, _, _ := strings.Cut(what, "_")
				f, err := ParseFilter(filterName)
				if err != nil {
					t.Fatal(err)
				}
				shape := g.shape(t, key)
				h, w := shape[0], shape[1]
				out := make([]uint8, 3*h*w)
				new(resizer).resize(img, f, w, h, window{0, 0, w, h}, out, 3*w)
				if n, worst := differ(out, g.bytes(t, key, h, w, 3)); n > 0 {
					t.Errorf("%d values differ, by up to %d", n, worst)
				}
				return
			}
			preset, isBytes := strings.CutSuffix(what, ".u8")
			tr, err := Preset(strings.TrimPrefix(preset, "tvs_"))
			if err != nil {
				t.Fatal(err)
			}
			if isBytes {
				got, err := tr.Pixels(img)
				if err != nil {
					t.Fatal(err)
				}
				want := g.bytes(t, key, 3, got.Height, got.Width)
				if n, worst := differ(planes(got), want); n > 0 {
					t.Errorf("%d values differ, by up to %d", n, worst)
				}
				return
			}
			h, w := tr.Size()
			if h == 0 {
				h, w = img.Height, img.Width
			}
			want := g.floats(t, key, 3, h, w)
			got := make([]float32, len(want))
			if err := tr.Apply(img, got); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("value %d is %v, want %v", i, got[i], want[i])
				}
			}
			if n, worst := differ(img.Pix, decoded); n > 0 {
				t.Errorf("the picture itself was changed: %d values by up to %d", n, worst)
			}
		})
	}
	if seen != 106 {
		t.Errorf("compared %d tensors, the reference has 106", seen)
	}
}

func planes(m *Image) []uint8 {
	n := m.Width * m.Height
	out := make([]uint8, 3*n)
	for i := range n {
		for c := range 3 {
			out[c*n+i] = m.Pix[3*i+c]
		}
	}
	return out
}

// TestNormalizeGolden puts every byte through ToTensor and Normalize.
func TestNormalizeGolden(t *testing.T) {
	g, _, _ := goldenImages(t)
	ramp := &Image{Width: 256, Height: 1, Pix: make([]uint8, 3*256)}
	for i := range ramp.Pix {
		ramp.Pix[i] = uint8(i / 3)
	}
	for _, set := range []string{"cifar10", "cifar100", "imagenet"} {
		tr, err := Preset(set)
		if err != nil {
			t.Fatal(err)
		}
		tr.Resize, tr.Crop = 0, 0
		want := g.floats(t, "ramp|"+set, 3, 256)
		got := make([]float32, 3*256)
		if err := tr.Apply(ramp, got); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				t.Errorf("%s: byte %d in channel %d gives %v, want %v", set, i%256, i/256, got[i], want[i])
			}
		}
	}
}

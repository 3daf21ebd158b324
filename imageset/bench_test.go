package imageset

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"nac/internal/shareddata"
)

// benchFiles are real JPEG files: of 32, 64 and some 500 pixels a side, and those of the folder
// NAC_JPEGS, which is how progressive files are measured.
func benchFiles(b testing.TB) map[string][][]byte {
	dir := shareddata.Unpacked(b)
	sets := map[string][][]byte{}
	if own := os.Getenv("NAC_JPEGS"); own != "" {
		paths, err := filepath.Glob(filepath.Join(own, "*.jpg"))
		if err != nil || len(paths) == 0 {
			b.Fatalf("NAC_JPEGS: no *.jpg in %s", own)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				b.Fatal(err)
			}
			sets["own"] = append(sets["own"], data)
		}
	}
	for name, list := range map[string]string{"cifar": "cifar10/val_cifar10", "tin": "cifar10/val_tin", "imagenet": "imagenet/test_imagenet_sample"} {
		root := filepath.Join(dir, "images_classic")
		if name == "imagenet" {
			root = filepath.Join(dir, "images_largescale")
		}
		l, err := ReadList(filepath.Join(dir, "benchmark_imglist", list+".txt"), root)
		if err != nil {
			b.Fatal(err)
		}
		for _, item := range l.Items[:min(len(l.Items), 300)] {
			data, err := os.ReadFile(item.Path)
			if err != nil {
				b.Fatal(err)
			}
			m, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			of := name + "-444"
			switch m := m.(type) {
			case *image.Gray:
				of = name + "-grey"
			case *image.YCbCr:
				if m.SubsampleRatio == image.YCbCrSubsampleRatio420 {
					of = name + "-420"
				} else if m.SubsampleRatio != image.YCbCrSubsampleRatio444 {
					continue
				}
			}
			if len(sets[of]) < 50 {
				sets[of] = append(sets[of], data)
			}
		}
	}
	return sets
}

// BenchmarkJPEG compares with image/jpeg: its decoding alone, which leaves YCbCr
// with small chroma, and with conversion to RGBA, which is what equals ours in
// kind.
func BenchmarkJPEG(b *testing.B) {
	sets := benchFiles(b)
	for _, set := range slices.Sorted(maps.Keys(sets)) {
		files := sets[set]
		run := func(name string, f func(data []byte) int) {
			b.Run(set+"/"+name, func(b *testing.B) {
				pixels := 0
				for i := range b.N {
					pixels += f(files[i%len(files)])
				}
				b.ReportMetric(float64(pixels)/1e6/b.Elapsed().Seconds(), "Mpixel/s")
			})
		}
		var d decoder
		run("ours-to-RGB", func(data []byte) int {
			m, err := d.decode("", data, MaxPixels)
			if err != nil {
				b.Fatal(err)
			}
			return m.Width * m.Height
		})
		run("image-jpeg", func(data []byte) int {
			m, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			return m.Bounds().Dx() * m.Bounds().Dy()
		})
		var rgba *image.RGBA
		run("image-jpeg-to-RGBA", func(data []byte) int {
			m, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			if rgba == nil || rgba.Rect != m.Bounds() {
				rgba = image.NewRGBA(m.Bounds())
			}
			draw.Draw(rgba, rgba.Rect, m, m.Bounds().Min, draw.Src)
			return m.Bounds().Dx() * m.Bounds().Dy()
		})
	}
}

func BenchmarkTransform(b *testing.B) {
	for _, c := range []struct {
		preset string
		w, h   int
	}{{"cifar10", 32, 32}, {"cifar10", 64, 64}, {"cifar10", 500, 375}, {"imagenet", 500, 375}, {"swin_t_v1", 500, 375}} {
		tr, err := Preset(c.preset)
		if err != nil {
			b.Fatal(err)
		}
		img := gradient(c.w, c.h)
		dst := make([]float32, 3*tr.Crop*tr.Crop)
		var a applier
		b.Run(fmt.Sprintf("%s/%dx%d", c.preset, c.w, c.h), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := a.set(tr); err != nil {
					b.Fatal(err)
				}
				if err := a.apply(img, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoader reads the 1,000 images of a list from files to float batches.
func BenchmarkLoader(b *testing.B) {
	dir := shareddata.Unpacked(b)
	tr, err := Preset("cifar10")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"val_cifar10", "val_tin", "test_mnist", "test_texture"} {
		list, err := ReadList(filepath.Join(dir, "benchmark_imglist/cifar10", name+".txt"), filepath.Join(dir, "images_classic"))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				l := Load(context.Background(), list, LoadOptions{Transform: tr, BatchSize: 200})
				for {
					batch, err := l.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					n += batch.N
					batch.Release()
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "images/s")
		})
	}
}

package imageset

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/tiff"
)

// Whatever the bytes, no panic, no hang and no more pixels than allowed. Each
// format has a target of its own, whose inputs begin as that format's files do.

func pillowFiles(f *testing.F, names ...string) [][]byte {
	var files [][]byte
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("testdata", "pillow", name))
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, data)
	}
	return files
}

// fuzzFormat decodes what repair makes of the fuzzer's bytes.
func fuzzFormat(f *testing.F, repair func([]byte) []byte, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d decoder
		img, err := d.decode("fuzz", repair(bytes.Clone(data)), 1<<20)
		if err == nil && (img.Width*img.Height > 1<<20 || len(img.Pix) != 3*img.Width*img.Height) {
			t.Errorf("%dx%d with %d bytes", img.Width, img.Height, len(img.Pix))
		}
	})
}

// beginning puts a format's magic number in front of the bytes.
func beginning(magic string) func([]byte) []byte {
	return func(data []byte) []byte {
		if len(data) < len(magic) {
			return []byte(magic)
		}
		copy(data, magic)
		return data
	}
}

// sealPNG makes a PNG of the bytes whose checksums fit, for a fuzzer does not find them.
func sealPNG(data []byte) []byte {
	data = beginning(pngMagic)(data)
	for p := len(pngMagic); p+12 <= len(data); {
		n := int64(binary.BigEndian.Uint32(data[p:]))
		if n > int64(len(data)-p-12) {
			break
		}
		end := p + 8 + int(n)
		binary.BigEndian.PutUint32(data[end:], crc32.ChecksumIEEE(data[p+4:end]))
		p = end + 4
	}
	return data
}

func FuzzPNG(f *testing.F) {
	fuzzFormat(f, sealPNG, append(pillowFiles(f, "one.png", "grey16.png", "la.png", "transparent.png"),
		pngFile(f, image.NewNRGBA64(image.Rect(0, 0, 3, 2))),
		pngFile(f, image.NewPaletted(image.Rect(0, 0, 3, 5), color.Palette{color.Black, color.NRGBA{1, 2, 3, 4}})))...)
}

func FuzzGIF(f *testing.F) {
	fuzzFormat(f, beginning("GIF8"), pillowFiles(f, "transparent.gif")...)
}

func FuzzBMP(f *testing.F) {
	fuzzFormat(f, beginning("BM"), pillowFiles(f, "palette.bmp", "one.bmp", "raw_565.bmp", "raw_32_v5.bmp", "raw_os2_4.bmp", "raw_runs8.bmp", "raw_runs4.bmp")...)
}

func FuzzTIFF(f *testing.F) {
	seeds := pillowFiles(f, "grey16.tif", "palette.tif", "raw_rgb_planes_tiles.tif", "raw_premultiplied.tif", "raw_cmyk.tif", "raw_float.tif",
		"raw_orientation_6.tif", "jpeg.tif", "group3.tif", "group4.tif", "packbits.tif")
	for _, o := range []*tiff.Options{nil, {Compression: tiff.Deflate, Predictor: true}} {
		for _, m := range []image.Image{image.NewGray(image.Rect(0, 0, 9, 5)), image.NewNRGBA(image.Rect(0, 0, 3, 2))} {
			var b bytes.Buffer
			if err := tiff.Encode(&b, m, o); err != nil {
				f.Fatal(err)
			}
			seeds = append(seeds, b.Bytes())
		}
	}
	fuzzFormat(f, func(data []byte) []byte {
		if len(data) > 0 && data[0]%2 == 1 {
			return beginning("II*\x00")(data)
		}
		return beginning("MM\x00*")(data)
	}, seeds...)
}

func FuzzWebP(f *testing.F) {
	fuzzFormat(f, func(data []byte) []byte {
		if data = beginning("RIFF")(data); len(data) >= 12 {
			binary.LittleEndian.PutUint32(data[4:], uint32(len(data)-8))
			copy(data[8:], "WEBP")
		}
		return data
	}, pillowFiles(f, "lossy.webp", "alpha.webp", "lossless.webp", "frames.webp")...)
}

func FuzzJPEG(f *testing.F) {
	f.Add(jpegFile(f, 17, 9))
	for _, name := range []string{"prog_4x1_3x5.jpg", "seq_2x2_2x1_1x2_3x5.jpg", "cmyk_2.jpg", "prog_3_scans.jpg", "restart_lost.jpg"} {
		data, err := os.ReadFile(filepath.Join("testdata", "pillow", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	var used jpegDecoder // keeps memory from one input to the next
	f.Fuzz(func(t *testing.T, data []byte) {
		var fresh jpegDecoder
		var a, b Image
		err := fresh.decode(data, 1<<20, &a)
		again := used.decode(data, 1<<20, &b)
		if (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
			t.Fatalf("a used decoder: %v, a fresh one: %v", again, err)
		}
		if err == nil && (!bytes.Equal(a.Pix, b.Pix) || len(a.Pix) != 3*a.Width*a.Height) {
			t.Fatal("a used decoder gives other pixels")
		}
	})
}

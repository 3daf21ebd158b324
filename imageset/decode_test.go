package imageset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"nac/internal/shareddata"
)

// TestDecodeFaults has files that are no pictures, or lie about their size.
func TestDecodeFaults(t *testing.T) {
	bigPNG := pngFile(t, image.NewGray(image.Rect(0, 0, 4, 4)))
	binary.BigEndian.PutUint32(bigPNG[16:], 1<<30)
	binary.BigEndian.PutUint32(bigPNG[29:], crc32.ChecksumIEEE(bigPNG[12:29]))
	widePNG := pngFile(t, image.NewGray(image.Rect(0, 0, 4, 4)))
	binary.BigEndian.PutUint32(widePNG[16:], 10000)
	binary.BigEndian.PutUint32(widePNG[20:], 10000)
	binary.BigEndian.PutUint32(widePNG[29:], crc32.ChecksumIEEE(widePNG[12:29]))
	// 800x800 pixels of 64 bits: 5 MB, of which deflate makes 5 kB and no less.
	deepPNG := pngFile(t, image.NewNRGBA64(image.Rect(0, 0, 4, 4)))
	binary.BigEndian.PutUint32(deepPNG[16:], 800)
	binary.BigEndian.PutUint32(deepPNG[20:], 800)
	binary.BigEndian.PutUint32(deepPNG[29:], crc32.ChecksumIEEE(deepPNG[12:29]))
	good := jpegFile(t, 40, 30)
	sof := bytes.Index(good, []byte{0xff, 0xc0})
	lying := bytes.Clone(good)
	copy(lying[sof+5:], []byte{0x27, 0x10, 0x27, 0x10}) // 10000x10000
	huge := bytes.Clone(good)
	copy(huge[sof+5:], []byte{0xff, 0xdc, 0xff, 0xdc})
	twelve := bytes.Clone(good)
	twelve[sof+4] = 12
	for name, c := range map[string]struct {
		data []byte
		want string
		is   error
	}{
		"empty":          {nil, "empty", nil},
		"text":           {[]byte("hello, world"), "not a known", ErrFormat},
		"html":           {[]byte("<html><body>404"), "not a known", ErrFormat},
		"png start":      {[]byte("\x89PNG\r\n\x1a\n"), "PNG", nil},
		"gif start":      {[]byte("GIF89a"), "GIF", nil},
		"bmp start":      {[]byte("BM"), "BMP", nil},
		"tiff start":     {[]byte("II*\x00"), "TIFF", nil},
		"webp start":     {[]byte("RIFF\x00\x00\x00\x00WEBP"), "WebP", nil},
		"jpeg start":     {[]byte("\xff\xd8\xff"), "cut off", nil},
		"png cut":        {pngFile(t, image.NewGray(image.Rect(0, 0, 40, 40)))[:60], "PNG", nil},
		"png 2^30 wide":  {bigPNG, "too large", ErrTooLarge},
		"png lying deep": {deepPNG, "too large", ErrTooLarge},
		"png lying":      {widePNG, "too large", ErrTooLarge},
		"jpeg lying":     {lying, "too large", ErrTooLarge},
		"jpeg huge":      {huge, "too large", ErrTooLarge},
		"jpeg 12 bits":   {twelve, "12 bits", nil},
		"jpeg cut":       {good[:len(good)/2+200], "cut off", nil},
		"jpeg no end":    {good[:len(good)-2], "cut off", nil},
		"jpeg tables":    {append(bytes.Clone(good[:sof]), 0xff, 0xd9), "no picture", nil},
		"jpeg no scan":   {append(bytes.Clone(good[:sof+19]), 0xff, 0xd9), "no image data", nil},
		"jpeg lossless":  {bytes.Replace(good, []byte{0xff, 0xc0}, []byte{0xff, 0xc3}, 1), "lossless", nil},
		"jpeg arith":     {bytes.Replace(good, []byte{0xff, 0xc0}, []byte{0xff, 0xc9}, 1), "arithmetic", nil},
		"jpeg two sof":   {append(bytes.Clone(good[:sof+19]), good[sof:]...), "second frame", nil},
		"jpeg no quant":  {append([]byte{0xff, 0xd8}, good[sof:]...), "quantisation table", nil},
		"jpeg sampling":  {patch(good, sof+11, 0x50), "sampling", nil},
		"jpeg sampling3": {patch(good, sof+11, 0x31, 0, 2, 0x21), "sampling", nil},
	} {
		img, err := DecodeBytes("the file", c.data)
		if err == nil {
			t.Errorf("%s: a picture of %dx%d", name, img.Width, img.Height)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "the file") || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: the error is %q, want one with %q", name, err, c.want)
		}
	}
	if _, err := Decode(t.TempDir()); err == nil {
		t.Error("a folder: no error")
	}
}

func patch(data []byte, at int, with ...byte) []byte {
	data = bytes.Clone(data)
	copy(data[at:], with)
	return data
}

func pngFile(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// jpegFile is a 4:2:0 JPEG of a made-up picture.
func jpegFile(t testing.TB, w, h int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	r := rand.New(rand.NewPCG(1, 2))
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, color.RGBA{uint8(x * 5), uint8(y*3 + r.IntN(20)), uint8(x * y / 8), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 85}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDecodeCutEverywhere cuts off a JPEG and a PNG at every byte: never a
// picture, never a panic.
func TestDecodeCutEverywhere(t *testing.T) {
	dir := shareddata.Path(t, "golden", "images")
	for _, name := range []string{"photo_47x33_444.jpg", "photo_64x64_gray.jpg", "gray16_30x20.png"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for n := range data {
			if _, err := DecodeBytes(name, data[:n]); err == nil {
				// PNG's last chunk says nothing but that the file ends.
				if n < len(data)-12 || strings.HasSuffix(name, "jpg") {
					t.Errorf("%s cut off after %d of %d bytes is a picture", name, n, len(data))
				}
			}
		}
	}
}

// TestDecodeFormats encodes the same colours in each format that keeps them.
func TestDecodeFormats(t *testing.T) {
	src := image.NewNRGBA(image.Rect(0, 0, 13, 7))
	want := make([]uint8, 0, 3*13*7)
	for i := 0; i < len(src.Pix); i += 4 {
		src.Pix[i], src.Pix[i+1], src.Pix[i+2], src.Pix[i+3] = uint8(i), uint8(3*i+1), uint8(5*i+2), 255
		want = append(want, src.Pix[i:i+3]...)
	}
	pal := image.NewPaletted(src.Rect, color.Palette{color.NRGBA{9, 8, 7, 255}, color.NRGBA{200, 100, 50, 255}})
	wantPal := make([]uint8, 0, len(want))
	for i := range pal.Pix {
		pal.Pix[i] = uint8(i % 3 % 2)
		c := pal.Palette[pal.Pix[i]].(color.NRGBA)
		wantPal = append(wantPal, c.R, c.G, c.B)
	}
	grey := image.NewGray(src.Rect)
	wantGrey := make([]uint8, 0, len(want))
	for i := range grey.Pix {
		grey.Pix[i] = uint8(i * 2)
		wantGrey = append(wantGrey, uint8(i*2), uint8(i*2), uint8(i*2))
	}
	alpha := image.NewNRGBA(src.Rect)
	copy(alpha.Pix, src.Pix)
	for i := 3; i < len(alpha.Pix); i += 4 {
		alpha.Pix[i] = uint8(i) // dropped, not blended
	}
	encode := func(f func(b *bytes.Buffer) error) []byte {
		var b bytes.Buffer
		if err := f(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		data []byte
		want []uint8
	}{
		"png":          {pngFile(t, src), want},
		"png alpha":    {pngFile(t, alpha), want},
		"png palette":  {pngFile(t, pal), wantPal},
		"png grey":     {pngFile(t, grey), wantGrey},
		"bmp":          {encode(func(b *bytes.Buffer) error { return bmp.Encode(b, src) }), want},
		"bmp palette":  {encode(func(b *bytes.Buffer) error { return bmp.Encode(b, pal) }), wantPal},
		"bmp grey":     {encode(func(b *bytes.Buffer) error { return bmp.Encode(b, grey) }), wantGrey},
		"tiff":         {encode(func(b *bytes.Buffer) error { return tiff.Encode(b, src, nil) }), want},
		"tiff deflate": {encode(func(b *bytes.Buffer) error { return tiff.Encode(b, grey, &tiff.Options{Compression: tiff.Deflate}) }), wantGrey},
		"gif":          {encode(func(b *bytes.Buffer) error { return gif.Encode(b, pal, nil) }), wantPal},
	} {
		img, err := DecodeBytes(name, c.data)
		if err != nil {
			t.Error(err)
			continue
		}
		if n, worst := differ(img.Pix, c.want); img.Width != 13 || img.Height != 7 || n > 0 {
			t.Errorf("%s: %dx%d, %d values differ by up to %d", name, img.Width, img.Height, n, worst)
		}
	}
}

// TestGIFCanvas has a frame smaller than its canvas.
func TestGIFCanvas(t *testing.T) {
	frame := image.NewPaletted(image.Rect(2, 1, 4, 3), color.Palette{color.RGBA{10, 20, 30, 255}, color.RGBA{200, 0, 0, 255}})
	for i := range frame.Pix {
		frame.Pix[i] = 1
	}
	var b bytes.Buffer
	err := gif.EncodeAll(&b, &gif.GIF{Image: []*image.Paletted{frame}, Delay: []int{0}, Config: image.Config{Width: 6, Height: 4, ColorModel: frame.Palette}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := DecodeBytes("x.gif", b.Bytes())
	if err != nil || img.Width != 6 || img.Height != 4 {
		t.Fatalf("%v, %v", img, err)
	}
	for y := range 4 {
		for x := range 6 {
			want := uint8(10)
			if x >= 2 && x < 4 && y >= 1 && y < 3 {
				want = 200
			}
			if got := img.Pix[3*(6*y+x)]; got != want {
				t.Errorf("(%d,%d) is %d, want %d", x, y, got, want)
			}
		}
	}
}

// TestCMYK compares with what Pillow makes of inks (c, m, y, k).
func TestCMYK(t *testing.T) {
	for _, c := range []struct{ c, m, y, k, r, g, b uint8 }{
		{0, 0, 0, 0, 255, 255, 255}, {255, 255, 255, 0, 0, 0, 0}, {0, 0, 0, 255, 0, 0, 0},
		{128, 0, 0, 0, 127, 255, 255}, {100, 50, 25, 128, 77, 102, 115}, {1, 2, 254, 3, 251, 250, 1},
	} {
		if r, g, b := cmykToRGB(c.c, c.m, c.y, c.k); r != c.r || g != c.g || b != c.b {
			t.Errorf("%+v: got %d, %d, %d", c, r, g, b)
		}
	}
}

// TestDecoderReuse decodes unlike files by one decoder: nothing must be left of
// the last.
func TestDecoderReuse(t *testing.T) {
	dir := shareddata.Path(t, "golden", "images")
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var d decoder
	for round := range 3 {
		for i := range names {
			name := names[(i*(round*2+1))%len(names)]
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want, err := DecodeBytes(name, data)
			if err != nil {
				t.Fatal(err)
			}
			d.decode(name, data[:len(data)*2/3], MaxPixels) // and half of it before
			got, err := d.decode(name, data, MaxPixels)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := differ(got.Pix, want.Pix); n > 0 || got.Width != want.Width {
				t.Errorf("%s: %d values differ", name, n)
			}
		}
	}
}

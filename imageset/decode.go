package imageset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io/fs"
	"sync"
)

// Image is a decoded picture: RGB bytes, row by row.
type Image struct {
	Width, Height int
	Pix           []uint8 // Height × Width × 3
}

// MaxPixels is the largest picture decoded unless a caller sets another limit:
// the size at which Pillow takes a file for a decompression bomb.
const MaxPixels = 2 * 89478485

// ErrFormat is wrapped by the error for data that is no known image format.
var ErrFormat = errors.New("not a known image format (JPEG, PNG, GIF, BMP, TIFF, WebP)")

// ErrTooLarge is wrapped by the error for pictures of more pixels than allowed,
// and for files too short to hold the picture their header tells of.
var ErrTooLarge = errors.New("picture too large")

// maxImageFile bounds an image file, so that a list cannot name a disk image.
const maxImageFile = 2 << 30

// Decode reads an image file. The format is told by its content, never its name.
func Decode(path string) (*Image, error) { return DecodeFS(nil, path) }

// DecodeFS reads an image file within fsys; nil is the operating system.
func DecodeFS(fsys fs.FS, path string) (*Image, error) {
	data, err := readFile(fsys, path, maxImageFile, nil)
	if err != nil {
		return nil, err
	}
	return DecodeBytes(path, data)
}

// DecodeBytes decodes an image in memory; name is for errors only.
//
// Colours become RGB as by Pillow's convert("RGB"): palettes are looked up, grey
// is copied to three channels, alpha is dropped and not blended, CMYK loses its
// black by Pillow's formula, and 16-bit grey is clipped at 255, not scaled. Of an
// animation it is the first frame. EXIF orientation is ignored. A file that is
// cut off is an error.
func DecodeBytes(name string, data []byte) (*Image, error) {
	return DecodeLimited(name, data, MaxPixels)
}

// DecodeLimited is DecodeBytes for pictures of at most maxPixels pixels, which is
// checked before memory is taken for them.
func DecodeLimited(name string, data []byte, maxPixels int) (*Image, error) {
	img := new(Image)
	if err := img.Decode(name, data, maxPixels); err != nil {
		return nil, err
	}
	return img, nil
}

// Decode is DecodeLimited into m, whose memory is used again if it is enough. After an error
// m holds no picture.
func (m *Image) Decode(name string, data []byte, maxPixels int) error {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	d.img.Pix, m.Pix = m.Pix, nil
	_, err := d.decode(name, data, maxPixels)
	if err == nil {
		*m = d.img
	}
	d.img.Pix = nil
	return err
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// decoder keeps the memory of one decoding for the next. The image it returns is
// valid until then.
type decoder struct {
	img  Image
	jpeg jpegDecoder
}

// decode decodes data; the result is valid until the next call.
func (d *decoder) decode(name string, data []byte, maxPixels int) (*Image, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("image %s: the file is empty", name)
	}
	var err error
	if bytes.HasPrefix(data, []byte{0xff, 0xd8, 0xff}) {
		err = d.jpeg.decode(data, maxPixels, &d.img)
		if err != nil {
			err = fmt.Errorf("JPEG: %w", err)
		}
	} else {
		err = d.decodeOther(data, maxPixels)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return &d.img, nil
}

// format is a picture format besides JPEG.
type format struct {
	name   string
	magic  func([]byte) bool
	decode func(data []byte, maxPixels int, dst *Image) error
}

func starts(prefixes ...string) func([]byte) bool {
	return func(data []byte) bool {
		for _, p := range prefixes {
			if bytes.HasPrefix(data, []byte(p)) {
				return true
			}
		}
		return false
	}
}

var formats = []format{
	{"PNG", starts(pngMagic), decodePNG},
	{"GIF", starts("GIF87a", "GIF89a"), decodeGIF},
	{"BMP", starts("BM"), decodeBMP},
	{"TIFF", starts("II*\x00", "MM\x00*"), decodeTIFF},
	{"WebP", func(b []byte) bool {
		return len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP"
	}, decodeWebP},
}

func (d *decoder) decodeOther(data []byte, maxPixels int) (err error) {
	for _, f := range formats {
		if !f.magic(data) {
			continue
		}
		// Most of the work is other people's decoders'; a fault in one must not end a
		// run over a million files.
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%s: damaged (%v)", f.name, r)
			}
		}()
		if err := f.decode(data, maxPixels, &d.img); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		return nil
	}
	return ErrFormat
}

// checkConfig refuses what is too large, or larger than the file can hold: ratio
// bounds the pixels that one of its bytes makes.
func checkConfig(c image.Config, err error, data []byte, maxPixels, ratio int) error {
	if err != nil {
		return err
	}
	if err := checkSize(c.Width, c.Height, maxPixels); err != nil {
		return err
	}
	if c.Width*c.Height/ratio > len(data) {
		return fmt.Errorf("%w: the header says %dx%d, but the file has only %d bytes", ErrTooLarge, c.Width, c.Height, len(data))
	}
	return nil
}

func checkSize(width, height, maxPixels int) error {
	if width <= 0 || height <= 0 {
		return fmt.Errorf("the header says %dx%d pixels", width, height)
	}
	if width > maxPixels/height {
		return fmt.Errorf("%w: %dx%d, above the limit of %d pixels", ErrTooLarge, width, height, maxPixels)
	}
	return nil
}

// resize makes room for the picture, and for the byte behind it that resampling reads; what
// it held is lost.
func (m *Image) resize(width, height int) {
	m.Width, m.Height = width, height
	if n := 3 * width * height; cap(m.Pix) <= n {
		m.Pix = make([]uint8, n, n+1)
	} else {
		m.Pix = m.Pix[:n]
	}
}

// convert writes src into dst, which has its size, or a larger one for a frame
// on a canvas. clip16 says that 16-bit values are grey levels, which Pillow
// clips instead of scaling.
func convert(dst *Image, src image.Image, clip16 bool) {
	b := src.Bounds()
	row := func(y int) []uint8 { return dst.Pix[3*dst.Width*y : 3*dst.Width*(y+1)] }
	if p, ok := src.(*image.Paletted); ok {
		convertPaletted(dst, p)
		return
	}
	for y := 0; y < dst.Height; y++ {
		out := row(y)
		i := 0
		switch m := src.(type) {
		case *image.Gray:
			for _, v := range m.Pix[y*m.Stride:][:dst.Width] {
				out[i], out[i+1], out[i+2] = v, v, v
				i += 3
			}
		case *image.NRGBA:
			for in := m.Pix[y*m.Stride:][:4*dst.Width]; len(in) >= 4; in = in[4:] {
				out[i], out[i+1], out[i+2] = in[0], in[1], in[2]
				i += 3
			}
		case *image.NRGBA64:
			for in := m.Pix[y*m.Stride:][:8*dst.Width]; len(in) >= 8; in = in[8:] {
				out[i], out[i+1], out[i+2] = in[0], in[2], in[4]
				if clip16 {
					v := clip(binary.BigEndian.Uint16(in))
					out[i], out[i+1], out[i+2] = v, v, v
				}
				i += 3
			}
		case *image.Gray16:
			for in := m.Pix[y*m.Stride:][:2*dst.Width]; len(in) >= 2; in = in[2:] {
				v := in[0]
				if clip16 {
					v = clip(binary.BigEndian.Uint16(in))
				}
				out[i], out[i+1], out[i+2] = v, v, v
				i += 3
			}
		case *image.CMYK:
			for in := m.Pix[y*m.Stride:][:4*dst.Width]; len(in) >= 4; in = in[4:] {
				out[i], out[i+1], out[i+2] = cmykToRGB(in[0], in[1], in[2], in[3])
				i += 3
			}
		default:
			for x := 0; x < dst.Width; x++ {
				c := color.NRGBAModel.Convert(src.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
				out[i], out[i+1], out[i+2] = c.R, c.G, c.B
				i += 3
			}
		}
	}
}

func convertPaletted(dst *Image, src *image.Paletted) {
	var table [256][3]uint8
	for i, c := range src.Palette {
		if i == len(table) {
			break
		}
		switch c := c.(type) {
		case color.RGBA: // opaque in every format that makes one
			table[i] = [3]uint8{c.R, c.G, c.B}
		default:
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			table[i] = [3]uint8{n.R, n.G, n.B}
		}
	}
	b := src.Bounds()
	full := b.Dx() == dst.Width && b.Dy() == dst.Height
	if !full {
		for i := 0; i < len(dst.Pix); i += 3 {
			copy(dst.Pix[i:i+3], table[0][:])
		}
	} else {
		b = b.Sub(b.Min)
	}
	for y := 0; y < b.Dy() && b.Min.Y+y < dst.Height; y++ {
		for x, v := range src.Pix[y*src.Stride:][:b.Dx()] {
			if b.Min.X+x < dst.Width {
				copy(dst.Pix[3*(dst.Width*(b.Min.Y+y)+b.Min.X+x):], table[v][:])
			}
		}
	}
}

func clip(v uint16) uint8 {
	if v > 255 {
		return 255
	}
	return uint8(v)
}

// cmykToRGB is Pillow's: each ink is scaled by what black leaves, rounded.
func cmykToRGB(c, m, y, k uint8) (r, g, b uint8) {
	left := uint32(255 - k)
	ink := func(v uint8) uint8 {
		t := uint32(v)*left + 128
		return uint8(left - (t>>8+t)>>8)
	}
	return ink(c), ink(m), ink(y)
}

package imageset

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/zlib"
)

const pngMagic = "\x89PNG\r\n\x1a\n"

// Colour types of PNG.
const (
	pngGrey      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGreyAlpha = 4
	pngRGBA      = 6
)

// pngChannels are the bytes of a pixel, at 8 bits a channel.
var pngChannels = [...]int{pngGrey: 1, pngRGB: 3, pngPalette: 1, pngGreyAlpha: 2, pngRGBA: 4}

func decodePNG(data []byte, maxPixels int, dst *Image) error {
	d := pngDecoders.Get().(*pngDecoder)
	defer pngDecoders.Put(d)
	if d.decode(data, maxPixels, dst) {
		return nil
	}
	return decodeAnyPNG(data, maxPixels, dst)
}

// decodeAnyPNG decodes by image/png.
func decodeAnyPNG(data []byte, maxPixels int, dst *Image) error {
	c, err := png.DecodeConfig(bytes.NewReader(data))
	bits := 0
	if err == nil {
		bits = pngBits(data)
	}
	if err := checkPNG(c, err, data, maxPixels, bits); err != nil {
		return err
	}
	m, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	dst.resize(c.Width, c.Height)
	// Bit depth 16, colour type grey. With a transparent grey level the library answers
	// NRGBA64, so the header is what tells.
	convert(dst, m, data[24] == 16 && data[25] == pngGrey)
	return nil
}

// checkPNG refuses pictures of pixels of so many bits that are too large, or larger than
// the file can hold: deflate makes at most 1032 bytes of one.
func checkPNG(c image.Config, err error, data []byte, maxPixels, bits int) error {
	return checkConfig(c, err, data, maxPixels, 8*1032/max(bits, 1))
}

// pngBits returns the bits of a pixel, from the header, which has been read once.
func pngBits(data []byte) int {
	channels := 1
	if colour := int(data[25]); colour < len(pngChannels) {
		channels = max(pngChannels[colour], 1)
	}
	return channels * max(int(data[24]), 1)
}

var pngDecoders = sync.Pool{New: func() any { return new(pngDecoder) }}

// pngDecoder decodes what most PNG files are: 8 bits a channel, no interlacing, no transparent
// colour, nothing wrong. It keeps its memory for the next picture, where image/png takes over
// 40 KB for each, which for small ones is most of the work.
type pngDecoder struct {
	inflater io.ReadCloser // also a zlib.Resetter
	in       bytes.Reader
	joined   []byte // contents of IDAT chunks, if there are several
	rows     []byte
}

// decode decodes data into dst, or answers false: the picture is of another kind, or too large,
// or damaged, and image/png will tell. It accepts nothing that image/png does not, and gives the same
// colours.
func (d *pngDecoder) decode(data []byte, maxPixels int, dst *Image) bool {
	rest, ok := bytes.CutPrefix(data, []byte(pngMagic))
	if !ok {
		return false
	}
	kind, header, rest := pngChunk(rest)
	if string(kind) != "IHDR" || len(header) != 13 || header[8] != 8 || header[10] != 0 || header[11] != 0 || header[12] != 0 {
		return false
	}
	colour := int(header[9])
	if colour >= len(pngChannels) || pngChannels[colour] == 0 {
		return false
	}
	channels := pngChannels[colour]
	width, height := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	if width > math.MaxInt32 || height > math.MaxInt32 {
		return false
	}
	c := image.Config{Width: int(width), Height: int(height)}
	if checkPNG(c, nil, data, maxPixels, 8*channels) != nil {
		return false
	}
	stream, palette, ok := d.chunks(rest, colour)
	if !ok || d.open(stream) != nil {
		return false
	}
	dst.resize(c.Width, c.Height)
	ok = d.pixels(dst, channels, palette)
	d.in.Reset(nil) // the caller's
	if cap(d.rows)+cap(d.joined) > pngKept {
		d.rows, d.joined = nil, nil
	}
	return ok
}

// pngChunk splits off a chunk. It returns no kind for one that is cut off or has a wrong checksum.
func pngChunk(data []byte) (kind, body, rest []byte) {
	if len(data) < 12 {
		return nil, nil, nil
	}
	n := int64(binary.BigEndian.Uint32(data))
	if n > int64(len(data)-12) {
		return nil, nil, nil
	}
	end := 8 + int(n)
	if crc32.ChecksumIEEE(data[4:end]) != binary.BigEndian.Uint32(data[end:]) {
		return nil, nil, nil
	}
	return data[4:8], data[8:end], data[end+4:]
}

// chunks reads what follows the header, to the end: the compressed stream and the palette, if
// there is one.
func (d *pngDecoder) chunks(data []byte, colour int) (stream, palette []byte, ok bool) {
	parts, after := 0, false // IDAT chunks, and whether another one has followed them
	for {
		var kind, body []byte
		kind, body, data = pngChunk(data)
		switch string(kind) {
		case "IDAT":
			if after {
				return nil, nil, false
			}
			switch parts++; parts {
			case 1:
				stream = body
			case 2:
				d.joined = append(append(d.joined[:0], stream...), body...)
				stream = d.joined
			default:
				d.joined = append(d.joined, body...)
				stream = d.joined
			}
		case "PLTE":
			if colour != pngPalette || palette != nil || parts > 0 || len(body) == 0 || len(body)%3 != 0 || len(body) > 3*256 {
				return nil, nil, false
			}
			palette = body
		case "IEND":
			return stream, palette, len(body) == 0 && parts > 0 && (colour != pngPalette || palette != nil)
		case "", "IHDR", "tRNS":
			return nil, nil, false
		default:
			after = parts > 0
		}
	}
}

// open begins to decompress a stream.
func (d *pngDecoder) open(stream []byte) (err error) {
	d.in.Reset(stream)
	if d.inflater == nil {
		d.inflater, err = zlib.NewReader(&d.in)
		return err
	}
	return d.inflater.(zlib.Resetter).Reset(&d.in, nil)
}

const (
	pngBlock = 32 << 10 // about how many bytes are decompressed at a time
	pngKept  = 1 << 20  // the most memory that is kept for the next picture
)

// pixels reads the rows, and the stream to its end.
func (d *pngDecoder) pixels(dst *Image, channels int, palette []byte) bool {
	size := 1 + channels*dst.Width // of a row, with the number of its filter
	most := min(max(pngBlock/size, 1), dst.Height)
	if need := (1 + most) * size; cap(d.rows) < need {
		d.rows = make([]byte, need)
	}
	rows := d.rows[:(1+most)*size]
	clear(rows[:size]) // above the first one is black
	for y := 0; y < dst.Height; {
		n := min(most, dst.Height-y)
		if _, err := io.ReadFull(d.inflater, rows[size:][:n*size]); err != nil {
			return false
		}
		for i := range n {
			above, row := rows[i*size:][:size], rows[(i+1)*size:][:size]
			if !unfilter(row[0], row[1:], above[1:], channels) {
				return false
			}
			expand(dst.Pix[3*dst.Width*(y+i):][:3*dst.Width], row[1:], channels, palette)
		}
		copy(rows, rows[n*size:][:size])
		y += n
	}
	// The end of the stream, which has its checksum.
	_, err := io.ReadFull(d.inflater, rows[:1])
	return err == io.EOF && d.in.Len() == 0
}

// unfilter gives a row its values, from the differences that its filter left.
func unfilter(filter byte, row, above []byte, channels int) bool {
	above = above[:len(row)]
	first := min(channels, len(row)) // the bytes of the leftmost pixel
	switch filter {
	case 0:
	case 1: // from the left
		for i := first; i < len(row); i++ {
			row[i] += row[i-first]
		}
	case 2: // from above
		for i := range row {
			row[i] += above[i]
		}
	case 3: // from the mean of both
		for i := range first {
			row[i] += above[i] / 2
		}
		for i := first; i < len(row); i++ {
			row[i] += uint8((int(row[i-first]) + int(above[i])) / 2)
		}
	case 4: // Paeth's
		for i := range first {
			row[i] += above[i]
		}
		for i := first; i < len(row); i++ {
			row[i] += paeth(int(row[i-first]), int(above[i]), int(above[i-first]))
		}
	default:
		return false
	}
	return true
}

// paeth is that of the values to the left, above, and above to the left which is nearest to
// left + above - corner.
func paeth(left, above, corner int) uint8 {
	best, nearest := left, distance(above, corner)
	if d := distance(left, corner); d < nearest {
		best, nearest = above, d
	}
	if d := distance(left+above, 2*corner); d < nearest {
		best = corner
	}
	return uint8(best)
}

func distance(a, b int) int {
	if a < b {
		return b - a
	}
	return a - b
}

// expand writes a row's colours.
func expand(dst, row []byte, channels int, palette []byte) {
	switch {
	case palette != nil:
		for _, v := range row {
			var rgb [3]byte // black beyond the palette's end
			if i := 3 * int(v); i < len(palette) {
				rgb = [3]byte(palette[i:])
			}
			copy(dst, rgb[:])
			dst = dst[3:]
		}
	case channels == 3:
		copy(dst, row)
	case channels == 4:
		for ; len(row) >= 4 && len(dst) >= 3; row, dst = row[4:], dst[3:] {
			dst[0], dst[1], dst[2] = row[0], row[1], row[2]
		}
	default: // grey, with alpha or without
		for i := 0; i < len(row) && len(dst) >= 3; i += channels {
			v := row[i]
			dst[0], dst[1], dst[2] = v, v, v
			dst = dst[3:]
		}
	}
}

package imageset

import (
	"bytes"
	"image/gif"
)

func decodeGIF(data []byte, maxPixels int, dst *Image) error {
	c, err := gif.DecodeConfig(bytes.NewReader(data))
	// LZW makes 4096 pixels of a code of 12 bits.
	if err := checkConfig(c, err, data, maxPixels, 4096); err != nil {
		return err
	}
	m, err := gif.Decode(bytes.NewReader(opaqueGIF(data)))
	if err != nil {
		return err
	}
	// A first frame smaller than its canvas lies on colour 0.
	dst.resize(c.Width, c.Height)
	convert(dst, m, false)
	return nil
}

// opaqueGIF returns the file with the first frame's transparency taken off, so
// that the library keeps the transparent entry's colour, which Pillow shows. It
// copies what it changes; a file that it does not understand is left alone.
func opaqueGIF(data []byte) []byte {
	if len(data) < 13 {
		return data
	}
	p := 13
	if data[10]&0x80 != 0 { // global colour table
		p += 3 << (data[10]&7 + 1)
	}
	for p+8 <= len(data) && data[p] == 0x21 {
		if data[p+1] == 0xf9 && data[p+2] == 4 && data[p+3]&1 != 0 { // graphic control
			data = bytes.Clone(data)
			data[p+3] &^= 1
		}
		p += 2
		for p < len(data) && data[p] != 0 {
			p += 1 + int(data[p])
		}
		p++
	}
	return data
}

package imageset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"

	"golang.org/x/image/webp"
)

func decodeWebP(data []byte, maxPixels int, dst *Image) error {
	still, x, y, err := firstFrame(data)
	if err != nil {
		return err
	}
	c, err := webp.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if err := checkSize(c.Width, c.Height, maxPixels); err != nil {
		return err
	}
	frame := dst
	if &still[0] != &data[0] {
		f, err := webp.DecodeConfig(bytes.NewReader(still))
		if err != nil {
			return err
		}
		if x+f.Width > c.Width || y+f.Height > c.Height {
			return errors.New("a frame beyond the canvas")
		}
		if f.Width < c.Width || f.Height < c.Height {
			frame = new(Image)
		}
	}
	m, err := webp.Decode(bytes.NewReader(still))
	if err != nil {
		return err
	}
	frame.resize(m.Bounds().Dx(), m.Bounds().Dy())
	switch m := m.(type) {
	case *image.YCbCr: // always 4:2:0
		lossyWebP(frame, m)
	case *image.NYCbCrA:
		lossyWebP(frame, &m.YCbCr)
	default:
		convert(frame, m, false)
	}
	if frame != dst { // on black
		dst.resize(c.Width, c.Height)
		clear(dst.Pix)
		for r := range frame.Height {
			copy(dst.Pix[3*((y+r)*c.Width+x):], frame.Pix[3*r*frame.Width:][:3*frame.Width])
		}
	}
	return nil
}

// firstFrame returns the first frame of an animation as a file of its own and its
// place on the canvas, and other files as they are.
func firstFrame(data []byte) (still []byte, x, y int, err error) {
	const animated = 2
	if len(data) < 30 || string(data[12:16]) != "VP8X" || data[20]&animated == 0 {
		return data, 0, 0, nil
	}
	u24 := func(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
	// next cuts a chunk off.
	next := func(b []byte) (kind string, body, rest []byte) {
		if len(b) < 8 {
			return "", nil, nil
		}
		n := int64(binary.LittleEndian.Uint32(b[4:]))
		if n > int64(len(b)-8) {
			return "", nil, nil
		}
		return string(b[:4]), b[8:][:n], b[min(8+n+n%2, int64(len(b))):]
	}
	for rest := data[12:]; len(rest) > 0; {
		var kind string
		var body []byte
		if kind, body, rest = next(rest); kind != "ANMF" || len(body) < 16 {
			continue
		}
		x, y = 2*u24(body), 2*u24(body[3:])
		for parts := body[16:]; len(parts) > 0; {
			var pixels []byte
			if kind, pixels, parts = next(parts); kind != "VP8 " && kind != "VP8L" {
				continue // alpha, above all, which is dropped
			}
			still = append(still, "RIFF\x00\x00\x00\x00WEBP"+kind+"\x00\x00\x00\x00"...)
			binary.LittleEndian.PutUint32(still[16:], uint32(len(pixels)))
			still = append(still, pixels...)
			if len(pixels)%2 == 1 {
				still = append(still, 0)
			}
			binary.LittleEndian.PutUint32(still[4:], uint32(len(still)-8))
			return still, x, y, nil
		}
	}
	return nil, 0, 0, errors.New("an animation without a frame")
}

// lossyWebP writes the planes of a lossy WebP picture into dst as libwebp does:
// triangle upsampling of chroma, halves rounded in its own order, and its
// integer conversion from the narrow range.
func lossyWebP(dst *Image, src *image.YCbCr) {
	b := src.Bounds()
	chromaRows := (dst.Height + 1) / 2
	for y := range dst.Height {
		luma := src.Y[src.YOffset(b.Min.X, b.Min.Y+y):][:dst.Width]
		near := y / 2
		far := near - 1
		if y%2 == 1 {
			far = near + 1
		}
		far = min(max(far, 0), chromaRows-1)
		row := func(plane []uint8, r int) []uint8 { return plane[r*src.CStride:][:(dst.Width+1)/2] }
		webpRow(dst.Pix[3*dst.Width*y:][:3*dst.Width], luma,
			row(src.Cb, near), row(src.Cb, far), row(src.Cr, near), row(src.Cr, far))
	}
}

func webpRow(out, luma, uNear, uFar, vNear, vFar []uint8) {
	last := len(uNear) - 1
	for x, y := range luma {
		near := x / 2
		side := near - 1
		if x%2 == 1 {
			side = near + 1
		}
		var u, v int32
		if side < 0 || side > last {
			u = (3*int32(uNear[near]) + int32(uFar[near]) + 2) >> 2
			v = (3*int32(vNear[near]) + int32(vFar[near]) + 2) >> 2
		} else {
			u = webpChroma(uNear[near], uNear[side], uFar[near], uFar[side])
			v = webpChroma(vNear[near], vNear[side], vFar[near], vFar[side])
		}
		l := int32(y) * 19077 >> 8
		out[3*x] = webpClip(l + v*26149>>8 - 14234)
		out[3*x+1] = webpClip(l - u*6419>>8 - v*13320>>8 + 8708)
		out[3*x+2] = webpClip(l + u*33050>>8 - 17685)
	}
}

// webpChroma is (9 near + 3 beside + 3 over + far)/16, rounded in two steps.
func webpChroma(near, beside, over, far uint8) int32 {
	n, s, o, f := int32(near), int32(beside), int32(over), int32(far)
	return (n + (n+s+o+f+8+2*(s+o))>>3) >> 1
}

func webpClip(v int32) uint8 {
	if v < 0 {
		return 0
	}
	return uint8(min(v>>6, 255))
}

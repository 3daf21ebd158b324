package imageset

import "image"

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

package dg

import "math"

// rotate turns a grey square picture by so many degrees against the clock, black
// beyond its edges: the bytes of Pillow's Image.rotate with BICUBIC. Every product is
// rounded by a conversion, as fused multiply-add would change bits.
func rotate(dst, src []uint8, side int, degrees float64) {
	round15 := func(x float64) float64 { return math.Round(x*1e15) / 1e15 }
	angle := -degrees * (math.Pi / 180)
	cos, sin := round15(math.Cos(angle)), round15(math.Sin(angle))
	centre := float64(side) / 2
	shiftX := float64(cos*-centre) + float64(sin*-centre) + centre
	shiftY := float64(-sin*-centre) + float64(cos*-centre) + centre
	for y := range side {
		for x := range side {
			atX, atY := float64(x)+0.5, float64(y)+0.5
			fromX := float64(cos*atX) + float64(sin*atY) + shiftX
			fromY := float64(-sin*atX) + float64(cos*atY) + shiftY
			dst[y*side+x] = bicubic(src, side, fromX, fromY)
		}
	}
}

// bicubic is Pillow's interpolation with a = -1, truncated to a byte; beyond the
// picture its nearest row or column is taken.
func bicubic(src []uint8, side int, x, y float64) uint8 {
	if x < 0 || x >= float64(side) || y < 0 || y >= float64(side) {
		return 0
	}
	x, y = x-0.5, y-0.5
	left, top := math.Floor(x), math.Floor(y)
	dx, dy := x-left, y-top
	inside := func(i int) int { return min(max(i, 0), side-1) }
	var columns [4]int
	for i := range columns {
		columns[i] = inside(int(left) - 1 + i)
	}
	var rows [4]float64
	for i := range rows {
		row := src[inside(int(top)-1+i)*side:]
		rows[i] = cubic(float64(row[columns[0]]), float64(row[columns[1]]), float64(row[columns[2]]), float64(row[columns[3]]), dx)
	}
	v := cubic(rows[0], rows[1], rows[2], rows[3], dy)
	return uint8(min(max(v, 0), 255))
}

func cubic(v1, v2, v3, v4, d float64) float64 {
	p2 := v3 - v1
	p3 := float64(2*(v1-v2)) + v3 - v4
	p4 := -v1 + v2 - v3 + v4
	return v2 + float64(d*(p2+float64(d*(p3+float64(d*p4)))))
}

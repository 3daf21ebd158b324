package kernel

import "unsafe"

var portableWinograd = [2]Winograd{
	{
		2, func(a *WinogradInput) { winogradInput(a, 4) }, func(a *WinogradOutput) { winogradOutput(a, 4) },
		func(a *WinogradFilters) { winogradFilters(Winograd{Outputs: 2}, a) },
	},
	{
		4, func(a *WinogradInput) { winogradInput(a, 6) }, func(a *WinogradOutput) { winogradOutput(a, 6) },
		func(a *WinogradFilters) { winogradFilters(Winograd{Outputs: 4}, a) },
	},
}

// vector is Lanes channels of one pixel.
type vector = [Lanes]float32

func vectorAt(p *float32, byteOffset int64) *vector {
	return (*vector)(unsafe.Add(unsafe.Pointer(p), byteOffset))
}

// winogradInput is the formula of WinogradInput in portable Go for patches with
// sides of n, rounded once.
func winogradInput(a *WinogradInput, n int64) {
	for patch := range a.Count {
		winogradInputPatch(a, n, *offsetAt(a.Offsets, patch), patch*a.Step)
	}
}

func offsetAt(p *int64, i int64) *int64 { return (*int64)(unsafe.Add(unsafe.Pointer(p), 8*i)) }

func winogradInputPatch(a *WinogradInput, n, from, to int64) {
	var t [6][6][Lanes]float64 // columns transformed
	for first := int64(0); first < 4*a.Channels; first, to = first+4*Lanes, to+a.Block {
		for x := range n {
			var d [6]*vector
			for y := range n {
				d[y] = vectorAt(a.In, from+y*a.Row+x*a.Pixel+first)
			}
			d0, d1, d2, d3, d4, d5 := d[0], d[1], d[2], d[3], d[4], d[5]
			if n == 4 {
				for c := range Lanes {
					t[0][x][c], t[1][x][c], t[2][x][c], t[3][x][c] = inputSide2(float64(d0[c]), float64(d1[c]), float64(d2[c]), float64(d3[c]))
				}
				continue
			}
			for c := range Lanes {
				t[0][x][c], t[1][x][c], t[2][x][c], t[3][x][c], t[4][x][c], t[5][x][c] = inputSide4(
					float64(d0[c]), float64(d1[c]), float64(d2[c]), float64(d3[c]), float64(d4[c]), float64(d5[c]))
			}
		}
		for y := range n {
			var v [6]*vector
			for x := range n {
				v[x] = vectorAt(a.Out, (n*y+x)*a.Plane+to)
			}
			v0, v1, v2, v3, v4, v5 := v[0], v[1], v[2], v[3], v[4], v[5]
			row := &t[y]
			if n == 4 {
				for c := range Lanes {
					p, q, r, s := inputSide2(row[0][c], row[1][c], row[2][c], row[3][c])
					v0[c], v1[c], v2[c], v3[c] = float32(p), float32(q), float32(r), float32(s)
				}
				continue
			}
			for c := range Lanes {
				p, q, r, s, u, w := inputSide4(row[0][c], row[1][c], row[2][c], row[3][c], row[4][c], row[5][c])
				v0[c], v1[c], v2[c], v3[c], v4[c], v5[c] = float32(p), float32(q), float32(r), float32(s), float32(u), float32(w)
			}
		}
	}
}

// winogradGradient is the formula of Set.WinogradGradient in portable Go, rounded once.
func winogradGradient(a *WinogradInput) {
	for patch := range a.Count {
		winogradGradientPatch(a, *offsetAt(a.Offsets, patch), patch*a.Step)
	}
}

func winogradGradientPatch(a *WinogradInput, from, to int64) {
	var t [6][4][Lanes]float64 // columns transformed
	for first := int64(0); first < 4*a.Channels; first, to = first+4*Lanes, to+a.Block {
		for x := range int64(4) {
			at := from + x*a.Pixel + first
			y0, y1 := vectorAt(a.In, at), vectorAt(a.In, at+a.Row)
			y2, y3 := vectorAt(a.In, at+2*a.Row), vectorAt(a.In, at+3*a.Row)
			for c := range Lanes {
				t[0][x][c], t[1][x][c], t[2][x][c], t[3][x][c], t[4][x][c], t[5][x][c] = gradientSide4(
					float64(y0[c]), float64(y1[c]), float64(y2[c]), float64(y3[c]))
			}
		}
		for y := range int64(6) {
			var v [6]*vector
			for x := range int64(6) {
				v[x] = vectorAt(a.Out, (6*y+x)*a.Plane+to)
			}
			for c := range Lanes {
				p, q, r, s, u, w := gradientSide4(t[y][0][c], t[y][1][c], t[y][2][c], t[y][3][c])
				v[0][c], v[1][c], v[2][c], v[3][c], v[4][c], v[5][c] = float32(p), float32(q), float32(r), float32(s), float32(u), float32(w)
			}
		}
	}
}

// winogradOutput is the formula of WinogradOutput in portable Go for patches with
// sides of n, rounded once before the epilogue.
func winogradOutput(a *WinogradOutput, n int64) {
	for patch := range a.Count {
		winogradOutputPatch(a, n, patch*a.Step, *offsetAt(a.Offsets, patch))
	}
}

func winogradOutputPatch(a *WinogradOutput, n, from, to int64) {
	var s [4][6][Lanes]float64 // columns transformed
	var y [4]vector            // a row's pixels
	for first := int64(0); first < 4*a.Channels; first, from = first+4*Lanes, from+a.Block {
		for x := range n {
			var m [6]*vector
			for i := range n {
				m[i] = vectorAt(a.In, (n*i+x)*a.Plane+from)
			}
			m0, m1, m2, m3, m4, m5 := m[0], m[1], m[2], m[3], m[4], m[5]
			if n == 4 {
				for c := range Lanes {
					s[0][x][c], s[1][x][c] = outputSide2(float64(m0[c]), float64(m1[c]), float64(m2[c]), float64(m3[c]))
				}
				continue
			}
			for c := range Lanes {
				s[0][x][c], s[1][x][c], s[2][x][c], s[3][x][c] = outputSide4(
					float64(m0[c]), float64(m1[c]), float64(m2[c]), float64(m3[c]), float64(m4[c]), float64(m5[c]))
			}
		}
		for i := range a.Rows {
			row := &s[i]
			for c := range Lanes {
				if n == 4 {
					p, q := outputSide2(row[0][c], row[1][c], row[2][c], row[3][c])
					y[0][c], y[1][c] = float32(p), float32(q)
					continue
				}
				p, q, r, u := outputSide4(row[0][c], row[1][c], row[2][c], row[3][c], row[4][c], row[5][c])
				y[0][c], y[1][c], y[2][c], y[3][c] = float32(p), float32(q), float32(r), float32(u)
			}
			for x := range a.Cols {
				a.end(&y[x], first, to+i*a.Row+x*a.Pixel+first)
			}
		}
	}
}

// end is the epilogue of a pixel's channels, which begin at byte first of the bias
// and at byte at of the image.
func (a *WinogradOutput) end(y *vector, first, at int64) {
	out := vectorAt(a.Out, at)
	if a.Bias != nil {
		addTo(y, vectorAt(a.Bias, first))
	}
	if a.Flags&Accumulate != 0 {
		addTo(y, out)
	}
	if a.Res != nil {
		addTo(y, vectorAt(a.Res, at))
	}
	if a.Flags&ReLU != 0 {
		for c, v := range y {
			if v < 0 {
				y[c] = 0
			}
		}
	}
	if a.Mask != nil {
		for c, m := range vectorAt(a.Mask, at) {
			if !(m > 0) {
				y[c] = 0
			}
		}
	}
	*out = *y
}

func addTo(y, x *vector) {
	for c, v := range x {
		y[c] += v
	}
}

// The sides of F(2x2) and F(4x4).

func inputSide2(a, b, c, d float64) (_, _, _, _ float64) { return a - c, b + c, c - b, b - d }

func outputSide2(a, b, c, d float64) (_, _ float64) { return a + b + c, b - c - d }

func inputSide4(a, b, c, d, e, f float64) (_, _, _, _, _, _ float64) {
	ea, oa := e-squareB*c, pointA*(d-squareB*b)
	eb, ob := e-squareA*c, pointB*(d-squareA*b)
	return squareA*squareB*a - (squareA+squareB)*c + e, ea + oa, ea - oa, eb + ob, eb - ob,
		squareA*squareB*b - (squareA+squareB)*d + f
}

func outputSide4(a, b, c, d, e, f float64) (_, _, _, _ float64) {
	p, r, q, s := b+c, b-c, d+e, d-e
	return a + p + q, pointA*r + pointB*s, squareA*p + squareB*q, pointA*squareA*r + pointB*squareB*s + f
}

func gradientSide4(a, b, c, d float64) (_, _, _, _, _, _ float64) {
	ea, oa := a+squareA*c, pointA*(b+squareA*d)
	eb, ob := a+squareB*c, pointB*(b+squareB*d)
	return a, ea + oa, ea - oa, eb + ob, eb - ob, d
}

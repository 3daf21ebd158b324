package kernel

import "unsafe"

// Winograd is one of Winograd's minimal filtering algorithms F(m x m, 3x3) (Lavin
// and Gray, 2016). It turns a 3x3 convolution of stride 1 into a matrix product
// for each position of patches of (m+2)x(m+2) that overlap by two. F(2x2) has 16
// multiplications for 4 pixels, F(4x4) 36 for 16, where the plain form has 9 for
// each. The products are tiles; here are the transforms around them.
type Winograd struct {
	// Outputs is m, the side of a patch's result.
	Outputs int
	// Input and Output run the transforms.
	Input  func(*WinogradInput)
	Output func(*WinogradOutput)
}

// Side is the side of a patch.
func (w Winograd) Side() int { return w.Outputs + 2 }

// Planes is the number of matrix products.
func (w Winograd) Planes() int { return w.Side() * w.Side() }

// WinogradInput are the arguments of the input transform of one patch d, channel
// by channel:
//
//	t = side of each column of d, v = side of each row of t
//	Out[(Side*i+j)*Plane+c] = v[i][j]
//
// where the side of six or four values is, for F(2x2) and F(4x4),
//
//	d0-d2, d1+d2, d2-d1, d1-d3
//	(ab)^2 d0 - (a^2+b^2) d2 + d4, (d4 - b^2 d2) +- a (d3 - b^2 d1),
//	(d4 - a^2 d2) +- b (d3 - a^2 d1), (ab)^2 d1 - (a^2+b^2) d3 + d5
//
// Row, Pixel and Plane are strides in bytes. Channels is a multiple of Lanes.
type WinogradInput struct {
	In, Out    *float32
	Row, Pixel int64
	Plane      int64
	Channels   int64
}

// WinogradOutput are the arguments of the output transform of the products m
// of one patch to its pixels y, channel by channel:
//
//	s = side of each column of m, y = side of each row of s
//	y += Bias; y += Out if Accumulate; y += Res; ReLU; Mask      // as in TileArgs
//
// where the side of six or four values is, for F(2x2) and F(4x4),
//
//	m0+m1+m2, m1-m2-m3
//	m0 + p + q, a r + b s, a^2 p + b^2 q, a^3 r + b^3 s + m5     // p, r = m1+-m2; q, s = m3+-m4
//
// In is [plane][channel] with Plane bytes between planes; Out, Res and Mask
// have Row and Pixel bytes between rows and pixels. Only the first Rows x Cols of
// the pixels are written.
type WinogradOutput struct {
	In, Out    *float32
	Bias       *float32
	Res, Mask  *float32
	Row, Pixel int64
	Plane      int64
	Channels   int64
	Rows, Cols int64
	Flags      int64
}

// Winograd returns F(m x m, 3x3) for m of 2 or 4.
func (s *Set) Winograd(m int) Winograd { return s.winograd[m/2-1] }

// The points of F(4x4) beside 0 and infinity are +-pointA and +-pointB. Rounding
// grows with the spread of their powers: these leave a third of the error of the
// customary 1 and 2, and all constants are exact.
const (
	pointA, pointB = 0.625, 1.5
	squareA        = pointA * pointA
	squareB        = pointB * pointB
)

// Filter transforms one 3x3 filter g, row-major, in float64 as the transforms
// above need it, into Planes values of u, step floats apart.
func (w Winograd) Filter(g *[9]float32, u []float32, step int) {
	if w.Outputs == 2 {
		var t [4][3]float64
		for x := range 3 {
			t[0][x], t[1][x], t[2][x], t[3][x] = filterSide2(float64(g[x]), float64(g[3+x]), float64(g[6+x]))
		}
		for i := range t {
			a, b, c, d := filterSide2(t[i][0], t[i][1], t[i][2])
			row := u[4*i*step:][:3*step+1]
			row[0], row[step], row[2*step], row[3*step] = float32(a), float32(b), float32(c), float32(d)
		}
		return
	}
	var t [6][3]float64
	for x := range 3 {
		t[0][x], t[1][x], t[2][x], t[3][x], t[4][x], t[5][x] = filterSide4(float64(g[x]), float64(g[3+x]), float64(g[6+x]))
	}
	for i := range t {
		a, b, c, d, e, f := filterSide4(t[i][0], t[i][1], t[i][2])
		row := u[6*i*step:][:5*step+1]
		row[0], row[step], row[2*step] = float32(a), float32(b), float32(c)
		row[3*step], row[4*step], row[5*step] = float32(d), float32(e), float32(f)
	}
}

func filterSide2(a, b, c float64) (_, _, _, _ float64) {
	return a, (a + b + c) / 2, (a - b + c) / 2, c
}

func filterSide4(a, b, c float64) (_, _, _, _, _, _ float64) {
	const (
		n0 = 1 / (squareA * squareB)
		na = 1 / (2 * squareA * (squareA - squareB))
		nb = 1 / (2 * squareB * (squareB - squareA))
	)
	ea, oa, eb, ob := (a+squareA*c)*na, pointA*na*b, (a+squareB*c)*nb, pointB*nb*b
	return a * n0, ea + oa, ea - oa, eb + ob, eb - ob, c
}

func at(p *float32, byteOffset int64, n int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), byteOffset)), n)
}

// winogradInput is the formula of WinogradInput in portable Go, rounded once.
func winogradInput(a *WinogradInput, n int) {
	var patch [6][6][]float32
	for y := range n {
		for x := range n {
			patch[y][x] = at(a.In, int64(y)*a.Row+int64(x)*a.Pixel, a.Channels)
		}
	}
	var out [6][6][]float32
	for y := range n {
		for x := range n {
			out[y][x] = at(a.Out, int64(n*y+x)*a.Plane, a.Channels)
		}
	}
	for c := range a.Channels {
		var t [6][6]float64 // by column of the patch
		for x := range n {
			for y := range n {
				t[x][y] = float64(patch[y][x][c])
			}
			inputSide(n, &t[x])
		}
		for y := range n {
			var v [6]float64
			for x := range n {
				v[x] = t[x][y]
			}
			inputSide(n, &v)
			for x := range n {
				out[y][x][c] = float32(v[x])
			}
		}
	}
}

// winogradOutput is the formula of WinogradOutput in portable Go, rounded once
// before the epilogue.
func winogradOutput(a *WinogradOutput, n int) {
	var in [6][6][]float32
	for y := range n {
		for x := range n {
			in[y][x] = at(a.In, int64(n*y+x)*a.Plane, a.Channels)
		}
	}
	var out, res, mask [4][4][]float32
	for y := range a.Rows {
		for x := range a.Cols {
			off := y*a.Row + x*a.Pixel
			out[y][x] = at(a.Out, off, a.Channels)
			if a.Res != nil {
				res[y][x] = at(a.Res, off, a.Channels)
			}
			if a.Mask != nil {
				mask[y][x] = at(a.Mask, off, a.Channels)
			}
		}
	}
	var bias []float32
	if a.Bias != nil {
		bias = at(a.Bias, 0, a.Channels)
	}
	for c := range a.Channels {
		var s [6][6]float64 // by column of the products
		for x := range n {
			for y := range n {
				s[x][y] = float64(in[y][x][c])
			}
			outputSide(n, &s[x])
		}
		for row := range a.Rows {
			var t [6]float64
			for x := range n {
				t[x] = s[x][row]
			}
			outputSide(n, &t)
			for col := range a.Cols {
				y := float32(t[col])
				if bias != nil {
					y += bias[c]
				}
				if a.Flags&Accumulate != 0 {
					y += out[row][col][c]
				}
				if a.Res != nil {
					y += res[row][col][c]
				}
				if a.Flags&ReLU != 0 && y < 0 {
					y = 0
				}
				if a.Mask != nil && !(mask[row][col][c] > 0) {
					y = 0
				}
				out[row][col][c] = y
			}
		}
	}
}

// The sides of F(2x2) and F(4x4), in place, of patches with sides of n. They are called
// by name: through a function's value their argument would be allocated each time.

func inputSide(n int, d *[6]float64) {
	if n == 4 {
		inputSide2(d)
	} else {
		inputSide4(d)
	}
}

func outputSide(n int, m *[6]float64) {
	if n == 4 {
		outputSide2(m)
	} else {
		outputSide4(m)
	}
}

func inputSide2(d *[6]float64) {
	d[0], d[1], d[2], d[3] = d[0]-d[2], d[1]+d[2], d[2]-d[1], d[1]-d[3]
}

func outputSide2(m *[6]float64) {
	m[0], m[1] = m[0]+m[1]+m[2], m[1]-m[2]-m[3]
}

func inputSide4(d *[6]float64) {
	first := squareA*squareB*d[0] - (squareA+squareB)*d[2] + d[4]
	last := squareA*squareB*d[1] - (squareA+squareB)*d[3] + d[5]
	ea, oa := d[4]-squareB*d[2], pointA*(d[3]-squareB*d[1])
	eb, ob := d[4]-squareA*d[2], pointB*(d[3]-squareA*d[1])
	*d = [6]float64{first, ea + oa, ea - oa, eb + ob, eb - ob, last}
}

func outputSide4(m *[6]float64) {
	p, r, q, s := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	last := m[5]
	m[0] += p + q
	m[1] = pointA*r + pointB*s
	m[2] = squareA*p + squareB*q
	m[3] = pointA*squareA*r + pointB*squareB*s + last
}

var portableWinograd = [2]Winograd{
	{2, func(a *WinogradInput) { winogradInput(a, 4) }, func(a *WinogradOutput) { winogradOutput(a, 4) }},
	{4, func(a *WinogradInput) { winogradInput(a, 6) }, func(a *WinogradOutput) { winogradOutput(a, 6) }},
}

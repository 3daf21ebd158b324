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
	// Input, Output and Filters run the transforms.
	Input   func(*WinogradInput)
	Output  func(*WinogradOutput)
	Filters func(*WinogradFilters)
}

// Side is the side of a patch.
func (w Winograd) Side() int { return w.Outputs + 2 }

// Planes is the number of matrix products.
func (w Winograd) Planes() int { return w.Side() * w.Side() }

// WinogradInput are the arguments of the input transform of Count patches d, channel
// by channel. Patch n begins at In + Offsets[n]:
//
//	t = side of each column of d, v = side of each row of t
//	Out[(Side*i+j)*Plane + n*Step + c/16*Block + c%16] = v[i][j]
//
// where the side of six or four values is, for F(2x2) and F(4x4),
//
//	d0-d2, d1+d2, d2-d1, d1-d3
//	(ab)^2 d0 - (a^2+b^2) d2 + d4, (d4 - b^2 d2) +- a (d3 - b^2 d1),
//	(d4 - a^2 d2) +- b (d3 - a^2 d1), (ab)^2 d1 - (a^2+b^2) d3 + d5
//
// Offsets, Row, Pixel, Plane, Block and Step are in bytes. Channels is a multiple of Lanes,
// Count at least 1.
type WinogradInput struct {
	In, Out     *float32
	Offsets     *int64 // Count of them
	Row, Pixel  int64
	Plane       int64
	Block, Step int64
	Channels    int64
	Count       int64
}

// WinogradOutput are the arguments of the output transform of the products m
// of Count patches to their pixels y, channel by channel:
//
//	s = side of each column of m, y = side of each row of s
//	y += Bias; y += Out if Accumulate; y += Res; ReLU; Mask      // as in TileArgs
//
// where the side of six or four values is, for F(2x2) and F(4x4),
//
//	m0+m1+m2, m1-m2-m3
//	m0 + p + q, a r + b s, a^2 p + b^2 q, a^3 r + b^3 s + m5     // p, r = m1+-m2; q, s = m3+-m4
//
// In is laid out as the Out of WinogradInput. Patch n's pixels begin at Offsets[n] of Out, Res and
// Mask, which have Row and Pixel bytes between rows and pixels. Only the first Rows x
// Cols pixels of a patch are written.
type WinogradOutput struct {
	In, Out     *float32
	Bias        *float32
	Res, Mask   *float32
	Offsets     *int64 // Count of them
	Row, Pixel  int64
	Plane       int64
	Block, Step int64
	Channels    int64
	Count       int64
	Rows, Cols  int64
	Flags       int64
}

// Winograd returns F(m x m, 3x3) for m of 2 or 4.
func (s *Set) Winograd(m int) Winograd { return s.winograd[m/2-1] }

// WinogradGradient returns the transpose of F(4x4,3x3)'s output transform: it makes of
// the gradient y of a patch's 4x4 pixels, channel by channel, what the output transform
// makes it of the gradient of the products:
//
//	t = side of each column of y, v = side of each row of t
//	Out[(6*i+j)*Plane + n*Step + c/16*Block + c%16] = v[i][j]
//
// where the side of four values is
//
//	y0, (y0 + a^2 y2) +- (a y1 + a^3 y3), (y0 + b^2 y2) +- (b y1 + b^3 y3), y3
func (s *Set) WinogradGradient() func(*WinogradInput) {
	if s == portable {
		return winogradGradient
	}
	return machineWinogradGradient
}

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

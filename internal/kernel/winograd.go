package kernel

import "unsafe"

// Winograd's minimal filtering F(2x2,3x3) (Lavin and Gray, 2016) turns a 3x3
// convolution of stride 1 into sixteen matrix products over 4x4 patches that
// overlap by two: 16 multiplications where there were 36. The products are
// tiles; here are the transforms around them.

// WinogradPlanes is the number of matrix products.
const WinogradPlanes = 16

// WinogradInput are the arguments of the input transform of one 4x4 patch d,
// channel by channel:
//
//	t[0], t[1], t[2], t[3] = d[0]-d[2], d[1]+d[2], d[2]-d[1], d[1]-d[3]      // rows
//	v[i][0], ... = t[i][0]-t[i][2], t[i][1]+t[i][2], t[i][2]-t[i][1], t[i][1]-t[i][3]
//	Out[(4*i+j)*Plane+c] = v[i][j]
//
// Row, Pixel and Plane are strides in bytes. Channels is a multiple of Lanes.
type WinogradInput struct {
	In, Out    *float32
	Row, Pixel int64
	Plane      int64
	Channels   int64
}

// WinogradOutput are the arguments of the output transform of the sixteen
// products m of one patch to 2x2 pixels y, channel by channel:
//
//	s[0], s[1] = m[0]+m[1]+m[2], m[1]-m[2]-m[3]                              // rows
//	y[i][0], y[i][1] = s[i][0]+s[i][1]+s[i][2], s[i][1]-s[i][2]-s[i][3]
//	y += Bias; y += Out if Accumulate; y += Res; ReLU; Mask                   // as in TileArgs
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

// WinogradInput runs the input transform.
func (s *Set) WinogradInput(a *WinogradInput) { s.winogradInput(a) }

// WinogradOutput runs the output transform.
func (s *Set) WinogradOutput(a *WinogradOutput) { s.winogradOutput(a) }

// WinogradFilter transforms one 3x3 filter g, row-major, in float64 as the
// transforms above need it.
func WinogradFilter(g *[9]float32) (u [WinogradPlanes]float32) {
	side := func(a, b, c float64) [4]float64 {
		return [4]float64{a, (a + b + c) / 2, (a - b + c) / 2, c}
	}
	var rows [4][3]float64
	for x := range 3 {
		for i, v := range side(float64(g[x]), float64(g[3+x]), float64(g[6+x])) {
			rows[i][x] = v
		}
	}
	for i, r := range rows {
		for j, v := range side(r[0], r[1], r[2]) {
			u[4*i+j] = float32(v)
		}
	}
	return u
}

func at(p *float32, byteOffset int64, n int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), byteOffset)), n)
}

func winogradInput(a *WinogradInput) {
	n := a.Channels
	for i := range int64(4) {
		// Row i of the half-transformed patch is row p plus or minus row q.
		p, q, sign := [4]int64{0, 1, 2, 1}[i], [4]int64{2, 2, 1, 3}[i], [4]float32{-1, 1, -1, -1}[i]
		p0, p1, p2, p3 := at(a.In, p*a.Row, n), at(a.In, p*a.Row+a.Pixel, n), at(a.In, p*a.Row+2*a.Pixel, n), at(a.In, p*a.Row+3*a.Pixel, n)
		q0, q1, q2, q3 := at(a.In, q*a.Row, n), at(a.In, q*a.Row+a.Pixel, n), at(a.In, q*a.Row+2*a.Pixel, n), at(a.In, q*a.Row+3*a.Pixel, n)
		o0, o1, o2, o3 := at(a.Out, 4*i*a.Plane, n), at(a.Out, (4*i+1)*a.Plane, n), at(a.Out, (4*i+2)*a.Plane, n), at(a.Out, (4*i+3)*a.Plane, n)
		for c := range p0 {
			t0, t1, t2, t3 := p0[c]+sign*q0[c], p1[c]+sign*q1[c], p2[c]+sign*q2[c], p3[c]+sign*q3[c]
			o0[c], o1[c], o2[c], o3[c] = t0-t2, t1+t2, t2-t1, t1-t3
		}
	}
}

func winogradOutput(a *WinogradOutput) {
	n := a.Channels
	for row := range a.Rows {
		for col := range a.Cols {
			off := row*a.Row + col*a.Pixel
			out := at(a.Out, off, n)
			var bias, res, mask []float32
			if a.Bias != nil {
				bias = at(a.Bias, 0, n)
			}
			if a.Res != nil {
				res = at(a.Res, off, n)
			}
			if a.Mask != nil {
				mask = at(a.Mask, off, n)
			}
			var m [4][4][]float32
			for i := range m {
				for j := range m[i] {
					m[i][j] = at(a.In, int64(4*i+j)*a.Plane, n)
				}
			}
			for c := range out {
				side := func(j int) float32 {
					if row == 0 {
						return m[0][j][c] + m[1][j][c] + m[2][j][c]
					}
					return m[1][j][c] - m[2][j][c] - m[3][j][c]
				}
				var y float32
				if col == 0 {
					y = side(0) + side(1) + side(2)
				} else {
					y = side(1) - side(2) - side(3)
				}
				if bias != nil {
					y += bias[c]
				}
				if a.Flags&Accumulate != 0 {
					y += out[c]
				}
				if res != nil {
					y += res[c]
				}
				if a.Flags&ReLU != 0 && y < 0 {
					y = 0
				}
				if mask != nil && !(mask[c] > 0) {
					y = 0
				}
				out[c] = y
			}
		}
	}
}

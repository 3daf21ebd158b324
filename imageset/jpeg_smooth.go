package imageset

// A progressive file that ends before its last scans lacks fine coefficients.
// libjpeg-turbo guesses the first nine of a block from the block averages of the
// 5x5 blocks around it (T.81, annex K.8, widened), so that the picture shows no
// blocks, and therefore so do we; by the rules of its version 3, which differ a
// little from those of 2.1.

// kernel weighs the 25 averages, row by row.
type kernel [25]int64

// guess is how one coefficient is estimated.
type guess struct {
	at    int    // its place in the block
	alone kernel // if no coefficient but the averages is known of the block
	some  kernel // if others are; the zero kernel: no guess then
}

// guesses are in the file's order of coefficients, 1 to 9.
var guesses = [9]guess{
	{1, kernel{
		-1, -1, 0, 1, 1,
		-3, 13, 0, -13, 3,
		-3, 38, 0, -38, 3,
		-3, 13, 0, -13, 3,
		-1, -1, 0, 1, 1,
	}, kernel{10: -7, 11: 50, 13: -50, 14: 7}},
	{8, kernel{
		-1, -3, -3, -3, -1,
		-1, 13, 38, 13, -1,
		0, 0, 0, 0, 0,
		1, -13, -38, -13, 1,
		1, 3, 3, 3, 1,
	}, kernel{2: -7, 7: 50, 17: -50, 22: 7}},
	{16, kernel{
		0, 0, 1, 0, 0,
		0, 2, 7, 2, 0,
		0, -5, -14, -5, 0,
		0, 2, 7, 2, 0,
		0, 0, 1, 0, 0,
	}, kernel{2: -1, 7: 13, 12: -24, 17: 13, 22: -1}},
	{9, kernel{
		-1, 0, 0, 0, 1,
		0, 9, 0, -9, 0,
		0, 0, 0, 0, 0,
		0, -9, 0, 9, 0,
		1, 0, 0, 0, -1,
	}, kernel{
		0, -1, 0, 1, 0,
		-1, 10, 0, -10, 1,
		0, 0, 0, 0, 0,
		1, -10, 0, 10, -1,
		0, 1, 0, -1, 0,
	}},
	{2, kernel{
		0, 0, 0, 0, 0,
		0, 2, -5, 2, 0,
		1, 7, -14, 7, 1,
		0, 2, -5, 2, 0,
		0, 0, 0, 0, 0,
	}, kernel{10: -1, 11: 13, 12: -24, 13: 13, 14: -1}},
	{3, kernel{6: 1, 8: -1, 11: 2, 13: -2, 16: 1, 18: -1}, kernel{}},
	{10, kernel{6: 1, 7: -3, 8: 1, 16: -1, 17: 3, 18: -1}, kernel{}},
	{17, kernel{6: 1, 8: -1, 11: -3, 13: 3, 16: 1, 18: -1}, kernel{}},
	{24, kernel{6: 1, 7: 2, 8: 1, 16: -1, 17: -2, 18: -1}, kernel{}},
}

// average replaces a block's own average if nothing else is known of it.
var average = kernel{
	-2, -6, -8, -6, -2,
	-6, 6, 42, 6, -6,
	-8, 42, 152, 42, -8,
	-6, 6, 42, 6, -6,
	-2, -6, -8, -6, -2,
}

// smoothable tells whether some coefficients are missing that can be guessed.
func (d *jpegDecoder) smoothable() bool {
	useful := false
	for i := range d.comps {
		c := &d.comps[i]
		if c.bits[0] < 0 || c.quant16[0] == 0 {
			return false
		}
		for k, g := range guesses {
			if c.quant16[g.at] == 0 {
				return false
			}
			useful = useful || c.bits[k+1] != 0
		}
	}
	return useful
}

// smoothOutput turns the coefficients into samples, with guesses for those that
// are zero and not known precisely.
func (d *jpegDecoder) smoothOutput() {
	rows := ceilDiv(d.height, 8*d.maxV)
	for i := range d.comps {
		c := &d.comps[i]
		for y := range rows {
			d.smoothRow(c, y, rows)
		}
	}
}

// smoothRow does one of the rows of MCUs.
func (d *jpegDecoder) smoothRow(c *component, y, rows int) {
	n := c.v
	if rest := c.blocksY % c.v; y == rows-1 && rest != 0 {
		n = rest
	}
	bits := &c.bits
	if y > d.lastGoodRow {
		// The last scan did not get here.
		bits = &c.priorBits
		if d.scans <= 1 {
			for k := 1; k <= 9; k++ {
				bits[k] = -1
			}
		}
	}
	alone := true
	for k := 1; k <= 9; k++ {
		alone = alone && bits[k] == -1
	}
	for v := range n {
		by := y*c.v + v
		// Rows above and below, as far as libjpeg-turbo thinks there are any: it
		// counts with n, which is smaller in the last row.
		at, all := y*n+v, n*rows
		var near [5]int
		near[0], near[1], near[2], near[3], near[4] = by, by, by, by, by
		if at > 0 {
			near[1], near[0] = by-1, by-1
		}
		if at > 1 {
			near[0] = by - 2
		}
		if at < all-1 {
			near[3], near[4] = by+1, by+1
		}
		if at < all-2 {
			near[4] = by + 2
		}
		for bx := range c.blocksX {
			var dc kernel
			for r, ny := range near {
				for x := range 5 {
					nx := min(max(bx+x-2, 0), c.blocksX-1)
					dc[5*r+x] = int64(c.coef[64*(ny*c.paddedX+nx)])
				}
			}
			block := *(*[64]int16)(c.coef[64*(by*c.paddedX+bx):])
			d.guessBlock(c, &block, &dc, bits, alone)
			d.emit(c, &block, bx, by)
		}
	}
}

func (d *jpegDecoder) guessBlock(c *component, block *[64]int16, dc *kernel, bits *[64]int, alone bool) {
	q0 := int64(c.quant16[0])
	for k := range guesses {
		g := &guesses[k]
		weights := &g.some
		if alone {
			weights = &g.alone
		}
		al := bits[k+1]
		if al == 0 || block[g.at] != 0 || *weights == (kernel{}) {
			continue
		}
		limit := int64(-1)
		if al > 0 {
			limit = 1<<al - 1
		}
		block[g.at] = int16(estimate(q0*weights.dot(dc), int64(c.quant16[g.at]), limit))
	}
	if alone {
		block[0] = int16(estimate(q0*average.dot(dc), q0, -1))
	}
}

func (k *kernel) dot(v *kernel) (sum int64) {
	for i, w := range k {
		sum += w * v[i]
	}
	return sum
}

// estimate divides by 256 steps, rounded, and limits the size unless limit is
// negative.
func estimate(sum, step, limit int64) int64 {
	v := (step<<7 + max(sum, -sum)) / (step << 8)
	if limit >= 0 {
		v = min(v, limit)
	}
	if sum < 0 {
		return -v
	}
	return v
}

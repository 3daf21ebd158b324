package coverage

import "math"

// npLog returns ln(x) for finite x >= 1 as NumPy computes it with AVX-512 (the
// vector logarithm of Intel's SVML, with an error below one unit in the last
// place), which made the reference's thresholds. math.Log and a correctly
// rounded logarithm differ from it in the last bit of one value in six. The
// arithmetic is spelled out, so the result is the same on every machine.
//
//	x = m * 2^k, 1 <= m < 2;  c = 1/m rounded to 5 bits after the point;  r = c*m - 1
//	ln(x) = k ln 2 - ln(c) + ln(1+r)
func npLog(x float64) float64 {
	f, e := math.Frexp(x)
	m, k := 2*f, float64(e-1)
	i := int(math.RoundToEven(32 / m)) // c = i/32, from 1/2 to 1
	c := float64(i) / 32
	if c < 0.75 {
		k++ // the table has ln(2c), so that nothing cancels near x = 1
	}
	r := math.FMA(c, m, -1)
	r2 := r * r
	p := &lnPoly
	high := math.FMA(math.FMA(p[0], r, p[1]), r2, math.FMA(p[2], r, p[3]))
	low := math.FMA(math.FMA(p[4], r, p[5]), r2, math.FMA(p[6], r, p[7]))
	q := math.FMA(high, float64(r2*r2), low)
	return math.FMA(math.Ln2, k, lnTable[i-16]+math.FMA(q, r2, r))
}

// lnPoly approximates (ln(1+r) - r)/r^2 for |r| <= 1/32, highest power first.
var lnPoly = [...]float64{
	0.11135561406034511, -0.125220000081181, 0.14285690939597326, -0.16666650546695666,
	0.20000000009280938, -0.2500000000437373, 0.33333333333332005, -0.4999999999999968,
}

// lnTable has -ln(2c) for c = 16/32 .. 23/32 and -ln(c) for c = 24/32 .. 1.
var lnTable = [...]float64{
	0.0, -0.06062462181643484, -0.11778303565638346, -0.17185025692665923,
	-0.22314355131420976, -0.27193371548364176, -0.3184537311185346, -0.3629054936893685,
	0.2876820724517809, 0.24686007793152578, 0.2076393647782445, 0.16989903679539747,
	0.13353139262452263, 0.09844007281325252, 0.06453852113757118, 0.0317486983145803, 0.0,
}

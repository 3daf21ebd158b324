package coverage

import "math"

// The reference's states are made by PyTorch's vectorised float32 exponential.
// A correctly rounded exp would differ from it in the last bit of some 4 % of
// the states, and so move states that sit at a threshold. exp32 therefore
// follows the same evaluation: reduction by a two-part ln 2, then the degree-6
// polynomial of SLEEF's 1-ulp expf (Shibata and Petrogalli, 2020), each step a
// float32 fused multiply-add.

const (
	log2E  = float32(1.442695040888963407359924681001892137426645954152985934135449406931)
	ln2Hi  = float32(0.693145751953125)
	ln2Low = float32(1.428606765330187045e-06)
)

// expPoly approximates (e^s - 1 - s)/s^2, highest power first.
var expPoly = [...]float32{
	0.000198527617612853646278381,
	0.00139304355252534151077271,
	0.00833336077630519866943359,
	0.0416664853692054748535156,
	0.166666671633720397949219,
	0.5,
}

// exp32 returns e^x within one unit in the last place: +Inf on overflow, 0
// below -104, denormals between, NaN for NaN.
func exp32(x float32) float32 {
	switch {
	case x != x:
		return x
	case x < -104:
		return 0
	case x > 100:
		return float32(math.Inf(1))
	}
	q := float32(math.RoundToEven(float64(x * log2E)))
	s := fma32(q, -ln2Hi, x)
	s = fma32(q, -ln2Low, s)
	p := expPoly[0]
	for _, c := range expPoly[1:] {
		p = fma32(p, s, c)
	}
	s2 := float32(s * s)
	r := float32(1 + fma32(s2, p, s))
	// Two steps, as 2^q itself may not be a float32. Each product is exact
	// or rounds (or overflows) in float32.
	half := int(q) >> 1
	r = float32(r * pow2(half))
	return float32(r * pow2(int(q)-half))
}

// pow2 returns 2^k for -126 <= k <= 127.
func pow2(k int) float32 { return math.Float32frombits(uint32(k+127) << 23) }

// fma32 returns a*b+c rounded once to float32.
//
// The product of two float32 is exact in float64 but the sum may not be, and
// rounding it twice can go wrong on a tie. So the float64 sum is rounded to odd
// (its last bit records that something was cut off), after which the rounding
// to float32 is right (Boldo and Melquiond, 2008).
func fma32(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	w := float64(c)
	s := float64(p + w)
	if math.IsInf(s, 0) || math.IsNaN(s) {
		return float32(s)
	}
	// Knuth's two-sum: s + e is p + w exactly.
	t := float64(s - p)
	e := float64(float64(p-float64(s-t)) + float64(w-t))
	if e != 0 {
		if bits := math.Float64bits(s); bits&1 == 0 {
			if (e > 0) == (s > 0) {
				bits++
			} else {
				bits--
			}
			s = math.Float64frombits(bits)
		}
	}
	return float32(s)
}

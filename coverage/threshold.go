package coverage

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"sync"
)

// thresholdBase is the base of the logarithm that spaces the thresholds.
const thresholdBase = 1000

var thresholdCache sync.Map // M -> []float64, never changed once stored

// Thresholds returns the M thresholds between a neuron's bins: bin i is
// [t[i], t[i+1]). With h = M/2 and x_j in h even steps from 1 to sqrt(1000),
// l_j = ln(x_j)/ln(1000) rises from 0 to 0.5; the list is l_0 .. l_(h-2), then
// 1-l_(h-1) .. 1-l_0: dense about 0.5, where a sigmoid changes fastest, and
// symmetric. The last one, 1, is raised to 1.01 so that a state of exactly 1
// has a bin; 1.2 closes the list.
//
// M must be even and at least 4. The logarithm is correctly rounded, so the
// list is the same on every machine. (NumPy's is not: where it uses AVX-512 some
// of the reference's thresholds lie one or two units in the last place of
// float64 lower. No float32 state lies between.)
func Thresholds(m int) ([]float64, error) {
	if err := validateM(m); err != nil {
		return nil, fmt.Errorf("coverage: %w", err)
	}
	return slices.Clone(thresholds(m)), nil
}

// thresholds is Thresholds for a valid m, shared: not to be written to.
func thresholds(m int) []float64 {
	if t, ok := thresholdCache.Load(m); ok {
		return t.([]float64)
	}
	h := m / 2
	stop := math.Sqrt(thresholdBase)
	step := (stop - 1) / float64(h-1)
	lnBase := roundedLog(thresholdBase)
	l := make([]float64, h)
	for j := range l {
		// The conversion keeps the product from being fused with the sum.
		x := float64(float64(j)*step) + 1
		if j == h-1 {
			x = stop
		}
		l[j] = roundedLog(x) / lnBase
	}
	t := make([]float64, 0, m)
	t = append(t, l[:h-1]...)
	for j := h - 1; j >= 0; j-- {
		t = append(t, 1-l[j])
	}
	t[len(t)-1] += 1e-2
	t = append(t, 1.2)
	thresholdCache.Store(m, t)
	return t
}

// logPrec is the working precision of roundedLog in bits: enough that the
// float64 next to the true value is found unless some 60 bits happen to agree.
const logPrec = 128

var ln2Big = sync.OnceValue(func() *big.Float { return twiceAtanh(big.NewFloat(1), big.NewFloat(3)) })

// roundedLog returns the float64 nearest to ln(x), for finite x > 0. math.Log
// may be off by one unit, and differently so per architecture.
func roundedLog(x float64) float64 {
	// x = f * 2^k with f about 1; ln f = 2 atanh((f-1)/(f+1)).
	f, k := math.Frexp(x)
	if f < math.Sqrt2/2 {
		f *= 2
		k--
	}
	one := big.NewFloat(1)
	num := newBig().Sub(big.NewFloat(f), one)
	den := newBig().Add(big.NewFloat(f), one)
	sum := twiceAtanh(num, den)
	sum.Add(sum, newBig().Mul(ln2Big(), big.NewFloat(float64(k))))
	r, _ := sum.Float64()
	return r
}

// twiceAtanh returns 2 atanh(num/den) by its power series; |num/den| <= 1/3.
func twiceAtanh(num, den *big.Float) *big.Float {
	r := newBig().Quo(num, den)
	square := newBig().Mul(r, r)
	sum := newBig()
	power := newBig().Mul(r, big.NewFloat(2))
	for i := 1; power.Sign() != 0; i += 2 {
		term := newBig().Quo(power, big.NewFloat(float64(i)))
		if sum.Sign() != 0 && term.MantExp(nil) < sum.MantExp(nil)-logPrec {
			break
		}
		sum.Add(sum, term)
		power.Mul(power, square)
	}
	return sum
}

func newBig() *big.Float { return new(big.Float).SetPrec(logPrec) }

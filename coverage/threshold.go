package coverage

import (
	"fmt"
	"math"
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
// M must be even and at least 4. The values are the reference's to the last bit,
// on every machine (see npLog).
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
	lnBase := npLog(thresholdBase)
	l := make([]float64, h)
	for j := range l {
		// The conversion keeps the product from being fused with the sum.
		x := float64(float64(j)*step) + 1
		if j == h-1 {
			x = stop
		}
		l[j] = npLog(x) / lnBase
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

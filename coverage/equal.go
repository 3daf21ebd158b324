package coverage

import (
	"fmt"
)

// EqualThresholds returns the M thresholds between the equal bins of NAC-ME: bin i is
// [t[i], t[i+1]). They are the float32 numbers of torch.linspace(0, 1, M), as
// the reference compares states with. A state of exactly 1, which a sigmoid reaches
// from about 17 up, lies in no bin, and so it does there: kept, as published
// numbers come about so, and as a saturated neuron says little.
func EqualThresholds(m int) ([]float64, error) {
	if m < 2 || m > MaxThresholds {
		return nil, fmt.Errorf("coverage: threshold number M = %d: want 2 to %d", m, MaxThresholds)
	}
	return equalThresholds(m), nil
}

func equalThresholds(m int) []float64 {
	t := make([]float64, m)
	step := float64(float32(1) / float32(m-1))
	for i := range t {
		// From both ends, each with a single rounding.
		v := step * float64(i)
		if i >= m/2 {
			v = 1 - float64(step*float64(m-1-i))
		}
		t[i] = float64(float32(v))
	}
	return t
}

// thresholds are the settings' own, not to be written to.
func (s LayerSettings) thresholds() []float64 {
	if s.Equal {
		return equalThresholds(s.M)
	}
	return thresholds(s.M)
}

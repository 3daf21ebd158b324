package detector

import (
	"fmt"
	"math"
)

// ebo is the energy score (Liu et al., "Energy-based Out-of-distribution
// Detection", NeurIPS 2020): T * log sum_k exp(logits_k / T), the negative free
// energy. T is 1 unless set.
type ebo struct {
	logitsOnly
	temperature float64
}

var _ = register(Method{
	Key: "ebo", About: "energy: log-sum-exp of the logits", Paper: "Liu, NeurIPS 2020",
	make: newEBO,
})

func newEBO(p params) (Detector, error) {
	t := p.all.Temperature
	if t == 0 {
		t = 1
	}
	if !(t > 0) || math.IsInf(t, 0) {
		return nil, fmt.Errorf("detector: ebo: temperature %v is not above 0", t)
	}
	return &ebo{temperature: t}, nil
}

func (d *ebo) Settings() Settings { return Settings{Temperature: d.temperature} }

func (d *ebo) Score(in *Inputs, dst []float64) error {
	return d.each(in, dst, func(logits []float64) float64 {
		return logSumExp(logits, d.temperature)
	})
}

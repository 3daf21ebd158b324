package detector

import (
	"math"
	"slices"
)

// msp is the maximum softmax probability (Hendrycks and Gimpel, "A Baseline for
// Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
// ICLR 2017): max_k softmax(logits)_k.
type msp struct{ logitsOnly }

var _ = register(Method{
	Key: "msp", About: "maximum softmax probability", Paper: "Hendrycks, ICLR 2017",
	make: newMSP,
})

func newMSP(params) (Detector, error) { return &msp{}, nil }

func (d *msp) Score(in *Inputs, dst []float64) error {
	return d.each(in, dst, func(logits []float64) float64 {
		top := slices.Max(logits)
		sum := 0.0
		for _, v := range logits {
			sum += math.Exp(v - top)
		}
		return 1 / sum
	})
}

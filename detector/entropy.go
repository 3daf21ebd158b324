package detector

import "math"

// entropy is the Shannon entropy of the softmax probabilities, negated; in nats.
type entropy struct{ logitsOnly }

var _ = register(Method{Key: "entropy", About: "entropy of the probabilities", Paper: "Shannon, 1948", make: newEntropy})

func newEntropy(params) (Detector, error) { return &entropy{}, nil }

func (d *entropy) Score(in *Inputs, dst []float64) error {
	return d.each(in, dst, func(logits []float64) float64 {
		sum := 0.0
		for _, p := range softmax(logits) {
			if p > 0 {
				sum += p * math.Log(p)
			}
		}
		return sum
	})
}

package detector

import "slices"

// mls is the maximum logit score (Hendrycks et al., "Scaling Out-of-Distribution
// Detection for Real-World Settings", ICML 2022): max_k logits_k.
type mls struct{ logitsOnly }

func newMLS(Settings) (Detector, error) { return &mls{}, nil }

func (d *mls) Score(in *Inputs, dst []float64) error {
	return d.each(in, dst, func(logits []float64) float64 { return slices.Max(logits) })
}

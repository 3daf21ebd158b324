package detector

import "slices"

// mls is the maximum logit score (Hendrycks et al., "Scaling Out-of-Distribution
// Detection for Real-World Settings", ICML 2022): max_k logits_k.
type mls struct{ logitsOnly }

var _ = register(Method{
	Key: "mls", About: "maximum logit", Paper: "Hendrycks, ICML 2022",
	make: newMLS,
})

func newMLS(params) (Detector, error) { return &mls{}, nil }

func (d *mls) Score(in *Inputs, dst []float64) error {
	return d.each(in, dst, func(logits []float64) float64 { return slices.Max(logits) })
}

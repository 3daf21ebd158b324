package detector

import "math"

// gradNorm is the size of the last layer's gradient (Huang et al., "On the
// Importance of Gradients for Detecting Distributional Shifts in the Wild",
// NeurIPS 2021): the L1 norm of the gradient of -sum_k log softmax(logits)_k by the
// weights. That gradient is the outer product of K*softmax-1 and the feature, so
// its norm is the product of theirs.
type gradNorm struct{ fitting }

var _ = register(Method{
	Key: "gradnorm", About: "size of the last layer's gradient", Paper: "Huang, NeurIPS 2021",
	make: newGradNorm,
})

func newGradNorm(p params) (Detector, error) {
	return &gradNorm{fitting{params: p}}, nil
}

func (d *gradNorm) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	p := make([]float64, d.classes)
	for i := range in.N {
		feature, gradient := 0.0, 0.0
		for _, v := range d.feature(in, i) {
			feature += math.Abs(float64(v))
		}
		for _, v := range softmax(d.logits(in, i, p)) {
			gradient += math.Abs(float64(d.classes)*v - 1)
		}
		dst[i] = feature * gradient
	}
	return nil
}

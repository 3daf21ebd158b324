package detector

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas64"
)

// klm is KL matching (Hendrycks et al., "Scaling Out-of-Distribution Detection for
// Real-World Settings", ICML 2022): minus the least divergence KL(p || q_k) of an
// image's probabilities p from the mean q_k of those ID validation images that
// are predicted as class k. The mean of a class never predicted is that class for
// sure, from which the divergence is infinite unless p is the same.
type klm struct {
	fitting
	counts []float64
	means  []float64 // classes x classes; sums until End
	logs   []float64 // of means
}

var _ = register(Method{
	Key: "klm", About: "divergence from the nearest class's mean probabilities", Paper: "Hendrycks, ICML 2022",
	make: newKLM,
})

func newKLM(p params) (Detector, error) {
	d := &klm{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		s.float64s("means", &d.means, d.classes, d.classes)
		d.takeLogs()
	}
	return d, nil
}

func (d *klm) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	d.counts, d.means = make([]float64, n.Classes), make([]float64, n.Classes*n.Classes)
	return nil
}

func (d *klm) FitValidation(in *Inputs) error {
	if err := d.fitValidation(in); err != nil {
		return err
	}
	row := make([]float64, d.classes)
	for i := range in.N {
		d.logits(in, i, row)
		k := argmax(row)
		d.counts[k]++
		for c, p := range softmax(row) {
			d.means[k*d.classes+c] += p
		}
	}
	return nil
}

func (d *klm) End() error {
	if err := d.endValidated(); err != nil {
		return err
	}
	for i := range d.means {
		if n := d.counts[i/d.classes]; n > 0 {
			d.means[i] /= n
		} else if i/d.classes == i%d.classes {
			d.means[i] = 1
		}
	}
	d.takeLogs()
	return nil
}

func (d *klm) takeLogs() {
	d.logs = make([]float64, len(d.means))
	for i, q := range d.means {
		// Instead of minus infinity, which times zero would be NaN.
		d.logs[i] = max(math.Log(q), -math.MaxFloat64)
	}
}

func (d *klm) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	p, divergences := make([]float64, d.classes), make([]float64, d.classes)
	for i := range in.N {
		softmax(d.logits(in, i, p))
		entropy := 0.0
		for _, v := range p {
			if v > 0 {
				entropy += v * math.Log(v)
			}
		}
		for k := range divergences {
			logs := blas64.Vector{N: d.classes, Data: d.logs[k*d.classes:][:d.classes], Inc: 1}
			divergences[k] = entropy - blas64.Dot(blas64.Vector{N: d.classes, Data: p, Inc: 1}, logs)
		}
		dst[i] = -min(slices.Min(divergences), math.MaxFloat64)
	}
	return nil
}

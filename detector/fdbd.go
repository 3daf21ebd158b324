package detector

import (
	"math"

	"gonum.org/v1/gonum/mat"
)

// fdbd is the mean distance to the decision boundaries (Liu and Qin, "Fast Decision
// Boundary based Out-of-Distribution Detector", ICML 2024): the sum over classes k
// other than the predicted one, c, of (logit_c - logit_k) / |w_c - w_k|, over the
// feature's distance from the mean of the training features, or over its norm.
// Classes of equal weights have no boundary and are left out.
type fdbd struct {
	fitting
	head    *head
	sums    []float64
	mean    []float64
	between []float64 // 1/|w_c - w_k|, K x K; 0 for equal ones
}

var fdbdParams = []Param{{
	Name: "distance_as_normalizer", About: "1 divides by the distance from the mean feature, 0 by the feature's norm",
	Default: 1, Min: 0, Max: 1, Whole: true, Sweep: []float64{1, 0}, Late: true,
}}

var _ = register(Method{
	Key: "fdbd", About: "distance to the decision boundaries over that to the mean feature", Paper: "Liu, ICML 2024",
	Params: fdbdParams, make: newFDBD,
})

func newFDBD(p params) (Detector, error) {
	d := &fdbd{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		d.storeHead(s, &d.head)
		s.float64s("mean", &d.mean, d.features)
		if !s.saving && s.err == nil {
			d.between = d.head.boundaries()
		}
	}
	return d, nil
}

func (d *fdbd) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.sums = make([]float64, n.Features)
	d.head, err = d.takeHead(n)
	return err
}

func (d *fdbd) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i, v := range in.Feature[:in.N*d.features] {
		d.sums[i%d.features] += float64(v)
	}
	return nil
}

func (d *fdbd) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	d.mean = meanOf(d.sums, d.images)
	d.sums, d.between = nil, d.head.boundaries()
	return nil
}

func meanOf(sums []float64, n int) []float64 {
	mean := make([]float64, len(sums))
	for i, s := range sums {
		mean[i] = s / float64(n)
	}
	return mean
}

// boundaries returns 1/|w_c - w_k| of all pairs of classes, 0 for equal weights.
func (h *head) boundaries() []float64 {
	w := mat.NewDense(h.classes, h.features, widen(h.weight, make([]float64, len(h.weight))))
	var products mat.Dense
	products.Mul(w, w.T())
	between := make([]float64, h.classes*h.classes)
	for c := range h.classes {
		for k := range h.classes {
			cc, kk := products.At(c, c), products.At(k, k)
			square := cc + kk - 2*products.At(c, k)
			if square <= 1e-9*(cc+kk) { // what rounding leaves may be anything
				square = h.squareBetween(c, k)
			}
			if square > 0 {
				between[c*h.classes+k] = 1 / math.Sqrt(square)
			}
		}
	}
	return between
}

func (h *head) squareBetween(c, k int) float64 {
	sum := 0.0
	for i, v := range h.weight[c*h.features:][:h.features] {
		e := float64(v) - float64(h.weight[k*h.features+i])
		sum += e * e
	}
	return sum
}

func (d *fdbd) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	byDistance := d.int("distance_as_normalizer") == 1
	row := make([]float64, d.classes)
	for i := range in.N {
		c := argmax(d.logits(in, i, row))
		sum := 0.0
		for k, v := range row {
			sum += (row[c] - v) * d.between[c*d.classes+k]
		}
		square := 0.0
		for f, v := range d.feature(in, i) {
			e := float64(v)
			if byDistance {
				e -= d.mean[f]
			}
			square += e * e
		}
		// At the mean itself the quotient has no value; the largest finite one stands in.
		if dst[i] = sum / math.Sqrt(square); math.IsInf(dst[i], 0) || math.IsNaN(dst[i]) {
			dst[i] = math.MaxFloat64
		}
	}
	return nil
}

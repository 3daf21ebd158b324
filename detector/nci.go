package detector

import "math"

// nci is neural collapse inspired (Liu and Qin, "Detecting Out-of-Distribution
// through the Lens of Neural Collapse", CVPR 2025): with x the feature less the mean
// of the training features and w the predicted class's weights, w'x/|x| + alpha times
// the L1 norm of the feature. A feature at the mean has 0 for the first term.
type nci struct {
	fitting
	head *head
	sums []float64
	mean []float64
}

var nciParams = []Param{{
	Name: "alpha", About: "weight of the feature's L1 norm", Default: 1e-4, Min: 0, Max: 1e6,
	Sweep: []float64{1e-4, 1e-3, 1e-2, 0.1}, Late: true,
}}

var _ = register(Method{
	Key: "nci", About: "closeness of the centred feature to the predicted class's weights", Paper: "Liu, CVPR 2025",
	Params: nciParams, make: newNCI,
})

func newNCI(p params) (Detector, error) {
	d := &nci{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		d.storeHead(s, &d.head)
		s.float64s("mean", &d.mean, d.features)
	}
	return d, nil
}

func (d *nci) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.sums = make([]float64, n.Features)
	d.head, err = d.takeHead(n)
	return err
}

func (d *nci) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i, v := range in.Feature[:in.N*d.features] {
		d.sums[i%d.features] += float64(v)
	}
	return nil
}

func (d *nci) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	d.mean, d.sums = meanOf(d.sums, d.images), nil
	return nil
}

func (d *nci) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	alpha := d.float("alpha")
	for i := range in.N {
		w := d.head.weight[argmax(in.Logits[i*d.classes:][:d.classes])*d.features:]
		product, square, size := 0.0, 0.0, 0.0
		for f, v := range d.feature(in, i) {
			x := float64(v) - d.mean[f]
			product += float64(w[f]) * x
			square += x * x
			size += math.Abs(float64(v))
		}
		dst[i] = alpha * size
		if square > 0 {
			dst[i] += product / math.Sqrt(square)
		}
	}
	return nil
}

package detector

// scale is SCALE (Xu et al., "Scaling for Training Time and Post-hoc
// Out-of-distribution Detection Enhancement", ICLR 2024): the log-sum-exp of the
// logits of an image's feature times exp(sum of all / sum of its largest). Unlike
// ASH-S it drops none of them.
type scale struct {
	fitting
	head *head
}

var scaleParams = []Param{{
	Name: "percentile", About: "percentage of an image's features that do not count as its largest", Default: 85, Min: 0, Max: 99.99,
	Sweep: []float64{65, 70, 75, 80, 85, 90, 95}, Late: true,
}}

var _ = register(Method{
	Key: "scale", About: "energy of features scaled by the share of the largest (SCALE)", Paper: "Xu, ICLR 2024",
	Params: scaleParams, make: newScale,
})

func newScale(p params) (Detector, error) {
	d := &scale{fitting: fitting{params: p}}
	d.state = func(s *storage) { d.storeHead(s, &d.head) }
	return d, nil
}

func (d *scale) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.head, err = d.takeHead(n)
	return err
}

func (d *scale) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	k := kept(d.features, d.float("percentile"))
	scales := make([]float64, in.N)
	largest, work := make([]float32, d.features), make([]float32, d.features)
	for i := range in.N {
		copy(largest, d.feature(in, i))
		keepLargest(largest, k, work)
		scales[i] = sharpening(sum(d.feature(in, i)), sum(largest))
	}
	d.head.scaledEnergies(in.Feature, scales, in.N, dst)
	return nil
}

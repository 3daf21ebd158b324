package detector

// dice keeps the weights that matter most (Sun and Li, "DICE: Leveraging
// Sparsification for Out-of-Distribution Detection", ECCV 2022): the log-sum-exp
// of logits computed with those weights alone whose contribution, weight times
// mean feature of the training images, is above a percentile of all. The bias
// stays whole.
type dice struct {
	fitting
	head *head // with the weights that are kept
	sums []float64
}

var _ = register(Method{
	Key: "dice", About: "energy through the weights that matter most", Paper: "Sun, ECCV 2022",
	make: newDICE,
	Params: []Param{{
		Name: "p", About: "percentile of contributions below which weights are dropped", Default: 90, Min: 0, Max: 100,
		Sweep: []float64{10, 30, 50, 70, 90},
	}},
})

func newDICE(p params) (Detector, error) {
	d := &dice{fitting: fitting{params: p}}
	d.state = func(s *storage) { d.storeHead(s, &d.head) }
	return d, nil
}

func (d *dice) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.sums = make([]float64, n.Features)
	d.head, err = d.takeHead(n)
	return err
}

func (d *dice) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i, v := range in.Feature[:in.N*d.features] {
		d.sums[i%d.features] += float64(v)
	}
	return nil
}

func (d *dice) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	contributions := make([]float64, len(d.head.weight))
	for i, w := range d.head.weight {
		contributions[i] = float64(w) * d.sums[i%d.features] / float64(d.images)
	}
	threshold := percentile(append([]float64(nil), contributions...), d.float("p"))
	kept := make([]float32, len(contributions))
	for i, c := range contributions {
		if c > threshold {
			kept[i] = d.head.weight[i]
		}
	}
	d.head, d.sums = newHead(d.classes, d.features, kept, d.head.bias), nil
	return nil
}

func (d *dice) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	d.head.energies(in.Feature, in.N, dst)
	return nil
}

package detector

// she is simplified Hopfield energy (Zhang et al., "Out-of-Distribution Detection
// based on In-Distribution Data Patterns Memorization with Modern Hopfield
// Energy", ICLR 2023): the inner product of a feature with the mean feature of
// the predicted class, taken over training images that are classified rightly.
// For a class without any, the mean of all that are stands in.
type she struct {
	fitting
	counts   []float64
	patterns []float64 // classes x features; sums until End
}

var _ = register(Method{
	Key: "she", About: "inner product with the predicted class's mean feature", Paper: "Zhang, ICLR 2023",
	make: newSHE,
})

func newSHE(p params) (Detector, error) {
	d := &she{fitting: fitting{params: p}}
	d.state = func(s *storage) { s.float64s("patterns", &d.patterns, d.classes, d.features) }
	return d, nil
}

func (d *she) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	d.counts, d.patterns = make([]float64, n.Classes), make([]float64, n.Classes*n.Features)
	return nil
}

func (d *she) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i := range in.N {
		l, err := d.label(in, i)
		if err != nil {
			return err
		}
		if argmax(in.Logits[i*d.classes:][:d.classes]) != l {
			continue
		}
		d.counts[l]++
		pattern := d.patterns[l*d.features:]
		for f, v := range d.feature(in, i) {
			pattern[f] += float64(v)
		}
	}
	return nil
}

func (d *she) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	all, count := make([]float64, d.features), 0.0
	for i, v := range d.patterns {
		all[i%d.features] += v
	}
	for _, n := range d.counts {
		count += n
	}
	if count == 0 {
		d.phase = fresh
		return d.errorf("not one training image is classified rightly")
	}
	for i := range d.patterns {
		if n := d.counts[i/d.features]; n > 0 {
			d.patterns[i] /= n
		} else {
			d.patterns[i] = all[i%d.features] / count
		}
	}
	d.counts = nil
	return nil
}

func (d *she) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	for i := range in.N {
		pattern := d.patterns[argmax(in.Logits[i*d.classes:][:d.classes])*d.features:]
		sum := 0.0
		for f, v := range d.feature(in, i) {
			sum += float64(v) * pattern[f]
		}
		dst[i] = sum
	}
	return nil
}

package detector

// vim is virtual-logit matching (Wang et al., "ViM: Out-Of-Distribution with
// Virtual-logit Matching", CVPR 2022): the log-sum-exp of the logits less alpha
// times the norm of the feature's residual; see residual. alpha is the training
// images' mean largest logit over their mean residual. Finding it takes the
// training features, which are kept until then.
type vim struct {
	fitting
	head    *head
	moments *moments
	train   [][]float32
	tops    float64 // sum of the largest logits
	space   residualSpace
	alpha   float64
}

var _ = register(Method{
	Key: "vim", About: "energy less the feature's residual as a further logit", Paper: "Wang, CVPR 2022",
	make:   newVIM,
	Params: []Param{dimension},
})

func newVIM(p params) (Detector, error) {
	d := &vim{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		d.space.store(s, d.features)
		s.number("alpha", &d.alpha)
	}
	return d, nil
}

func (d *vim) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.moments, d.train, d.tops = newMoments(n.Features), nil, 0
	d.head, err = d.takeHead(n)
	return err
}

func (d *vim) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	row := make([]float64, d.classes)
	for i := range in.N {
		d.moments.add(d.feature(in, i))
		d.logits(in, i, row)
		d.tops += row[argmax(row)]
	}
	d.train = append(d.train, append([]float32(nil), in.Feature[:in.N*d.features]...))
	return nil
}

func (d *vim) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	space, err := newResidualSpace(d.head, d.moments, d.int("dim"))
	if err != nil {
		d.phase = fresh
		return d.errorf("%w", err)
	}
	d.space = *space
	sum := 0.0
	for _, features := range d.train {
		n := len(features) / d.features
		norms := make([]float64, n)
		space.norms(features, n, norms)
		for _, v := range norms {
			sum += v
		}
	}
	d.alpha = d.tops / sum
	d.train, d.moments, d.head = nil, nil, nil
	// Rounding leaves something of features that have no residual.
	if !(sum/float64(d.images) > 1e-9*space.scale) {
		d.phase = fresh
		return d.errorf("%w", errNoResidual)
	}
	return nil
}

func (d *vim) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	d.space.norms(in.Feature, in.N, dst)
	row := make([]float64, d.classes)
	for i := range in.N {
		dst[i] = logSumExp(d.logits(in, i, row), 1) - d.alpha*dst[i]
	}
	return nil
}

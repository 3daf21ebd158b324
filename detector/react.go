package detector

import "math"

// react clips features before the last layer (Sun et al., "ReAct:
// Out-of-distribution Detection With Rectified Activations", NeurIPS 2021): the
// log-sum-exp of the logits of min(feature, c), c a percentile of all features of
// the ID validation images. VRA clips from below likewise.
type react struct {
	fitting
	head      *head
	val       []float32 // features until End
	high, low float64   // percentiles
	fromBelow bool
	threshold float64
	least     float64 // threshold from below
}

var reactParams = []Param{{
	Name: "percentile", About: "percentile of the features at which they are clipped", Default: 90, Min: 0, Max: 100,
	Sweep: []float64{85, 90, 95, 99},
}}

var _ = register(Method{
	Key: "react", About: "energy of clipped features", Paper: "Sun, NeurIPS 2021",
	Params: reactParams, make: newReAct,
})

func newReAct(p params) (Detector, error) {
	d := newClipping(p)
	d.high = p.float("percentile")
	return d, nil
}

func newClipping(p params) *react {
	d := &react{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		d.storeHead(s, &d.head)
		s.number("threshold", &d.threshold)
		if d.fromBelow {
			s.number("least", &d.least)
		}
	}
	return d
}

func (d *react) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.val = nil
	d.head, err = d.takeHead(n)
	return err
}

func (d *react) FitValidation(in *Inputs) error {
	if err := d.fitValidation(in); err != nil {
		return err
	}
	d.val = append(d.val, in.Feature[:in.N*d.features]...)
	return nil
}

func (d *react) End() error {
	if err := d.endValidated(); err != nil {
		return err
	}
	d.threshold = percentile(d.val, d.high)
	if d.fromBelow {
		d.least = percentile(d.val, d.low)
	}
	d.val = nil
	return nil
}

func (d *react) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	clipped := make([]float32, in.N*d.features)
	low, high := float32(math.Inf(-1)), float32(d.threshold)
	if d.fromBelow {
		low = float32(d.least)
	}
	for i, v := range in.Feature[:len(clipped)] {
		clipped[i] = max(low, min(v, high))
	}
	d.head.energies(clipped, in.N, dst)
	return nil
}

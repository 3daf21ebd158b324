package detector

import (
	"math"
	"slices"
)

// odin is ODIN (Liang et al., "Enhancing The Reliability of Out-of-distribution
// Image Detection in Neural Networks", ICLR 2018): the maximum softmax probability
// at a temperature T of the image moved by a small noise against the sign of the
// gradient of its cross-entropy at T with the predicted class. The noise is divided
// by the standard deviation that the channels were normalised with, or by 0.5 if it is
// not known. (The reference takes that of its data set's name.)
//
// iODIN, which OpenOOD adds, moves the one value of the image where the gradient is
// largest.
type odin struct {
	fitting
	step []float64             // by channel
	move func([3]float32) Move // of steps
}

var (
	_ = register(Method{
		Key: "odin", About: "probability at a high temperature of an image moved towards its class", Paper: "Liang, ICLR 2018",
		make: newODIN(func(size [3]float32) Move { return SignStep{size} }), Params: odinParams,
	})
	_ = register(Method{
		Key: "iodin", About: "the same, of an image moved at one value alone", Paper: "OpenOOD, 2024",
		make: newODIN(func(size [3]float32) Move { return LargestStep{size} }), Params: odinParams,
	})
)

var odinParams = []Param{
	{
		Name: "temperature", About: "what logits are divided by", Default: 1000, Min: 1e-3, Max: 1e6,
		Sweep: []float64{1, 10, 100, 1000},
	},
	{
		Name: "noise", About: "by how much pixels are moved", Default: 0.0014, Min: 0, Max: 10,
		Sweep: []float64{0.0014, 0.0028},
	},
}

func newODIN(move func([3]float32) Move) func(params) (Detector, error) {
	return func(p params) (Detector, error) {
		d := &odin{fitting: fitting{params: p}, move: move}
		d.state = func(s *storage) { s.float64s("step", &d.step, 3) }
		return d, nil
	}
}

func (d *odin) Begin(n Network) error {
	d.step = d.steps(n)
	return d.begin(n)
}

func (d *odin) steps(n Network) []float64 {
	steps := make([]float64, 3)
	for c, std := range n.Std {
		if std == 0 {
			std = 0.5
		}
		steps[c] = d.float("noise") / float64(std)
	}
	return steps
}

func (d *odin) pass(steps []float64) Pass {
	var size [3]float32
	for c := range size {
		size[c] = float32(steps[c])
	}
	return Pass{Loss: crossEntropy{d.float("temperature")}, Move: d.move(size)}
}

func (d *odin) Needs(n Network, p Phase) Needs {
	if p != Scoring {
		return Needs{}
	}
	steps := d.step
	if d.phase == fresh {
		steps = d.steps(n)
	}
	return Needs{Passes: []Further{{Pass: d.pass(steps), Logits: true}}}
}

func (d *odin) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	moved, err := in.pass(d.pass(d.step))
	if err != nil {
		return d.errorf("%w", err)
	}
	if err := d.check(moved); err != nil {
		return err
	}
	t := d.float("temperature")
	row := make([]float64, d.classes)
	for i := range in.N {
		d.logits(moved, i, row)
		for k := range row {
			row[k] /= t
		}
		dst[i] = slices.Max(softmax(row))
	}
	return nil
}

// crossEntropy is that of the predicted class at a temperature.
type crossEntropy struct{ temperature float64 }

func (crossEntropy) Layer() string { return "" }

func (l crossEntropy) Gradient(logits, gradient []float32) {
	p := widen(logits, make([]float64, len(logits)))
	best := argmax(p)
	top := p[best]
	sum := 0.0
	for k, v := range p {
		p[k] = math.Exp((v - top) / l.temperature)
		sum += p[k]
	}
	others := 0.0 // 1 - the predicted class's, without cancellation
	for k, v := range p {
		if k != best {
			gradient[k] = float32(v / sum / l.temperature)
			others += v / sum
		}
	}
	gradient[best] = float32(-others / l.temperature)
}

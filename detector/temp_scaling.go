package detector

import (
	"math"
	"slices"
)

// tempScaling is the maximum softmax probability at the temperature that fits the
// ID validation images (Guo et al., "On Calibration of Modern Neural Networks",
// ICML 2017): max_k softmax(logits / T)_k.
//
// T is not the best temperature but what OpenOOD takes for it: fifty steps of
// L-BFGS with a rate of 0.01 from T = 1.5 on the mean cross-entropy, which end
// before the optimum. In one dimension L-BFGS is the secant method.
type tempScaling struct {
	fitting
	temperature float64
	val         []float32 // logits until End
	labels      []int
}

var _ = register(Method{
	Key: "temp_scaling", About: "maximum softmax probability at a fitted temperature", Paper: "Guo, ICML 2017",
	make: newTempScaling,
})

func newTempScaling(p params) (Detector, error) {
	d := &tempScaling{fitting: fitting{params: p}}
	d.state = func(s *storage) { s.number("temperature", &d.temperature) }
	return d, nil
}

func (d *tempScaling) Begin(n Network) error {
	d.val, d.labels = nil, nil
	return d.begin(n)
}

func (d *tempScaling) FitValidation(in *Inputs) error {
	if err := d.fitValidation(in); err != nil {
		return err
	}
	for i := range in.N {
		l, err := d.label(in, i)
		if err != nil {
			return err
		}
		d.labels = append(d.labels, l)
	}
	d.val = append(d.val, in.Logits[:in.N*d.classes]...)
	return nil
}

func (d *tempScaling) End() error {
	if err := d.endValidated(); err != nil {
		return err
	}
	d.temperature = d.descend()
	d.val, d.labels = nil, nil
	if !(d.temperature > 0) || math.IsInf(d.temperature, 0) {
		d.phase = fresh
		return d.errorf("no temperature fits the ID validation images: the search ended at %v", d.temperature)
	}
	return nil
}

func (d *tempScaling) descend() float64 {
	const (
		rate            = 0.01
		steps           = 50
		gradientNearly0 = 1e-7
		changeNearly0   = 1e-9
		curvatureLeast  = 1e-10
	)
	t := 1.5
	loss, gradient := d.loss(t)
	var step, before, inverse float64
	for n := range steps {
		direction, size := -gradient, rate
		if n == 0 {
			size *= min(1, 1/math.Abs(gradient))
			inverse = 1
		} else {
			if y := gradient - before; y*step > curvatureLeast {
				inverse = step / y
			}
			direction *= inverse
		}
		before = gradient
		if math.Abs(gradient) <= gradientNearly0 || gradient*direction > -changeNearly0 {
			break
		}
		step = direction * size
		t += step
		last := loss
		loss, gradient = d.loss(t)
		if math.Abs(step) <= changeNearly0 || math.Abs(loss-last) < changeNearly0 {
			break
		}
	}
	return t
}

// loss is the mean cross-entropy of the validation images at a temperature, and
// its derivative by the temperature.
func (d *tempScaling) loss(t float64) (loss, gradient float64) {
	p := make([]float64, d.classes)
	for i, l := range d.labels {
		row := d.val[i*d.classes:][:d.classes]
		for k, v := range row {
			p[k] = float64(v) / t
		}
		at := p[l]
		loss += logSumExp(p, 1) - at
		softmax(p)
		mean := 0.0
		for k, v := range row {
			mean += p[k] * float64(v)
		}
		gradient += (float64(row[l]) - mean) / (t * t)
	}
	n := float64(len(d.labels))
	return loss / n, gradient / n
}

func (d *tempScaling) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	row := make([]float64, d.classes)
	for i := range in.N {
		d.logits(in, i, row)
		for k := range row {
			row[k] /= d.temperature
		}
		dst[i] = slices.Max(softmax(row))
	}
	return nil
}

package train

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"nac/arch"
	"nac/nn"
)

// OptimizerSettings describe an optimizer, in PyTorch's terms.
type OptimizerSettings struct {
	// Kind is sgd, adam or adamw.
	Kind string `json:"kind"`
	// Momentum and Nesterov are sgd's.
	Momentum float64 `json:"momentum,omitempty"`
	Nesterov bool    `json:"nesterov,omitempty"`
	// Beta1, Beta2 and Epsilon are adam's and adamw's.
	Beta1   float64 `json:"beta1,omitempty"`
	Beta2   float64 `json:"beta2,omitempty"`
	Epsilon float64 `json:"epsilon,omitempty"`
	// WeightDecay is added to the gradient, times the weight; adamw shrinks the
	// weight itself instead (Loshchilov and Hutter, 2019).
	WeightDecay float64 `json:"weight_decay"`
}

// SGD returns stochastic gradient descent with momentum.
func SGD(momentum float64, nesterov bool, decay float64) OptimizerSettings {
	return OptimizerSettings{Kind: "sgd", Momentum: momentum, Nesterov: nesterov, WeightDecay: decay}
}

// Adam returns Adam (Kingma and Ba, 2015) with its usual constants.
func Adam(decay float64) OptimizerSettings {
	return OptimizerSettings{Kind: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: decay}
}

// AdamW returns AdamW with its usual constants.
func AdamW(decay float64) OptimizerSettings {
	o := Adam(decay)
	o.Kind = "adamw"
	return o
}

// Validate says what is wrong with the settings.
func (o OptimizerSettings) Validate() error {
	bad := func(format string, args ...any) error { return fmt.Errorf("optimizer: "+format, args...) }
	switch {
	case !slices.Contains([]string{"sgd", "adam", "adamw"}, o.Kind):
		return bad("no kind %q: want sgd, adam or adamw", o.Kind)
	case !(o.WeightDecay >= 0) || math.IsInf(o.WeightDecay, 0):
		return bad("weight decay %v: want 0 or above", o.WeightDecay)
	case o.Kind == "sgd" && !(o.Momentum >= 0 && o.Momentum < 1):
		return bad("momentum %v: want 0 to below 1", o.Momentum)
	case o.Kind == "sgd" && o.Nesterov && o.Momentum == 0:
		return bad("Nesterov's form needs a momentum")
	case o.Kind != "sgd" && !(o.Beta1 >= 0 && o.Beta1 < 1 && o.Beta2 >= 0 && o.Beta2 < 1 && o.Epsilon > 0):
		return bad("beta %v and %v, epsilon %v: want 0 to below 1, and above 0", o.Beta1, o.Beta2, o.Epsilon)
	}
	return nil
}

// Optimizer changes parameters by their gradients.
type Optimizer struct {
	settings OptimizerSettings
	params   []*nn.Parameter
	steps    int
	// first is momentum or Adam's mean, second Adam's mean square.
	first, second [][]float32
}

// NewOptimizer returns an optimizer of params.
func NewOptimizer(s OptimizerSettings, params []*nn.Parameter) (*Optimizer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	o := &Optimizer{settings: s, params: params}
	for _, p := range params {
		if s.Kind != "sgd" || s.Momentum > 0 {
			o.first = append(o.first, make([]float32, len(p.Value)))
		}
		if s.Kind != "sgd" {
			o.second = append(o.second, make([]float32, len(p.Value)))
		}
	}
	return o, nil
}

// ParametersOf returns the parameters without their names.
func ParametersOf(named []arch.NamedParameter) []*nn.Parameter {
	var p []*nn.Parameter
	for _, n := range named {
		p = append(p, n.Parameter)
	}
	return p
}

// Step moves every parameter once.
func (o *Optimizer) Step(rate float64) {
	o.steps++
	update := o.sgd
	if o.settings.Kind != "sgd" {
		update = o.adam
	}
	const part = 1 << 16
	var wait sync.WaitGroup
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, p := range o.params {
		for from := 0; from < len(p.Value); from += part {
			to := min(from+part, len(p.Value))
			room <- struct{}{}
			wait.Go(func() {
				update(i, from, to, rate)
				<-room
			})
		}
	}
	wait.Wait()
}

func (o *Optimizer) sgd(i, from, to int, rate float64) {
	p := o.params[i]
	value, grad := p.Value[from:to], p.Grad[from:to]
	decay, momentum, step := float32(o.settings.WeightDecay), float32(o.settings.Momentum), float32(rate)
	if momentum == 0 {
		for k, w := range value {
			value[k] = w - step*(grad[k]+decay*w)
		}
		return
	}
	velocity := o.first[i][from:to]
	if o.steps == 1 {
		momentum = 0 // PyTorch begins with the gradient itself
	}
	nesterov := float32(o.settings.Momentum)
	for k, w := range value {
		d := grad[k] + decay*w
		v := momentum*velocity[k] + d
		velocity[k] = v
		if o.settings.Nesterov {
			v = d + nesterov*v
		}
		value[k] = w - step*v
	}
}

func (o *Optimizer) adam(i, from, to int, rate float64) {
	s, p := o.settings, o.params[i]
	value, grad := p.Value[from:to], p.Grad[from:to]
	mean, square := o.first[i][from:to], o.second[i][from:to]
	decay, shrink := float32(s.WeightDecay), float32(1)
	if s.Kind == "adamw" {
		decay, shrink = 0, float32(1-rate*s.WeightDecay)
	}
	b1, b2, r1, r2 := float32(s.Beta1), float32(s.Beta2), float32(1-s.Beta1), float32(1-s.Beta2)
	step := float32(rate / (1 - math.Pow(s.Beta1, float64(o.steps))))
	root := float32(1 / math.Sqrt(1-math.Pow(s.Beta2, float64(o.steps))))
	epsilon := float32(s.Epsilon)
	for k, w := range value {
		w *= shrink
		g := grad[k] + decay*w
		m := b1*mean[k] + r1*g
		v := b2*square[k] + r2*g*g
		mean[k], square[k] = m, v
		value[k] = w - step*m/(float32(math.Sqrt(float64(v)))*root+epsilon)
	}
}

// Reset forgets what the optimizer has gathered, as a new one would have it.
func (o *Optimizer) Reset() {
	o.steps = 0
	for _, v := range slices.Concat(o.first, o.second) {
		clear(v)
	}
}

// Schedule says how the learning rate goes.
type Schedule struct {
	// Kind is constant, step, cosine or linear.
	Kind string  `json:"kind"`
	Rate float64 `json:"rate"` // the highest
	// Warmup is the number of steps in which the rate rises in a line to Rate.
	Warmup int `json:"warmup,omitempty"`
	// Total is the number of steps, for cosine and linear, which end at Last.
	Total int     `json:"total,omitempty"`
	Last  float64 `json:"last,omitempty"`
	// Milestones are the steps, counted with the warm-up, from which on step
	// multiplies the rate by Factor once more.
	Milestones []int   `json:"milestones,omitempty"`
	Factor     float64 `json:"factor,omitempty"`
}

// ScheduleKinds are the kinds of schedules.
var ScheduleKinds = []string{"constant", "step", "cosine", "linear"}

// Validate says what is wrong with the schedule.
func (s Schedule) Validate() error {
	bad := func(format string, args ...any) error { return fmt.Errorf("schedule: "+format, args...) }
	switch {
	case !slices.Contains(ScheduleKinds, s.Kind):
		return bad("no kind %q: want one of %s", s.Kind, strings.Join(ScheduleKinds, ", "))
	case !(s.Rate > 0) || math.IsInf(s.Rate, 0):
		return bad("a learning rate of %v: want a number above 0", s.Rate)
	case s.Warmup < 0 || s.Total < 0 || !(s.Last >= 0):
		return bad("a warm-up of %d steps, %d in all, ending at %v: none may be below 0", s.Warmup, s.Total, s.Last)
	case s.Kind == "step" && (!(s.Factor > 0) || math.IsInf(s.Factor, 0) || !slices.IsSorted(s.Milestones)):
		return bad("factor %v at steps %v: want a factor above 0 and rising steps", s.Factor, s.Milestones)
	}
	return nil
}

// At returns the learning rate of a step; the first is 0.
func (s Schedule) At(step int) float64 {
	if step < s.Warmup {
		return s.Rate * float64(step+1) / float64(s.Warmup)
	}
	left := 1.0 // of what comes after the warm-up
	if n := s.Total - s.Warmup; n > 0 {
		left = 1 - min(float64(step-s.Warmup)/float64(n), 1)
	}
	switch s.Kind {
	case "step":
		r := s.Rate
		for _, m := range s.Milestones {
			if step >= m {
				r *= s.Factor
			}
		}
		return r
	case "cosine":
		return s.Last + (s.Rate-s.Last)*(1-math.Cos(math.Pi*left))/2
	case "linear":
		return s.Last + (s.Rate-s.Last)*left
	}
	return s.Rate
}

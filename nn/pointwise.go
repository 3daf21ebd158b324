package nn

import (
	"fmt"
	"math"
)

// Function is a smooth activation function of one variable.
type Function int

// The functions that Apply knows; formulas as in PyTorch.
const (
	Sigmoid Function = iota
	Tanh
	SiLU        // x * sigmoid(x), also called swish
	HardSigmoid // min(max(x/6 + 1/2, 0), 1)
	HardSwish   // x * HardSigmoid(x)
	Erf
	GELU // x * Phi(x) with the normal distribution's exact Phi, by erf
)

var functions = map[Function]struct {
	name            string
	value, gradient func(x float64) float64
}{
	Sigmoid: {"sigmoid", sigmoid, func(x float64) float64 { s := sigmoid(x); return s * (1 - s) }},
	Tanh:    {"tanh", math.Tanh, func(x float64) float64 { t := math.Tanh(x); return 1 - t*t }},
	SiLU: {"SiLU", func(x float64) float64 { return x * sigmoid(x) },
		func(x float64) float64 { s := sigmoid(x); return s * (1 + x*(1-s)) }},
	HardSigmoid: {"hard sigmoid", hardSigmoid, func(x float64) float64 {
		if x > -3 && x < 3 {
			return 1. / 6
		}
		return 0
	}},
	HardSwish: {"hard swish", func(x float64) float64 { return x * hardSigmoid(x) }, func(x float64) float64 {
		switch {
		case x <= -3:
			return 0
		case x < 3:
			return x/3 + 0.5
		}
		return 1
	}},
	GELU: {"GELU", func(x float64) float64 { return x * phi(x) }, func(x float64) float64 {
		return phi(x) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	}},
	Erf: {"erf", math.Erf, func(x float64) float64 { return 2 / math.Sqrt(math.Pi) * math.Exp(-x*x) }},
}

func phi(x float64) float64         { return 0.5 * math.Erfc(-x/math.Sqrt2) }
func sigmoid(x float64) float64     { return 1 / (1 + math.Exp(-x)) }
func hardSigmoid(x float64) float64 { return min(max(x/6+0.5, 0), 1) }

func (f Function) String() string { return functions[f].name }

type pointwiseOp struct{ f Function }

// Apply is f of every value.
func (g *Graph) Apply(f Function, x *Node) *Node {
	if functions[f].value == nil {
		panic(fmt.Sprintf("nn: no function %d", f))
	}
	return g.add(pointwiseOp{f}, x.shape, x)
}

type pointwiseJob struct {
	in, out *buffer
	f       func(float64) float64
}

func (j *pointwiseJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *pointwiseJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.in.geom
	for y := range g.height {
		in, out := ws.row(j.in, image, y), ws.row(j.out, image, y)
		for p := 0; p < len(in); p += g.stride {
			to := out[p:][:g.stride]
			for c, v := range in[p:][:g.channels] {
				to[c] = float32(j.f(float64(v)))
			}
			clear(to[g.channels:])
		}
	}
}

// pointwiseBackJob adds from times the function's gradient.
type pointwiseBackJob struct {
	from, to, act, mask *buffer
	gradient            func(float64) float64
}

func (j *pointwiseBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.act, j.mask} }

func (j *pointwiseBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.to.geom
	for y := range g.height {
		from, to, act := ws.row(j.from, image, y), ws.row(j.to, image, y), ws.row(j.act, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p := 0; p < len(to); p += g.stride {
			for i := p; i < p+g.channels; i++ {
				if mask == nil || mask[i] > 0 {
					to[i] += from[i] * float32(j.gradient(float64(act[i])))
				}
			}
		}
	}
}

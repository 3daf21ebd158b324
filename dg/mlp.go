package dg

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/mat"

	"nac/nn"
	"nac/train"
	"nac/weights"
)

// linear is a fully connected layer: y = x W^T + b, W a row for each output.
type linear struct {
	in, out      int
	weight, bias *nn.Parameter
}

// newLinear draws weights as PyTorch's Linear does: evenly within 1/sqrt(in).
func newLinear(in, out int, r *rand.Rand) *linear {
	l := &linear{in: in, out: out}
	bound := 1 / math.Sqrt(float64(in))
	for _, p := range []struct {
		to **nn.Parameter
		n  int
	}{{&l.weight, in * out}, {&l.bias, out}} {
		*p.to = &nn.Parameter{Value: make([]float32, p.n), Grad: make([]float32, p.n)}
		for i := range p.n {
			(*p.to).Value[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
	return l
}

func dense(rows, columns int, v []float32) *mat.Dense {
	data := make([]float64, len(v))
	for i, x := range v {
		data[i] = float64(x)
	}
	return mat.NewDense(rows, columns, data)
}

func (l *linear) forward(x *mat.Dense) *mat.Dense {
	var y mat.Dense
	y.Mul(x, dense(l.out, l.in, l.weight.Value).T())
	y.Apply(func(_, j int, v float64) float64 { return v + float64(l.bias.Value[j]) }, &y)
	return &y
}

// backward sets the gradients of weight and bias, given that of y, and returns that of
// x.
func (l *linear) backward(x, grad *mat.Dense) *mat.Dense {
	var weight, back mat.Dense
	weight.Mul(grad.T(), x)
	for i, v := range weight.RawMatrix().Data {
		l.weight.Grad[i] = float32(v)
	}
	rows, _ := grad.Dims()
	for j := range l.out {
		sum := 0.0
		for i := range rows {
			sum += grad.At(i, j)
		}
		l.bias.Grad[j] = float32(sum)
	}
	back.Mul(grad, dense(l.out, l.in, l.weight.Value))
	return &back
}

func (l *linear) parameters() []*nn.Parameter { return []*nn.Parameter{l.weight, l.bias} }

// store names the layer's tensors, which stay its own.
func (l *linear) store(sd *weights.StateDict, name string) {
	sd.Set(name+".weight", weights.Tensor{Shape: []int{l.out, l.in}, Data: l.weight.Value})
	sd.Set(name+".bias", weights.Tensor{Shape: []int{l.out}, Data: l.bias.Value})
}

// mlp is DomainBed's multi-layer perceptron: linear layers with dropout and ReLU
// between them.
type mlp struct {
	layers  []*linear
	dropout float64
	// Of the last forward pass: what went into each layer, and what came through
	// dropout and ReLU, with its weight.
	inputs []*mat.Dense
	passed [][]float64
}

// newMLP makes one of depth layers, those between the first and the last width wide.
func newMLP(in, out, width, depth int, dropout float64, r *rand.Rand) *mlp {
	m := &mlp{dropout: dropout}
	for i := range depth {
		from, to := width, width
		if i == 0 {
			from = in
		}
		if i == depth-1 {
			to = out
		}
		m.layers = append(m.layers, newLinear(from, to, r))
	}
	return m
}

// forward runs rows of x in train mode; seed decides what is dropped.
func (m *mlp) forward(x *mat.Dense, seed uint64) *mat.Dense {
	m.inputs, m.passed = nil, nil
	r := rand.New(rand.NewPCG(seed, 0))
	for i, l := range m.layers {
		m.inputs = append(m.inputs, x)
		x = l.forward(x)
		if i == len(m.layers)-1 {
			break
		}
		values := x.RawMatrix().Data
		passed := make([]float64, len(values))
		for k, v := range values {
			if v > 0 && (m.dropout == 0 || r.Float64() >= m.dropout) {
				passed[k] = 1 / (1 - m.dropout)
			}
			values[k] = v * passed[k]
		}
		m.passed = append(m.passed, passed)
	}
	return x
}

// backward sets every gradient, given that of the output, and returns that of the
// input.
func (m *mlp) backward(grad *mat.Dense) *mat.Dense {
	for i := len(m.layers) - 1; i >= 0; i-- {
		grad = m.layers[i].backward(m.inputs[i], grad)
		if i > 0 {
			for k, p := range m.passed[i-1] {
				grad.RawMatrix().Data[k] *= p
			}
		}
	}
	return grad
}

func (m *mlp) parameters() (p []*nn.Parameter) {
	for _, l := range m.layers {
		p = append(p, l.parameters()...)
	}
	return p
}

func (m *mlp) store(sd *weights.StateDict, name string) {
	for i, l := range m.layers {
		l.store(sd, fmt.Sprintf("%s.%d", name, i))
	}
}

// denseCrossEntropy returns the mean cross-entropy of rows of logits and its gradient.
func denseCrossEntropy(logits *mat.Dense, labels []int) (float64, *mat.Dense) {
	rows, classes := logits.Dims()
	grad := mat.NewDense(rows, classes, nil)
	loss := 0.0
	for i, y := range labels {
		p, logSum := softmax(logits.RawRowView(i))
		loss += (logSum - logits.At(i, y)) / float64(rows)
		p[y]--
		for c, v := range p {
			grad.Set(i, c, v/float64(rows))
		}
	}
	return loss, grad
}

// softmax returns probabilities, and the logarithm of the exponentials' sum.
func softmax(z []float64) (p []float64, logSum float64) {
	top := math.Inf(-1)
	for _, v := range z {
		top = max(top, v)
	}
	sum := 0.0
	p = make([]float64, len(z))
	for c, v := range z {
		p[c] = math.Exp(v - top)
		sum += p[c]
	}
	for c := range p {
		p[c] /= sum
	}
	return p, top + math.Log(sum)
}

// companionOptimizer is an optimizer of an algorithm's own parameters.
func companionOptimizer(kind string, decay, beta1, beta2 float64, p []*nn.Parameter) (*train.Optimizer, error) {
	s, err := optimizerSettings(kind, decay)
	if err != nil {
		return nil, err
	}
	if kind != "sgd" && beta2 > 0 {
		s.Beta1, s.Beta2 = beta1, beta2
	}
	return train.NewOptimizer(s, p)
}

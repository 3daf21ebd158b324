package dg

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/mat"

	"nac/nn"
	"nac/train"
	"nac/weights"
)

// sagnet is the style-agnostic network (Nam et al., 2021) as DomainBed has it: style is
// mean and variance of a feature vector, content what is left of it. The classifier
// learns on features of mixed style, a second classifier on features of foreign
// content, and the featurizer to leave the second one nothing to go by.
//
// A step has two passes: one trains featurizer and classifier, the other the style
// classifier and then, against it, the featurizer. DomainBed runs the featurizer a
// third time, on the same images with the same weights.
type sagnet struct {
	h          HParams
	classifier *linear // the network's own
	style      *linear
	optimizer  *train.Optimizer // of style
	content    [2][]float32     // the classifier's gradients, until the backward pass has been
	// draw returns weights of styles and a permutation.
	draw func(r *rand.Rand, n int) (alpha []float64, swap []int)
}

func (s *sagnet) passes() int { return 2 }

func (s *sagnet) begin(to companyOf) (err error) {
	s.classifier = &linear{in: to.features, out: to.classes, weight: to.classifier[0], bias: to.classifier[1]}
	s.style = newLinear(to.features, to.classes, rand.New(rand.NewPCG(to.seed, 0)))
	s.optimizer, err = companionOptimizer(s.h.Optimizer, s.h.WeightDecay, 0, 0, s.style.parameters())
	return err
}

func (s *sagnet) optimizers() []*train.Optimizer { return []*train.Optimizer{s.optimizer} }

func (s *sagnet) tensors() *weights.StateDict {
	sd := weights.New("style")
	s.style.store(sd, "style")
	return sd
}

// finish gives the classifier the gradient of its loss on features of mixed style; the
// backward pass, whose logits are of the features as they are, knows nothing of it.
func (s *sagnet) finish() {
	for i, p := range []*nn.Parameter{s.classifier.weight, s.classifier.bias} {
		copy(p.Grad, s.content[i])
	}
}

func drawStyles(r *rand.Rand, n int) (alpha []float64, swap []int) {
	for range n {
		alpha = append(alpha, r.Float64())
	}
	return alpha, r.Perm(n)
}

func (s *sagnet) Loss(b *Minibatches) (float64, map[string]float64) {
	n := len(b.Labels)
	x := newStyled(dense(n, len(b.Features)/n, b.Features))
	r := rand.New(rand.NewPCG(b.Seed, uint64(b.Pass)))
	give := func(grad *mat.Dense) {
		for i, v := range grad.RawMatrix().Data {
			b.GradFeatures[i] += float32(v)
		}
	}
	if b.Pass == 0 {
		alpha, swap := s.draw(r, n)
		y := x.mixStyle(alpha, swap)
		loss, grad := denseCrossEntropy(s.classifier.forward(y), b.Labels)
		give(x.backStyle(s.classifier.backward(y, grad)))
		s.content = [2][]float32{append([]float32(nil), s.classifier.weight.Grad...), append([]float32(nil), s.classifier.bias.Grad...)}
		return loss, map[string]float64{"loss_c": loss}
	}
	b.FrozenClassifier = true
	_, swap := s.draw(r, n)
	y := x.swapContent(swap)
	styleLoss, grad := denseCrossEntropy(s.style.forward(y), b.Labels)
	s.style.backward(y, grad)
	s.optimizer.Step(s.h.LR)

	_, swap = s.draw(r, n)
	y = x.swapContent(swap)
	logits := s.style.forward(y)
	_, classes := logits.Dims()
	adversary := 0.0
	grad = mat.NewDense(n, classes, nil)
	for i := range n {
		p, logSum := softmax(logits.RawRowView(i))
		for c, z := range logits.RawRowView(i) {
			adversary += s.h.SagWAdv * (logSum - z) / float64(n*classes)
			grad.Set(i, c, s.h.SagWAdv/float64(n)*(p[c]-1/float64(classes)))
		}
	}
	give(x.backContent(s.style.backward(y, grad)))
	return adversary, map[string]float64{"loss_s": styleLoss, "loss_adv": adversary}
}

// styled is rows of features with their styles: mean, and variance of the row.
type styled struct {
	x              *mat.Dense
	mean, variance []float64
	normal         *mat.Dense // content
	deviation      []float64  // square root of variance and styleEpsilon
	alpha          []float64
	swap           []int
	mixedDeviation []float64
	rows, width    int
}

const styleEpsilon = 1e-5

func newStyled(x *mat.Dense) *styled {
	rows, width := x.Dims()
	s := &styled{x: x, rows: rows, width: width, mean: make([]float64, rows), variance: make([]float64, rows), deviation: make([]float64, rows), normal: mat.NewDense(rows, width, nil)}
	for i := range rows {
		row := x.RawRowView(i)
		for _, v := range row {
			s.mean[i] += v / float64(width)
		}
		for _, v := range row {
			s.variance[i] += (v - s.mean[i]) * (v - s.mean[i]) / float64(width-1)
		}
		s.deviation[i] = math.Sqrt(s.variance[i] + styleEpsilon)
		for k, v := range row {
			s.normal.Set(i, k, (v-s.mean[i])/s.deviation[i])
		}
	}
	return s
}

// mixStyle gives each row's content a style between its own and another row's.
func (s *styled) mixStyle(alpha []float64, swap []int) *mat.Dense {
	s.alpha, s.swap, s.mixedDeviation = alpha, swap, make([]float64, s.rows)
	y := mat.NewDense(s.rows, s.width, nil)
	for i, other := range swap {
		mean := alpha[i]*s.mean[i] + (1-alpha[i])*s.mean[other]
		s.mixedDeviation[i] = math.Sqrt(alpha[i]*s.variance[i] + (1-alpha[i])*s.variance[other] + styleEpsilon)
		for k, v := range s.normal.RawRowView(i) {
			y.Set(i, k, v*s.mixedDeviation[i]+mean)
		}
	}
	return y
}

// backStyle returns the gradient with respect to the features, given that with respect
// to what mixStyle returned.
func (s *styled) backStyle(grad *mat.Dense) *mat.Dense {
	mean, variance := make([]float64, s.rows), make([]float64, s.rows)
	back := mat.NewDense(s.rows, s.width, nil)
	for i, other := range s.swap {
		g, content := grad.RawRowView(i), s.normal.RawRowView(i)
		sum, along := 0.0, dot(g, content)
		for k, v := range g {
			sum += v
			back.Set(i, k, v*s.mixedDeviation[i]/s.deviation[i])
		}
		ofVariance := along / (2 * s.mixedDeviation[i])
		mean[i] += s.alpha[i] * sum
		mean[other] += (1 - s.alpha[i]) * sum
		variance[i] += s.alpha[i] * ofVariance
		variance[other] += (1 - s.alpha[i]) * ofVariance
		// Through the row's own normalisation.
		mean[i] -= sum * s.mixedDeviation[i] / s.deviation[i]
		variance[i] -= along * s.mixedDeviation[i] / (2 * s.deviation[i] * s.deviation[i])
	}
	s.throughStyle(back, mean, variance)
	return back
}

// swapContent gives each row's style the content of another row.
func (s *styled) swapContent(swap []int) *mat.Dense {
	s.swap = swap
	y := mat.NewDense(s.rows, s.width, nil)
	for i, other := range swap {
		for k, v := range s.normal.RawRowView(other) {
			y.Set(i, k, v*s.deviation[i]+s.mean[i])
		}
	}
	return y
}

// backContent is backStyle for swapContent; the content is a constant.
func (s *styled) backContent(grad *mat.Dense) *mat.Dense {
	mean, variance := make([]float64, s.rows), make([]float64, s.rows)
	for i, other := range s.swap {
		g := grad.RawRowView(i)
		for _, v := range g {
			mean[i] += v
		}
		variance[i] = dot(g, s.normal.RawRowView(other)) / (2 * s.deviation[i])
	}
	back := mat.NewDense(s.rows, s.width, nil)
	s.throughStyle(back, mean, variance)
	return back
}

// throughStyle adds what gradients of mean and variance are to the features.
func (s *styled) throughStyle(back *mat.Dense, mean, variance []float64) {
	for i := range s.rows {
		for k, v := range s.x.RawRowView(i) {
			back.Set(i, k, back.At(i, k)+mean[i]/float64(s.width)+2*variance[i]*(v-s.mean[i])/float64(s.width-1))
		}
	}
}

package dg

import "math"

// domainLosses returns the mean cross-entropy of each domain and its gradient with
// respect to the domain's logits.
func domainLosses(b *Minibatches) (losses []float64, grads [][]float32) {
	for i := range b.Domains {
		g := make([]float32, len(b.Logits)/b.Domains)
		losses = append(losses, crossEntropy(b.rows(b.Logits, i), b.labels(i), 1, g))
		grads = append(grads, g)
	}
	return losses, grads
}

// weigh adds each domain's gradient with its weight.
func weigh(b *Minibatches, grads [][]float32, weight func(i int) float64) {
	for i, g := range grads {
		w, to := weight(i), b.rows(b.GradLogits, i)
		for k, v := range g {
			to[k] += float32(w * float64(v))
		}
	}
}

func mean(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}

// vrex is V-REx: the mean of the domains' losses and their variance. The weight of the
// variance is 1 up to a step.
type vrex struct {
	weight float64
	anneal int
}

// restart: Adam does not like the jump of the gradient when the weight changes.
func (v *vrex) restart() int { return v.anneal }

func (v *vrex) Loss(b *Minibatches) (float64, map[string]float64) {
	weight := 1.0
	if b.Step >= v.anneal {
		weight = v.weight
	}
	losses, grads := domainLosses(b)
	m, n := mean(losses), float64(len(losses))
	variance := 0.0
	for _, l := range losses {
		variance += (l - m) * (l - m) / n
	}
	weigh(b, grads, func(i int) float64 { return (1 + 2*weight*(losses[i]-m)) / n })
	return m + weight*variance, map[string]float64{"nll": m, "penalty": variance}
}

// groupDRO is group distributionally robust optimisation: weights of domains grow with
// the exponential of their losses.
type groupDRO struct {
	eta float64
	q   []float64
}

func (g *groupDRO) memory() *[]float64 { return &g.q }

func (g *groupDRO) Loss(b *Minibatches) (loss float64, _ map[string]float64) {
	losses, grads := domainLosses(b)
	if len(g.q) != len(losses) {
		g.q = make([]float64, len(losses))
		for i := range g.q {
			g.q[i] = 1
		}
	}
	sum := 0.0
	for i, l := range losses {
		g.q[i] *= math.Exp(g.eta * l)
		sum += g.q[i]
	}
	n := float64(len(losses))
	for i, l := range losses {
		g.q[i] /= sum
		loss += g.q[i] * l / n
	}
	weigh(b, grads, func(i int) float64 { return g.q[i] / n })
	return loss, nil
}

// irm is invariant risk minimisation, IRMv1: the penalty is the squared gradient of each
// domain's loss with respect to a factor of the logits, estimated without bias as the
// product of the gradients of two halves.
type irm struct {
	weight float64
	anneal int
}

func (m *irm) restart() int { return m.anneal }

func (m *irm) Loss(b *Minibatches) (float64, map[string]float64) {
	weight := 1.0
	if b.Step >= m.anneal {
		weight = m.weight
	}
	losses, grads := domainLosses(b)
	n := float64(len(losses))
	penalty := 0.0
	for i := range b.Domains {
		logits, grad := b.rows(b.Logits, i), b.rows(b.GradLogits, i)
		labels := b.labels(i)
		var slope [2]float64
		var by [2][]float64
		for half := range slope {
			slope[half], by[half] = scaleSlope(logits, labels, b.Classes, half)
		}
		penalty += slope[0] * slope[1] / n
		for half, g := range by {
			w := weight * slope[1-half] / n
			for k, v := range g {
				grad[k] += float32(w * v)
			}
		}
	}
	weigh(b, grads, func(int) float64 { return 1 / n })
	nll := mean(losses)
	return nll + weight*penalty, map[string]float64{"nll": nll, "penalty": penalty}
}

// scaleSlope returns the derivative, at s = 1, of the mean cross-entropy of s times the
// logits of every second row from first on, and its gradient with respect to the logits.
func scaleSlope(logits []float32, labels []int, classes, first int) (slope float64, grad []float64) {
	grad = make([]float64, len(logits))
	n := float64((len(labels) - first + 1) / 2)
	p := make([]float64, classes)
	for i := first; i < len(labels); i += 2 {
		z := logits[i*classes : (i+1)*classes]
		top, sum := math.Inf(-1), 0.0
		for _, v := range z {
			top = max(top, float64(v))
		}
		for c, v := range z {
			p[c] = math.Exp(float64(v) - top)
			sum += p[c]
		}
		expected := 0.0
		for c, v := range z {
			p[c] /= sum
			expected += p[c] * float64(v)
		}
		slope += (expected - float64(z[labels[i]])) / n
		for c, v := range z {
			grad[i*classes+c] = p[c] * (1 + float64(v) - expected) / n
		}
		grad[i*classes+labels[i]] -= 1 / n
	}
	return slope, grad
}

package dg

import (
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"
)

// mixup trains on convex combinations of images of two domains (Zhang et al., 2018;
// between domains: Yan et al., 2020), a pair for each domain.
type mixup struct {
	alpha float64
	// second are the labels of the images mixed in, share the first ones' weight by
	// domain.
	second []int
	share  []float64
}

// mix pairs the domains in a ring of random order, as DomainBed does.
func (m *mixup) mix(images []float32, b *Minibatches, r *rand.Rand) {
	size, per := len(images)/b.Domains, len(b.Labels)/b.Domains
	old, labels := append([]float32(nil), images...), append([]int(nil), b.Labels...)
	m.second, m.share = make([]int, len(labels)), make([]float64, b.Domains)
	ring := r.Perm(b.Domains)
	for i := range ring {
		first, second := ring[i], ring[(i+1)%len(ring)]
		m.share[i] = 1
		if m.alpha > 0 {
			m.share[i] = distuv.Beta{Alpha: m.alpha, Beta: m.alpha, Src: r}.Rand()
		}
		share, rest := float32(m.share[i]), float32(1-m.share[i])
		x, y := old[first*size:(first+1)*size], old[second*size:(second+1)*size]
		for k := range x {
			images[i*size+k] = share*x[k] + rest*y[k]
		}
		copy(b.Labels[i*per:(i+1)*per], labels[first*per:])
		copy(m.second[i*per:(i+1)*per], labels[second*per:])
	}
}

func (m *mixup) Loss(b *Minibatches) (loss float64, _ map[string]float64) {
	per, even := len(b.Labels)/b.Domains, 1/float64(b.Domains)
	for i := range b.Domains {
		logits, grad := b.rows(b.Logits, i), b.rows(b.GradLogits, i)
		first, second := even*m.share[i], even*(1-m.share[i])
		loss += first * crossEntropy(logits, b.labels(i), first, grad)
		loss += second * crossEntropy(logits, m.second[i*per:(i+1)*per], second, grad)
	}
	return loss, nil
}

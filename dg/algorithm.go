package dg

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"nac/nn"
	"nac/train"
	"nac/weights"
)

// Minibatches are a step's images, equally many of each training domain, one domain
// after the other, and what the network makes of them.
type Minibatches struct {
	Domains int
	Labels  []int
	Classes int
	// Logits and Features have a row for each image; Features are the penultimate
	// ones.
	Logits, Features []float32
	// GradLogits and GradFeatures are the gradients of the loss with respect to them,
	// zero before an algorithm adds to them.
	GradLogits, GradFeatures []float32
	// Step counts from 0, and Pass the passes through the network of a step. Seed is
	// for what an algorithm draws in a step.
	Step, Pass int
	Seed       uint64
	// FrozenFeaturizer and FrozenClassifier are set by an algorithm that leaves all
	// before the last linear layer, or that layer, as it is in this pass.
	FrozenFeaturizer, FrozenClassifier bool
}

// domain returns the part of domain i: labels, and places within rows of the given
// width.
func (b *Minibatches) labels(i int) []int {
	n := len(b.Labels) / b.Domains
	return b.Labels[i*n : (i+1)*n]
}

func (b *Minibatches) rows(of []float32, i int) []float32 {
	n := len(of) / b.Domains
	return of[i*n : (i+1)*n]
}

// Algorithm is a way to train on several domains.
type Algorithm interface {
	// Loss returns the objective and its parts by name, and fills the gradients.
	Loss(b *Minibatches) (loss float64, parts map[string]float64)
}

// mixer is an algorithm that changes images before the network sees them.
type mixer interface {
	mix(images []float32, b *Minibatches, r *rand.Rand)
}

// restarter is an algorithm that forgets what the optimizer has gathered before some
// step.
type restarter interface{ restart() int }

// company is an algorithm that trains more than the network: it has tensors and
// optimizers of its own, which a resumed run gets back.
type company interface {
	// begin makes them.
	begin(companyOf) error
	tensors() *weights.StateDict
	optimizers() []*train.Optimizer
	// finish is called between the network's backward pass and its optimizers.
	finish()
}

// companyOf is the network beside which an algorithm trains its own.
type companyOf struct {
	features, classes, domains int
	classifier                 [2]*nn.Parameter // weight and bias of the last linear layer
	seed                       uint64
}

// passer is an algorithm whose step has several passes through the network.
type passer interface{ passes() int }

// rememberer is an algorithm with a memory, which a resumed run gets back.
type rememberer interface{ memory() *[]float64 }

var algorithms = map[string]struct {
	about string
	make  func(h HParams) Algorithm
}{
	"ERM":      {"empirical risk: cross-entropy of all domains together (Vapnik, 1998)", func(HParams) Algorithm { return erm{} }},
	"Mixup":    {"images of two domains mixed, and their labels (Yan et al., 2020)", func(h HParams) Algorithm { return &mixup{alpha: h.MixupAlpha} }},
	"CORAL":    {"means and covariances of features alike (Sun and Saenko, 2016)", func(h HParams) Algorithm { return &alignment{weight: h.MMDGamma, distance: coral} }},
	"MMD":      {"distributions of features alike, by Gaussian kernels (Li et al., 2018)", func(h HParams) Algorithm { return &alignment{weight: h.MMDGamma, distance: gaussianMMD} }},
	"IRM":      {"one classifier that is best for every domain (Arjovsky et al., 2019)", func(h HParams) Algorithm { return &irm{weight: h.IRMLambda, anneal: h.IRMAnneal} }},
	"VREx":     {"losses of the domains of small variance (Krueger et al., 2021)", func(h HParams) Algorithm { return &vrex{weight: h.VRExLambda, anneal: h.VRExAnneal} }},
	"GroupDRO": {"domains of large loss weighted up (Sagawa et al., 2020)", func(h HParams) Algorithm { return &groupDRO{eta: h.GroupDROEta} }},
	"DANN":     {"features that tell nothing of the domain, against a discriminator (Ganin et al., 2016)", func(h HParams) Algorithm { return &dann{h: h} }},
	"SagNet":   {"content, not style, of features (Nam et al., 2021)", func(h HParams) Algorithm { return &sagnet{h: h, draw: drawStyles} }},
}

// AlgorithmNames are the algorithms that NewAlgorithm knows, ERM first.
func AlgorithmNames() []string {
	return []string{"ERM", "Mixup", "CORAL", "MMD", "IRM", "VREx", "GroupDRO", "DANN", "SagNet"}
}

// AboutAlgorithm describes an algorithm in a line.
func AboutAlgorithm(name string) string { return algorithms[name].about }

// NewAlgorithm returns the algorithm of that name.
func NewAlgorithm(name string, h HParams) (Algorithm, error) {
	a, ok := algorithms[name]
	if !ok {
		return nil, fmt.Errorf("no algorithm %q: want one of %s", name, strings.Join(AlgorithmNames(), ", "))
	}
	return a.make(h), nil
}

// crossEntropy adds weight times the mean cross-entropy of rows of logits to the
// gradient and returns the mean.
func crossEntropy(logits []float32, labels []int, weight float64, grad []float32) float64 {
	g := make([]float32, len(logits))
	loss := train.CrossEntropy{}.Loss(logits, labels, g)
	for i, v := range g {
		grad[i] += float32(weight * float64(v))
	}
	return loss
}

// erm is empirical risk minimisation.
type erm struct{}

func (erm) Loss(b *Minibatches) (float64, map[string]float64) {
	return crossEntropy(b.Logits, b.Labels, 1, b.GradLogits), nil
}

package dg

import (
	"fmt"
	"math/rand/v2"

	"nac/train"
	"nac/weights"
)

// dann is domain-adversarial training (Ganin et al., 2016): a discriminator tells the
// domains by the features, and the network learns features by which it cannot. They
// take turns, DStepsPerGStep steps of the discriminator to one of the network.
//
// DomainBed's penalty on the discriminator's gradient is left out: with equally many
// images of every domain it sums all domains' probabilities, so it is the gradient of
// a constant.
type dann struct {
	h             HParams
	discriminator *mlp
	optimizer     *train.Optimizer
}

func (d *dann) begin(to companyOf) (err error) {
	r := rand.New(rand.NewPCG(to.seed, 0))
	d.discriminator = newMLP(to.features, to.domains, d.h.MLPWidth, d.h.MLPDepth, d.h.MLPDropout, r)
	d.optimizer, err = companionOptimizer(d.h.Optimizer, d.h.WeightDecayD, d.h.Beta1, adversarialBeta2, d.discriminator.parameters())
	return err
}

// adversarialBeta2 is DomainBed's second beta of both optimizers of DANN.
const adversarialBeta2 = 0.9

func (d *dann) optimizers() []*train.Optimizer { return []*train.Optimizer{d.optimizer} }
func (d *dann) finish()                        {}

func (d *dann) tensors() *weights.StateDict {
	sd := weights.New("discriminator")
	d.discriminator.store(sd, "discriminator")
	return sd
}

func (d *dann) Loss(b *Minibatches) (float64, map[string]float64) {
	n := len(b.Labels)
	domains := make([]int, n)
	for i := range domains {
		domains[i] = i / (n / b.Domains)
	}
	out := d.discriminator.forward(dense(n, len(b.Features)/n, b.Features), b.Seed)
	domainLoss, grad := denseCrossEntropy(out, domains)
	back := d.discriminator.backward(grad)
	class := crossEntropy(b.Logits, b.Labels, 1, b.GradLogits)
	loss := class - d.h.Lambda*domainLoss
	parts := map[string]float64{"nll": class, "disc_loss": domainLoss}
	// DomainBed counts from 1.
	if turns := 1 + d.h.DStepsPerGStep; (b.Step+1)%turns < d.h.DStepsPerGStep {
		d.optimizer.Step(d.h.LRD)
		b.FrozenFeaturizer, b.FrozenClassifier = true, true
		return loss, parts
	}
	for i, v := range back.RawMatrix().Data {
		b.GradFeatures[i] -= float32(d.h.Lambda * v)
	}
	return loss, parts
}

// validateDANN says what is wrong with DANN's hyperparameters.
func (h HParams) validateDANN() error {
	switch {
	case !(h.LRG > 0) || !(h.LRD > 0):
		return badHParam("lr_g or lr_d", min(h.LRG, h.LRD), "above 0")
	case !finite(h.LRG) || !finite(h.LRD) || !finite(h.WeightDecayG) || !finite(h.WeightDecayD) || !finite(h.Lambda):
		return badHParam("one of lr_g, lr_d, weight_decay_g, weight_decay_d, lambda", "no number of 0 or above", "one")
	case h.DStepsPerGStep < 1 || h.DStepsPerGStep > 1000:
		return badHParam("d_steps_per_g_step", h.DStepsPerGStep, "1 to 1000")
	case !(h.Beta1 >= 0 && h.Beta1 < 1):
		return badHParam("beta1", h.Beta1, "0 to below 1")
	case h.MLPWidth < 1 || h.MLPWidth > 1<<14:
		return badHParam("mlp_width", h.MLPWidth, fmt.Sprintf("1 to %d", 1<<14))
	case h.MLPDepth < 2 || h.MLPDepth > 100:
		return badHParam("mlp_depth", h.MLPDepth, "2 to 100")
	case !(h.MLPDropout >= 0 && h.MLPDropout < 1):
		return badHParam("mlp_dropout", h.MLPDropout, "0 to below 1")
	}
	return nil
}

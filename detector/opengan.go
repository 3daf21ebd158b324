package detector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"nac/metric"
	"nac/nn"
	"nac/train"
)

// openGAN is OpenGAN (Kong and Ramanan, "OpenGAN: Open-Set Recognition via Open Data
// Generation", ICCV 2021), trained as OpenOOD does: a generator makes features out of
// noise, a discriminator tells them from the training images', and the score is its
// logit. That has the order of OpenOOD's probability, which in float32 becomes 1 for many.
//
// The discriminator is that of the epoch after which it best tells ID from OOD
// validation images, the last of equal ones; without OOD validation images, that of the last epoch.
// OpenOOD never puts the networks back into train mode after its first validation: from the
// second epoch on batch norms normalise by the running statistics of the first. So it is
// here. Binary cross-entropy is computed from logits, so that its gradient does not vanish
// where OpenOOD's probabilities become 0 or 1.
//
// Features of all training images are kept until fitting ends. All that is random follows
// from the seed.
type openGAN struct {
	fitting
	training, held, outliers []float32 // features of training, ID and OOD validation images
	// epoch is the one that the discriminator is of, counted from 1.
	epoch         int
	discriminator []*ganLayer
}

var _ = register(Method{
	Key: "opengan", About: "discriminator of features from generated ones (OpenGAN)", Paper: "Kong, ICCV 2021",
	make: newOpenGAN,
	Params: []Param{
		{Name: "epochs", About: "how often training goes through the features", Default: 100, Min: 1, Max: 1e6, Whole: true},
		{Name: "batch", About: "features of a step", Default: 128, Min: 2, Max: 1 << 16, Whole: true},
		{Name: "rate", About: "learning rate of the generator; the discriminator's is 2/3 of it", Default: 1e-4, Min: 1e-9, Max: 1},
		{Name: "noise", About: "dimensions of the noise", Default: 100, Min: 1, Max: 1 << 16, Whole: true},
		{Name: "width", About: "width of the narrowest layer but the last", Default: 64, Min: 1, Max: 1 << 12, Whole: true},
		{Name: "seed", About: "of initial weights, noise and order", Default: 0, Min: 0, Max: 1 << 52, Whole: true},
	},
})

func newOpenGAN(p params) (Detector, error) {
	d := &openGAN{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		s.count("epoch", &d.epoch)
		if !s.saving {
			d.discriminator = discriminatorLayers(d.features, d.int("width"))
		}
		for i, l := range d.discriminator {
			if s.err == nil {
				l.store(s, fmt.Sprintf("discriminator.%d", i))
			}
		}
	}
	return d, nil
}

func (d *openGAN) Begin(n Network) error {
	d.training, d.held, d.outliers = nil, nil, nil
	return d.begin(n)
}

func (d *openGAN) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	d.training = append(d.training, in.Feature[:in.N*d.features]...)
	return nil
}

// FitValidation keeps features for the choice of an epoch.
func (d *openGAN) FitValidation(in *Inputs) error {
	if err := d.fitValidation(in); err != nil {
		return err
	}
	d.held = append(d.held, in.Feature[:in.N*d.features]...)
	return nil
}

// FitOODValidation does too.
func (d *openGAN) FitOODValidation(in *Inputs) error {
	if err := d.checkFit(in); err != nil {
		return err
	}
	d.outliers = append(d.outliers, in.Feature[:in.N*d.features]...)
	return nil
}

func (d *openGAN) End() error {
	if d.phase != begun {
		return d.end()
	}
	if d.images < 2 {
		return d.errorf("%d training images; it takes 2 at least, and better thousands", d.images)
	}
	if len(d.outliers) > 0 && len(d.held) == 0 {
		return d.errorf("OOD validation images, but no ID ones to tell them from")
	}
	if err := d.train(); err != nil {
		return d.errorf("%w", err)
	}
	d.training, d.held, d.outliers = nil, nil, nil
	return d.end()
}

func (d *openGAN) train() error {
	width, size, batch := d.features, d.int("noise"), min(d.int("batch"), d.images)
	random := rand.New(rand.NewPCG(uint64(d.int("seed")), 0))
	g, err := newGAN(newGenerator(size, d.int("width"), width), newDiscriminator(width, d.int("width")), batch, d.float("rate"))
	if err != nil {
		return err
	}
	g.initialize(random)
	real, noise := make([]float32, batch*width), make([]float32, batch*size)
	best := math.Inf(-1)
	for epoch := 1; epoch <= d.int("epochs"); epoch++ {
		g.frozen = epoch > 1
		order := random.Perm(d.images)
		for from := 0; from < len(order); from += batch {
			of := order[from:min(from+batch, len(order))]
			if len(of) == 1 && !g.frozen {
				break // one feature has no variance to normalise by
			}
			for i, j := range of {
				copy(real[i*width:][:width], d.training[j*width:])
			}
			for i := range len(of) * size {
				noise[i] = float32(random.NormFloat64())
			}
			lossD, lossG, err := g.step(real, noise, len(of))
			if err == nil {
				err = train.CheckLoss(epoch, lossD+lossG)
			}
			if err != nil {
				return err
			}
		}
		auroc := 0.0
		if len(d.outliers) > 0 || epoch == d.int("epochs") {
			folded := fold(g.discriminator.layers)
			if len(d.outliers) > 0 {
				if auroc, err = metric.AUROC(discriminate(folded, d.held), discriminate(folded, d.outliers)); err != nil {
					return err
				}
			}
			if auroc >= best {
				best, d.epoch, d.discriminator = auroc, epoch, folded
			}
		}
	}
	return nil
}

func (d *openGAN) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	copy(dst, discriminate(d.discriminator, in.Feature[:in.N*d.features]))
	return nil
}

// ganLayer is a linear layer, what normalises its output, and an activation function.
type ganLayer struct {
	in, out      int
	biased, norm bool
	// slope is that of the activation below zero: 0 for ReLU, 1 for none.
	slope float32

	weight, bias []float32 // out x in; out, or nil
	batchNorm    *batchNorm
	packed       *bank
}

// batchNorm is a batch normalisation.
type batchNorm struct{ weight, bias, mean, variance []float32 }

const batchNormEpsilon = 1e-5 // PyTorch's

// allocate makes the layers' tensors.
func allocate(layers []*ganLayer) []*ganLayer {
	for _, l := range layers {
		l.weight = make([]float32, l.in*l.out)
		if l.biased {
			l.bias = make([]float32, l.out)
		}
		if l.norm {
			ones := func() []float32 { return slices.Repeat([]float32{1}, l.out) }
			l.batchNorm = &batchNorm{ones(), make([]float32, l.out), make([]float32, l.out), ones()}
		}
	}
	return layers
}

// newGenerator is OpenOOD's.
func newGenerator(noise, width, features int) (layers []*ganLayer) {
	in := noise
	for _, out := range []int{8 * width, 4 * width, 2 * width, 4 * width} {
		layers = append(layers, &ganLayer{in: in, out: out, norm: true})
		in = out
	}
	return allocate(append(layers, &ganLayer{in: in, out: features, biased: true, slope: 1}))
}

// newDiscriminator is OpenOOD's but for the sigmoid at its end.
func newDiscriminator(features, width int) []*ganLayer {
	return allocate(discriminatorLayers(features, width))
}

// discriminatorLayers are newDiscriminator's without tensors.
func discriminatorLayers(features, width int) (layers []*ganLayer) {
	const slope = 0.2
	in := features
	for i, out := range []int{8 * width, 4 * width, 2 * width, width} {
		layers = append(layers, &ganLayer{in: in, out: out, norm: i > 0, slope: slope})
		in = out
	}
	return append(layers, &ganLayer{in: in, out: 1, slope: 1})
}

// fold returns copies of the layers with a bias in place of the batch norm, ready for
// discriminate.
func fold(layers []*ganLayer) (folded []*ganLayer) {
	for _, l := range layers {
		f := &ganLayer{in: l.in, out: l.out, slope: l.slope, weight: slices.Clone(l.weight), bias: make([]float32, l.out)}
		copy(f.bias, l.bias)
		if n := l.batchNorm; n != nil {
			for o := range l.out {
				scale := float64(n.weight[o]) / math.Sqrt(float64(n.variance[o])+batchNormEpsilon)
				for i := range l.in {
					f.weight[o*l.in+i] = float32(float64(l.weight[o*l.in+i]) * scale)
				}
				f.bias[o] = float32(float64(n.bias[o]) - float64(n.mean[o])*scale)
			}
		}
		f.packed = bankOf(f.weight, f.in)
		folded = append(folded, f)
	}
	return folded
}

// discriminate returns the logits of features.
func discriminate(folded []*ganLayer, features []float32) []float64 {
	n, x := len(features)/folded[0].in, features
	for _, l := range folded {
		y := make([]float32, n*l.out)
		l.packed.multiply(x, n, l.bias, y)
		for i, v := range y {
			y[i] = max(v, 0) + l.slope*min(v, 0)
		}
		x = y
	}
	return widen(x, make([]float64, n))
}

// store keeps a folded layer in a file.
func (l *ganLayer) store(s *storage, name string) {
	s.float32s(name+".weight", &l.weight, l.out, l.in)
	s.float32s(name+".bias", &l.bias, l.out)
	if !s.saving && s.err == nil {
		l.packed = bankOf(l.weight, l.in)
	}
}

// gan trains a generator and a discriminator against each other.
type gan struct {
	generator, discriminator *adversary
	rate                     float64
	frozen                   bool // batch norms keep their statistics
	gradient, targets        []float32
}

func newGAN(generator, discriminator []*ganLayer, batch int, rate float64) (*gan, error) {
	g := &gan{rate: rate, gradient: make([]float32, batch), targets: make([]float32, batch)}
	var err error
	if g.generator, err = newAdversary(generator, batch, false); err == nil {
		g.discriminator, err = newAdversary(discriminator, batch, true)
	}
	return g, err
}

// initialize draws weights as OpenOOD does.
func (g *gan) initialize(random *rand.Rand) {
	draw := func(v []float32, mean float64) {
		for i := range v {
			v[i] = float32(mean + 0.02*random.NormFloat64())
		}
	}
	for _, a := range []*adversary{g.generator, g.discriminator} {
		for _, l := range a.layers {
			draw(l.weight, 0)
			if l.norm {
				draw(l.batchNorm.weight, 1)
			}
			// PyTorch's own initialisation of a linear layer's bias.
			limit := 1 / math.Sqrt(float64(l.in))
			for i := range l.bias {
				l.bias[i] = float32(limit * (2*random.Float64() - 1))
			}
		}
	}
}

// step trains both networks on n features and as many noises, the discriminator
// first, and returns the losses before they moved.
func (g *gan) step(real, noise []float32, n int) (lossD, lossG float64, err error) {
	d := g.discriminator
	lossReal, err := g.judge(real, n, 1)
	if err != nil {
		return 0, 0, err
	}
	d.gather(g.frozen, false)
	made := g.generator.mode(g.frozen)
	if err := made.Forward(noise, n, 0); err != nil {
		return 0, 0, err
	}
	fake := made.Output(0)
	lossFake, err := g.judge(fake, n, 0)
	if err != nil {
		return 0, 0, err
	}
	d.gather(g.frozen, true)
	d.optimizer.Step(g.rate / 1.5)
	if lossG, err = g.judge(fake, n, 1); err != nil {
		return 0, 0, err
	}
	if err := made.Backward(d.mode(g.frozen).InputGradient()); err != nil {
		return 0, 0, err
	}
	g.generator.gather(g.frozen, false)
	g.generator.optimizer.Step(g.rate)
	return lossReal + lossFake, lossG, nil
}

// judge runs the discriminator forward and backward on features that are to have the
// target, and returns the loss.
func (g *gan) judge(features []float32, n int, target float32) (float64, error) {
	d := g.discriminator.mode(g.frozen)
	if err := d.Forward(features, n, 0); err != nil {
		return 0, err
	}
	for i := range n {
		g.targets[i] = target
	}
	loss := train.BinaryCrossEntropy(d.Output(0), g.targets[:n], g.gradient[:n])
	return loss, d.Backward(g.gradient[:n])
}

// adversary is one of the two networks.
type adversary struct {
	layers    []*ganLayer
	modes     [2]*nn.Training // batch norms by the batch's statistics, by the running ones
	params    []*nn.Parameter // with gradients of their own
	optimizer *train.Optimizer
}

func newAdversary(layers []*ganLayer, batch int, inputGradient bool) (*adversary, error) {
	g := nn.NewGraph()
	x := g.Input(nn.Shape{C: layers[0].in, H: 1, W: 1})
	for _, l := range layers {
		x = g.Linear(x, l.weight, l.bias)
		if n := l.batchNorm; n != nil {
			x = g.BatchNorm(x, n.weight, n.bias, n.mean, n.variance, batchNormEpsilon)
		}
		switch l.slope {
		case 0:
			x = g.ReLU(x)
		case 1:
		default:
			x = g.LeakyReLU(x, l.slope)
		}
	}
	a := &adversary{layers: layers}
	for i := range a.modes {
		var err error
		options := nn.TrainOptions{MaxBatch: batch, FrozenNorm: i == 1, InputGradient: inputGradient}
		if a.modes[i], err = nn.CompileTraining(g, []*nn.Node{x}, options); err != nil {
			return nil, err
		}
	}
	for _, p := range a.modes[0].Parameters() {
		a.params = append(a.params, &nn.Parameter{Value: p.Value, Grad: make([]float32, len(p.Grad))})
	}
	adam := train.Adam(0)
	adam.Beta1 = 0.5
	var err error
	a.optimizer, err = train.NewOptimizer(adam, a.params)
	return a, err
}

func (a *adversary) mode(frozen bool) *nn.Training {
	if frozen {
		return a.modes[1]
	}
	return a.modes[0]
}

// gather takes the gradients of the last pass, or adds them to those it has.
func (a *adversary) gather(frozen, add bool) {
	for i, p := range a.mode(frozen).Parameters() {
		to := a.params[i].Grad
		if !add {
			copy(to, p.Grad)
			continue
		}
		for k, v := range p.Grad {
			to[k] += v
		}
	}
}

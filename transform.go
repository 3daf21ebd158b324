package nac

import (
	"cmp"
	"fmt"
	"math"

	"nac/detector"
	"nac/imageset"
	"nac/probe"
)

// defaultTransform sizes images for a model: it does not say how they were prepared.
// Small ones are used whole, of larger ones the middle, with ImageNet's margin.
func defaultTransform(m ModelInfo) (imageset.Transform, error) {
	in := m.Input
	if in[0] != 3 || in[1] != in[2] {
		return imageset.Transform{}, fmt.Errorf("nac: %s takes images of %dx%dx%d; only square ones of 3 channels are made of files", m.Name, in[0], in[1], in[2])
	}
	t := imageset.Transform{Resize: in[1], Crop: in[1]}
	if !small(m) {
		t.Resize = in[1] * 256 / 224
	}
	return t, nil
}

func small(m ModelInfo) bool { return m.Input[1] <= 64 }

// NormalizationTrial is a mean and standard deviation that was tried, as nothing says
// which the model was trained with.
type NormalizationTrial struct {
	Name string     `json:"name"`
	Mean [3]float32 `json:"mean"`
	Std  [3]float32 `json:"std"`
	// Accuracy is the share of images classified right, if they have labels.
	Accuracy float64 `json:"accuracy,omitempty"`
	// Information is what the network's output tells of the images, in nats: the entropy
	// of its mean probabilities less the mean entropy. It is low for a network that is
	// unsure, or that takes all images for the same.
	Information float64 `json:"information"`
}

// normalizations are the usual ones; the images' own mean and standard deviation,
// which many train with, are added when they are known.
func normalizations(m ModelInfo) []NormalizationTrial {
	all := []NormalizationTrial{
		{Name: "imagenet", Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}},
		{Name: "cifar10", Mean: [3]float32{0.4914, 0.4822, 0.4465}, Std: [3]float32{0.2470, 0.2435, 0.2616}},
		{Name: "-1 to 1", Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}},
		{Name: "0 to 1", Std: plain},
		{Name: "0 to 255", Std: [3]float32{1. / 255, 1. / 255, 1. / 255}},
	}
	if small(m) {
		all[0], all[1] = all[1], all[0]
	}
	return all
}

// plain leaves pixels between 0 and 1 as they are.
var plain = [3]float32{1, 1, 1}

const trialImages = 256

// normalize finds mean and standard deviation by what the network makes of the first
// images, which are in random order.
func (f *fitter) normalize() error {
	some := f.train.upTo(min(len(f.train.Items), trialImages))
	e, err := newEngine(f.model, f.o.Transform, detector.Fitting, probe.For())
	if err != nil {
		return err
	}
	skipped := f.info.Fit.Skipped
	trials := normalizations(f.model.info)
	best := 0
	var pixels [3]moments
	for i := 0; i < len(trials); i++ {
		t := &trials[i]
		f.o.Transform.Mean, f.o.Transform.Std = t.Mean, t.Std
		labelled, right, entropy, images := 0, 0, 0.0, 0
		mean := make([]float64, f.network.Classes)
		err := f.pass("normalize", some, e, func(b *imageset.Batch, in *detector.Inputs) error {
			if t.Std == plain {
				area := len(b.Images) / b.N / 3
				for k, v := range b.Images {
					pixels[k/area%3].add(float64(v))
				}
			}
			for k := range in.N {
				logits := in.Logits[k*f.network.Classes : (k+1)*f.network.Classes]
				class, _, err := classify(logits)
				if err != nil {
					return err
				}
				entropy += addProbabilities(logits, logits[class], mean)
				images++
				if in.Labels[k] >= 0 {
					labelled++
					if in.Labels[k] == class {
						right++
					}
				}
			}
			return nil
		})
		if f.ctx.Err() != nil {
			return f.ctx.Err()
		}
		if t.Std == plain && pixels[0].std()*pixels[1].std()*pixels[2].std() > 0 {
			own := NormalizationTrial{Name: "these images' own"}
			for c, p := range pixels {
				own.Mean[c], own.Std[c] = float32(p.mean), float32(p.std())
			}
			trials = append(trials, own)
			t = &trials[i]
		}
		if err != nil && i == 0 {
			return err
		}
		if err != nil {
			continue // images too bright for the network to compute
		}
		for _, p := range mean {
			t.Information -= xlogx(p / float64(images))
		}
		t.Information -= entropy / float64(images)
		if labelled == images {
			t.Accuracy = float64(right) / float64(images)
		}
		if b := trials[best]; cmp.Or(cmp.Compare(t.Accuracy, b.Accuracy), cmp.Compare(t.Information, b.Information)) > 0 {
			best = i
		}
	}
	f.info.Fit.Skipped = skipped
	f.info.Fit.Normalizations = trials
	f.o.Transform.Mean, f.o.Transform.Std = trials[best].Mean, trials[best].Std
	f.info.Transform = f.o.Transform
	return nil
}

// addProbabilities adds the softmax of logits to sum and returns its entropy.
func addProbabilities(logits []float32, largest float32, sum []float64) (entropy float64) {
	total := 0.0
	for _, v := range logits {
		total += math.Exp(float64(v) - float64(largest))
	}
	for k, v := range logits {
		p := math.Exp(float64(v)-float64(largest)) / total
		sum[k] += p
		entropy -= xlogx(p)
	}
	return entropy
}

func xlogx(p float64) float64 {
	if p == 0 {
		return 0
	}
	return p * math.Log(p)
}

package dg

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"nac/arch"
	"nac/coverage"
	"nac/train"
)

// CoverageSettings are NAC-ME's.
type CoverageSettings struct {
	// Layer is the layer that is read; see CoverageLayer.
	Layer string `json:"layer"`
	// M thresholds lie evenly from 0 to 1; a bin is full with O samples; Alpha is the
	// steepness of the sigmoid.
	M     int     `json:"M"`
	O     int     `json:"O"`
	Alpha float64 `json:"sig_alpha"`
	// Augment counts augmented images, as the reference does beside MNIST: its
	// in-splits are augmented whenever they are read.
	Augment bool `json:"augment,omitempty"`
}

// DefaultCoverage are the reference's settings.
func DefaultCoverage(layer string) CoverageSettings {
	return CoverageSettings{Layer: layer, M: 50, O: 500, Alpha: 0.1}
}

// LayerSettings are the settings in terms of package coverage.
func (c CoverageSettings) LayerSettings() coverage.LayerSettings {
	return coverage.LayerSettings{Layer: c.Layer, M: c.M, O: c.O, Alpha: c.Alpha, Func: coverage.SigmoidOG, Equal: true}
}

// Validate says what is wrong with the settings.
func (c CoverageSettings) Validate() error { return c.LayerSettings().Validate() }

// CoverageLayer is the layer that the reference reads of an architecture: the global
// average pooling, the last block's second norm of a vision transformer, the last norm
// of the network for MNIST.
func CoverageLayer(m *arch.Model) string {
	for _, l := range m.Layers[1:] {
		switch {
		case m.Name == "mnist_cnn" && l.Name != "bn3":
		case strings.HasPrefix(m.Name, "vit_") && !strings.HasPrefix(l.Name, "layer_1") && !strings.HasPrefix(l.Name, "layer_2"):
		default:
			return l.Name
		}
	}
	return m.Layers[0].Name
}

// Judge runs a network over samples in eval mode.
type Judge struct {
	Batch, Workers int
	Kernel         string
}

// Verdict is what a Judge finds of some samples.
type Verdict struct {
	Samples        int
	Loss, Accuracy float64
}

// Accuracy returns accuracy and mean cross-entropy on samples.
func (j Judge) Accuracy(ctx context.Context, m *arch.Model, s train.Samples) (Verdict, error) {
	loss, accuracy, err := train.Evaluate(ctx, m, s, j.Batch, j.Workers, j.Kernel)
	return Verdict{s.Len(), loss, accuracy}, err
}

// Coverage counts the states of the samples' correctly classified ones, of all where a
// label is not known, in l and returns accuracy and loss on the way. With a seed the
// images are augmented.
func (j Judge) Coverage(ctx context.Context, m *arch.Model, s train.Samples, l *coverage.Layer, seed uint64) (v Verdict, err error) {
	e, err := m.NewExtractor(arch.Request{Layers: []string{l.Settings().Layer}, Gradients: true, Kernel: j.Kernel}, j.Batch, j.Workers)
	if err != nil {
		return v, err
	}
	loader := train.NewLoader(ctx, m.InputSize[0]*m.InputSize[1]*m.InputSize[2], j.Workers, func(i int) (picks []train.Pick) {
		for k := i * j.Batch; k < min((i+1)*j.Batch, s.Len()); k++ {
			picks = append(picks, train.Pick{Samples: s, Index: k, Augment: seed != 0, Seed: train.Seed(seed, uint64(k))})
		}
		return picks
	})
	defer loader.Close()
	for {
		b, err := loader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return v, err
		}
		out, err := e.Run(b.Images, b.N)
		if err != nil {
			return v, err
		}
		states := out.States[0]
		channels := states.Channels
		for i, p := range train.Predictions(out.Logits, m.Classes) {
			known := b.Labels[i] >= 0
			if known && p == b.Labels[i] {
				v.Accuracy++
			}
			if known && p != b.Labels[i] {
				continue
			}
			if err := l.Add(states.Z[i*channels:(i+1)*channels], states.G[i*channels:(i+1)*channels], 1); err != nil {
				return v, err
			}
		}
		if !slices.ContainsFunc(b.Labels, func(y int) bool { return y < 0 || y >= m.Classes }) {
			v.Loss += train.CrossEntropy{}.Loss(out.Logits, b.Labels, nil) * float64(b.N)
		}
		v.Samples += b.N
	}
	if err := ctx.Err(); err != nil {
		return v, err
	}
	if v.Samples > 0 {
		v.Loss /= float64(v.Samples)
		v.Accuracy /= float64(v.Samples)
	}
	return v, nil
}

// judge makes the record of a checkpoint.
func (s *running) judge(ctx context.Context, m *arch.Model) (*Record, error) {
	channels, err := m.Layer(s.Config.Coverage.Layer)
	if err != nil {
		return nil, err
	}
	layer, err := coverage.NewLayer(s.Config.Coverage.LayerSettings(), channels.Channels)
	if err != nil {
		return nil, err
	}
	j := s.judgeOf()
	r := &Record{Splits: map[string]float64{}}
	for i := range s.Data.Domains {
		in, out := s.in[i].first(s.EvalImages), s.out[i].first(s.EvalImages)
		test := slices.Contains(s.test, i)
		var v Verdict
		if test {
			v, err = j.Accuracy(ctx, m, in)
		} else {
			seed := uint64(0)
			if s.Config.Coverage.Augment {
				seed = train.Seed(s.Seed, 14, uint64(s.state.Done), uint64(i))
			}
			v, err = j.Coverage(ctx, m, in, layer, seed)
		}
		if err != nil {
			return nil, err
		}
		r.Splits[fmt.Sprintf("env%d_in_acc", i)] = v.Accuracy
		w, err := j.Accuracy(ctx, m, out)
		if err != nil {
			return nil, err
		}
		r.Splits[fmt.Sprintf("env%d_out_acc", i)] = w.Accuracy
		if test {
			r.TestIn += v.Accuracy / float64(len(s.test))
			r.TestOut += w.Accuracy / float64(len(s.test))
			continue
		}
		n := float64(len(s.others))
		r.TrainIn += v.Accuracy / n
		r.TrainOut += w.Accuracy / n
		r.TrainOutLoss += w.Loss / n
	}
	if err := train.CheckLoss(s.state.Done-1, r.TrainOutLoss); err != nil {
		return nil, err
	}
	r.Coverage, r.CoverageSamples = layer.Summary().Coverage, layer.Samples()
	return r, nil
}

func (s *running) judgeOf() Judge {
	return Judge{Batch: evalBatch(s.net.InputSize), Workers: s.Workers, Kernel: s.Kernel}
}

// evalBatch is as large as an image allows.
func evalBatch(input [3]int) int {
	if input[1] <= 64 {
		return 128
	}
	return 16
}

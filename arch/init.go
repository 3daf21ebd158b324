package arch

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"

	"nac/weights"
)

// InitOptions say what a new network is to be like.
type InitOptions struct {
	Classes int
	// Channels is the number of an image's channels, for the architectures that
	// leave it open; 0 is their usual one.
	Channels int
	Seed     uint64
	// Default initialises convolutions as PyTorch does by itself; without it
	// they get He et al.'s normal distribution, as torchvision's networks do.
	Default bool
}

// Init makes the parameters of a new network of the named architecture, random by
// the seed, under the names that a PyTorch checkpoint has. A tensor's values
// depend on the seed and its name alone.
func Init(name string, o InitOptions) (*weights.StateDict, error) {
	if o.Classes < 1 {
		return nil, fmt.Errorf("arch: a new network of %d classes", o.Classes)
	}
	b := newBuilder(weights.New("new " + name))
	b.fresh = &initializer{classes: o.Classes, channels: o.Channels, seed: o.Seed, plain: o.Default || name == "mnist_cnn" || name == "lenet"}
	if _, err := build(name, b); err != nil {
		return nil, err
	}
	return b.sd, nil
}

type initializer struct {
	classes, channels int
	seed              uint64
	plain             bool
}

// fill follows PyTorch and torchvision: convolutions normal with variance
// 2/(out*size^2), or uniform within 1/sqrt(fan-in), as linear layers and biases are;
// norms are the identity; tokens and positions small.
func (i *initializer) fill(sd *weights.StateDict, name string, shape []int, v []float32) {
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(i.seed, h.Sum64()))
	set := func(f func() float64) {
		for k := range v {
			v[k] = float32(f())
		}
	}
	constant := func(x float64) { set(func() float64 { return x }) }
	uniform := func(shape []int) {
		fan := 1
		for _, d := range shape[1:] {
			fan *= d
		}
		bound := 1 / math.Sqrt(float64(fan))
		set(func() float64 { return bound * (2*r.Float64() - 1) })
	}
	switch {
	case strings.HasSuffix(name, "running_var"):
		constant(1)
	case strings.HasSuffix(name, "running_mean"), strings.HasSuffix(name, "class_token"):
	case strings.HasSuffix(name, "layer_scale"):
		constant(1e-6)
	case strings.HasSuffix(name, "pos_embedding"), strings.HasSuffix(name, "relative_position_bias_table"):
		set(func() float64 { return 0.02 * r.NormFloat64() })
	case strings.HasSuffix(name, "bias"):
		// A norm's bias is 0, any other as wide as its weight.
		if w, ok := sd.Lookup(strings.TrimSuffix(name, "bias") + "weight"); ok && len(w.Shape) > 1 {
			uniform(w.Shape)
		}
	case len(shape) == 1:
		constant(1)
	case len(shape) == 4 && !i.plain:
		deviation := math.Sqrt(2 / float64(shape[0]*shape[2]*shape[3]))
		set(func() float64 { return deviation * r.NormFloat64() })
	default:
		uniform(shape)
	}
}

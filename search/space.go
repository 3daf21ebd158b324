// Package search chooses NAC's settings by validation images: automatic parameter
// search (APS), as the NAC reference and OpenOOD call it.
//
// A Space lists what may be chosen for each layer; the search looks for the
// combination with the highest AUROC of ID validation images against OOD validation
// images. NAC's score is a mean over layers, so every layer and setting is scored
// once (Score) and a combination costs a sum of vectors and an AUROC
// (Table.Search), where the reference scores every combination anew.
package search

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"nac/coverage"
)

// Space is what a search may choose from. The order matters in two ways: scores are
// added up in the order of the layers, and of equal combinations the first wins.
type Space struct {
	Name   string       `json:"name" yaml:"-"`
	Layers []LayerSpace `json:"layers" yaml:"layers"`
}

// LayerSpace is what may be chosen for a layer: every combination of the lists.
type LayerSpace struct {
	Layer string                     `json:"layer" yaml:"layer"`
	O     Values[int]                `json:"O" yaml:"O"`
	M     Values[int]                `json:"M" yaml:"M"`
	Alpha Values[float64]            `json:"alpha" yaml:"alpha"`
	Func  Values[coverage.StateFunc] `json:"func" yaml:"func"` // nil means sigmoid(o*g_kl)
	// Weight is the layer's share in the mean over layers; nil means 1.
	Weight Values[float64] `json:"weight,omitempty" yaml:"weight"`
	// Optional layers may be left out altogether.
	Optional bool `json:"optional,omitempty" yaml:"optional"`
}

// Choice is one way to take a layer: with settings, or not at all.
type Choice struct {
	coverage.LayerSettings
	LeftOut bool
}

// Choices returns the layer's choices in the order of the reference's sweep: O
// varies fastest, then M, alpha, the state function and the weight. That the layer
// is left out comes last.
func (l LayerSpace) Choices() []Choice {
	var all []Choice
	for _, weight := range orDefault(l.Weight, 0) {
		for _, f := range orDefault(l.Func, coverage.SigmoidOG) {
			for _, alpha := range l.Alpha {
				for _, m := range l.M {
					for _, o := range l.O {
						all = append(all, Choice{LayerSettings: coverage.LayerSettings{Layer: l.Layer, M: m, O: o, Alpha: alpha, Func: f, Weight: weight}})
					}
				}
			}
		}
	}
	if l.Optional {
		all = append(all, Choice{LayerSettings: coverage.LayerSettings{Layer: l.Layer}, LeftOut: true})
	}
	return all
}

func orDefault[T any](values []T, otherwise T) []T {
	if len(values) == 0 {
		return []T{otherwise}
	}
	return values
}

// maxChoices bounds the choices of a layer, against a slip in a settings file.
const maxChoices = 1 << 16

// Validate returns an error that names the layer and the fault, or nil.
func (s Space) Validate() error {
	if len(s.Layers) == 0 {
		return errors.New("search: no layers")
	}
	for i, l := range s.Layers {
		if slices.ContainsFunc(s.Layers[:i], func(o LayerSpace) bool { return o.Layer == l.Layer }) {
			return fmt.Errorf("search: layer %q is there twice", l.Layer)
		}
		n := 1
		for _, c := range []struct {
			name string
			n    int
		}{{"O", len(l.O)}, {"M", len(l.M)}, {"alpha", len(l.Alpha)}} {
			if c.n == 0 {
				return fmt.Errorf("search: layer %q: no %s to choose from", l.Layer, c.name)
			}
			n *= c.n
		}
		if n *= max(len(l.Func), 1) * max(len(l.Weight), 1); n > maxChoices {
			return fmt.Errorf("search: layer %q: %d choices; at most %d", l.Layer, n, maxChoices)
		}
		for _, w := range l.Weight {
			if !(w > 0) {
				return fmt.Errorf("search: layer %q: weight %v; it must be above 0: optional: true leaves a layer out", l.Layer, w)
			}
		}
		for _, c := range l.Choices() {
			if c.LeftOut {
				continue
			}
			if err := c.Validate(); err != nil {
				return fmt.Errorf("search: %w", err)
			}
		}
	}
	if s.Combinations() == math.MaxUint64 {
		return errors.New("search: more combinations than can be counted")
	}
	return nil
}

// Combinations is how many there are, that of no layer at all included if every
// layer is optional.
func (s Space) Combinations() uint64 {
	n := uint64(1)
	for _, l := range s.Layers {
		c := uint64(len(l.Choices()))
		if c != 0 && n > math.MaxInt64/c {
			return math.MaxUint64
		}
		n *= c
	}
	return n
}

// LayerNames returns the names of the layers.
func (s Space) LayerNames() []string {
	names := make([]string, len(s.Layers))
	for i, l := range s.Layers {
		names[i] = l.Layer
	}
	return names
}

// Gradients tells whether any choice reads gradients.
func (s Space) Gradients() bool {
	return slices.ContainsFunc(s.Layers, func(l LayerSpace) bool {
		return slices.ContainsFunc(orDefault(l.Func, coverage.SigmoidOG), coverage.StateFunc.UsesGradient)
	})
}

// Only returns the space of the named layers.
func (s Space) Only(layers []string) (Space, error) {
	out := Space{Name: s.Name}
	for _, name := range layers {
		i := slices.IndexFunc(s.Layers, func(l LayerSpace) bool { return l.Layer == name })
		if i < 0 {
			return out, fmt.Errorf("search: space %s has no layer %q; it has %s", s.Name, name, strings.Join(s.LayerNames(), ", "))
		}
		out.Layers = append(out.Layers, s.Layers[i])
	}
	return out, nil
}

// WithSubsets returns the space in which every layer may be left out.
func (s Space) WithSubsets() Space {
	return s.each(func(l *LayerSpace) { l.Optional = true })
}

// WithWeights returns the space in which every layer may have any of the weights.
func (s Space) WithWeights(weights []float64) Space {
	return s.each(func(l *LayerSpace) { l.Weight = weights })
}

func (s Space) each(change func(l *LayerSpace)) Space {
	s.Layers = slices.Clone(s.Layers)
	for i := range s.Layers {
		change(&s.Layers[i])
	}
	return s
}

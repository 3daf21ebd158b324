package coverage

import "fmt"

// Coverage holds the histograms of several layers of one network.
type Coverage struct {
	// Layers in the order of the settings. Replace or reorder none of them.
	Layers []*Layer
}

// States are the pooled activations Z and pooled gradients G of one layer, each
// n rows of one value per channel.
type States struct {
	Layer string
	Z, G  []float32
}

// New returns an empty coverage. channels gives the number of neurons of each
// layer by name; it may name more layers than the settings.
func New(settings []LayerSettings, channels map[string]int) (*Coverage, error) {
	if len(settings) == 0 {
		return nil, fmt.Errorf("coverage: no layers")
	}
	c := &Coverage{}
	seen := map[string]bool{}
	for _, s := range settings {
		if seen[s.Layer] {
			return nil, fmt.Errorf("coverage: layer %q is there twice", s.Layer)
		}
		seen[s.Layer] = true
		n, ok := channels[s.Layer]
		if !ok {
			return nil, fmt.Errorf("coverage: the number of channels of layer %q is not given", s.Layer)
		}
		l, err := NewLayer(s, n)
		if err != nil {
			return nil, err
		}
		c.Layers = append(c.Layers, l)
	}
	return c, nil
}

// Settings returns the settings of every layer.
func (c *Coverage) Settings() []LayerSettings {
	s := make([]LayerSettings, len(c.Layers))
	for i, l := range c.Layers {
		s[i] = l.settings
	}
	return s
}

// Layer returns the layer of the given name, or nil.
func (c *Coverage) Layer(name string) *Layer {
	for _, l := range c.Layers {
		if l.settings.Layer == name {
			return l
		}
	}
	return nil
}

// Samples returns how many samples the first layer has, which is that of every
// layer unless layers were added to one by one.
func (c *Coverage) Samples() int64 {
	if len(c.Layers) == 0 {
		return 0
	}
	return c.Layers[0].samples
}

// Add counts n samples in every layer. Each of the coverage's layers must be
// among the states, by name; other states are ignored. On an error nothing has
// been counted.
func (c *Coverage) Add(states []States, n int) error {
	of, err := c.match(states, n)
	if err != nil {
		return err
	}
	for _, l := range c.Layers {
		if l.samples+int64(n) > maxSamples {
			return fmt.Errorf("coverage: layer %q: %d samples and %d more are above the limit of %d", l.settings.Layer, l.samples, n, maxSamples)
		}
	}
	for i, l := range c.Layers {
		if err := l.Add(of[i].Z, of[i].G, n); err != nil {
			return err
		}
	}
	return nil
}

// Score writes the score of each of n samples into dst (NAC-UE): the mean over
// layers of [Layer.Score], weighted if the settings have weights, higher = more
// in-distribution. States are found as by Add.
func (c *Coverage) Score(states []States, n int, dst []float32) error {
	if len(dst) != n {
		return fmt.Errorf("coverage: room for %d scores of %d samples", len(dst), n)
	}
	of, err := c.match(states, n)
	if err != nil {
		return err
	}
	return c.mean(dst, func(i int, l *Layer, sums []uint64) error { return l.sums(of[i].Z, of[i].G, n, sums) })
}

// mean writes the scores of samples of which add adds up the capped counts in a layer.
func (c *Coverage) mean(dst []float32, add func(i int, l *Layer, sums []uint64) error) error {
	total := make([]float64, len(dst))
	sums := make([]uint64, len(dst))
	weights := 0.0
	for i, l := range c.Layers {
		clear(sums)
		if err := add(i, l, sums); err != nil {
			return err
		}
		whole, weight := l.whole(), l.settings.weight()
		for k, s := range sums {
			total[k] += float64(weight * (float64(s) / whole)) // not fused, so that every machine agrees
		}
		weights += weight
	}
	for k, t := range total {
		dst[k] = float32(t / weights)
	}
	return nil
}

// ScoreBins is Score of n samples of which the bins alone are known, as Layer.Bins
// gives them: n rows of one value per channel for each layer, in the order of
// Layers. It scores samples again after more were added.
func (c *Coverage) ScoreBins(bins [][]int16, n int, dst []float32) error {
	if len(bins) != len(c.Layers) || len(dst) != n {
		return fmt.Errorf("coverage: bins of %d layers and room for %d scores; there are %d layers and %d samples", len(bins), len(dst), len(c.Layers), n)
	}
	return c.mean(dst, func(i int, l *Layer, sums []uint64) error { return l.sumBins(bins[i], n, sums) })
}

// Merge adds the counts of another coverage with the same layers and settings.
// On an error, which names the first difference, nothing has been merged.
func (c *Coverage) Merge(other *Coverage) error {
	if len(c.Layers) != len(other.Layers) {
		return fmt.Errorf("coverage: cannot merge: %d layers against %d", len(c.Layers), len(other.Layers))
	}
	for i, l := range c.Layers {
		if err := l.mergeable(other.Layers[i]); err != nil {
			return err
		}
	}
	for i, l := range c.Layers {
		if err := l.Merge(other.Layers[i]); err != nil {
			return err
		}
	}
	return nil
}

// match finds each layer's states and checks their lengths.
func (c *Coverage) match(states []States, n int) ([]States, error) {
	of := make([]States, len(c.Layers))
	for i, l := range c.Layers {
		found := false
		for _, s := range states {
			if s.Layer != l.settings.Layer {
				continue
			}
			if found {
				return nil, fmt.Errorf("coverage: states of layer %q are there twice", s.Layer)
			}
			of[i], found = s, true
		}
		if !found {
			return nil, fmt.Errorf("coverage: no states of layer %q", l.settings.Layer)
		}
		if err := l.check(of[i].Z, of[i].G, n); err != nil {
			return nil, err
		}
	}
	return of, nil
}

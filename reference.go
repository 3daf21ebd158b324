package nac

import (
	"slices"

	"nac/coverage"
	"nac/detector"
)

// reference is what is kept of each calibration image: its score and predicted
// class, and for a detector of coverage the bin of every neuron's state, which is
// enough to score it again after more images were added, and to find images that
// resemble another in state.
type reference struct {
	scores  []float64
	classes []int
	names   []string
	bins    []layerBins // in the order of the coverage's layers
}

// layerBins are a row of bins for each image.
type layerBins struct {
	channels int
	bins     []int16 // -1 is no bin
}

// covered returns a detector's coverage, nil if it has none.
func covered(d detector.Detector) *coverage.Coverage {
	if c, ok := d.(detector.Covered); ok {
		return c.Coverage()
	}
	return nil
}

// binsOf returns the bins of n images in each layer of a coverage.
func binsOf(c *coverage.Coverage, in *detector.Inputs) ([]layerBins, error) {
	all := make([]layerBins, len(c.Layers))
	for i, l := range c.Layers {
		at := slices.IndexFunc(in.States, func(s coverage.States) bool { return s.Layer == l.Settings().Layer })
		wide := make([]int32, in.N*l.Channels())
		if err := l.Bins(in.States[at].Z, in.States[at].G, in.N, wide); err != nil {
			return nil, err
		}
		all[i].channels = l.Channels()
		all[i].bins = make([]int16, len(wide))
		for k, b := range wide {
			all[i].bins[k] = int16(b)
		}
	}
	return all, nil
}

// addBins keeps the bins of more calibration images.
func (r *reference) addBins(d detector.Detector, in *detector.Inputs) error {
	c := covered(d)
	if c == nil {
		return nil
	}
	more, err := binsOf(c, in)
	if err != nil {
		return err
	}
	if r.bins == nil {
		r.bins = more
		return nil
	}
	for i := range more {
		r.bins[i].bins = append(r.bins[i].bins, more[i].bins...)
	}
	return nil
}

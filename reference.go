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

// binned returns the layers of which bins are kept.
func binned(d detector.Detector) []*coverage.Layer {
	if e, ok := d.(detector.Explainer); ok {
		return e.Binned()
	}
	return nil
}

// add keeps more calibration images' bins, and returns the mean coverage of each layer's
// neurons for each image.
func (r *reference) add(neurons []detector.NeuronCoverage, n int) (means [][]float64) {
	at := 0
	for _, c := range neurons {
		mean := make([]float64, n)
		for i := range mean {
			mean[i] = meanOf(c.Covered[i*c.Channels : (i+1)*c.Channels])
		}
		means = append(means, mean)
		if c.Bins == nil {
			continue
		}
		if at == len(r.bins) {
			r.bins = append(r.bins, layerBins{channels: c.Channels})
		}
		for _, b := range c.Bins {
			r.bins[at].bins = append(r.bins[at].bins, int16(b))
		}
		at++
	}
	return means
}

func meanOf(v []float32) float64 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x)
	}
	return sum / float64(len(v))
}

// means returns the mean coverage of a layer's neurons for each image, by its bins.
func (b layerBins) means(l *coverage.Layer) []float64 {
	counts, width, limit := l.Counts(), l.Settings().M-1, uint32(l.Settings().O)
	row := make([]float32, b.channels)
	means := make([]float64, len(b.bins)/b.channels)
	for i := range means {
		for c, bin := range b.bins[i*b.channels : (i+1)*b.channels] {
			row[c] = 0
			if bin >= 0 {
				row[c] = float32(min(counts[c*width+int(bin)], limit)) / float32(limit)
			}
		}
		means[i] = meanOf(row)
	}
	return means
}

// layerInfo describes the layer by calibration images' mean coverage, which it sorts.
func layerInfo(name string, neurons int, means []float64) LayerInfo {
	slices.Sort(means)
	n := len(means)
	return LayerInfo{Layer: name, Neurons: neurons, Median: means[n/2], Low: means[n/20]}
}

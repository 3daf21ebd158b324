package nac

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"nac/arch"
	"nac/detector"
	"nac/imageset"
)

// Explanation says why an image has its score.
type Explanation struct {
	Result
	// Layers are those whose neurons' coverage makes the score.
	Layers []LayerExplanation `json:"layers"`
	// Nearest are the calibration images whose neurons' states are most alike, the
	// nearest first.
	Nearest []Neighbor `json:"nearest"`
	// Input is the image as the network gets it, before normalisation.
	Input *imageset.Image `json:"-"`
}

// LayerExplanation is what a layer's neurons say of an image.
type LayerExplanation struct {
	LayerInfo
	// Covered is the coverage of the image, to be compared with Median and Low.
	Covered float64 `json:"covered"`
	// Uncovered is how many neurons are covered by less than half.
	Uncovered int `json:"uncovered"`
	// Least are the least covered neurons, at most ten, the first the worst; none that is
	// covered in full.
	Least []Neuron `json:"least"`
	// Height and Width are the size of Map, 0 for a layer without extent in space.
	Height int `json:"height,omitempty"`
	Width  int `json:"width,omitempty"`
	// Map is where the image's uncovered activation is: at each pixel of the layer the sum
	// over neurons of (1 - coverage) * |activation|, divided by the mean over pixels of
	// the sum of all |activation|. It does not depend on other images: 0 is covered,
	// 1 as much uncovered as an average pixel is active.
	Map []float32 `json:"map,omitempty"`
}

// LayerInfo describes a layer and how far calibration images are covered in it.
type LayerInfo struct {
	// Layer is a name of the model's, or "response" for the penultimate feature's
	// response to the KL gradient, see package detector.
	Layer   string `json:"layer"`
	Neurons int    `json:"neurons"`
	// Median and Low are the median and the 5 % quantile of the mean coverage of
	// calibration images.
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
}

// Neuron is a channel of a layer and its coverage.
type Neuron struct {
	Index   int     `json:"index"`
	Covered float64 `json:"covered"`
}

// Neighbor is a calibration image.
type Neighbor struct {
	Path string `json:"path"`
	// Class is its predicted class.
	Class     int    `json:"class"`
	ClassName string `json:"class_name,omitempty"`
	// Distance is the mean over layers and neurons of how many bins the states are apart.
	Distance float64 `json:"distance"`
}

const (
	leastNeurons = 10
	neighbors    = 5
)

// ErrNoCoverage is wrapped by the error for explaining the score of a detector that
// does not measure coverage.
var ErrNoCoverage = errors.New("the detector does not measure coverage neuron by neuron; nac and nac_auto do")

// spatial computes where layers are active; it is made when first needed.
type spatial struct {
	mu          sync.Mutex
	activations *arch.Activations
}

// Explain scores an image and says why.
func (d *Detector) Explain(ctx context.Context, img *imageset.Image) (*Explanation, error) {
	explainer, ok := d.fitted.(detector.Explainer)
	if !ok {
		return nil, fmt.Errorf("nac: %s: %w", d.info.Detector, ErrNoCoverage)
	}
	if d.engine == nil {
		return nil, fmt.Errorf("nac: %w", ErrNoModel)
	}
	input := make([]float32, d.engine.size)
	if err := d.info.Transform.Apply(img, input); err != nil {
		return nil, fmt.Errorf("nac: %w", err)
	}
	pixels, err := d.info.Transform.Pixels(img)
	if err != nil {
		return nil, fmt.Errorf("nac: %w", err)
	}
	e := &Explanation{Input: pixels}
	var neurons []detector.NeuronCoverage
	err = d.engine.run(ctx, input, 1, func(in *detector.Inputs) error {
		var one [1]Result
		if err := d.results(in, one[:]); err != nil {
			return err
		}
		e.Result = one[0]
		d.using.Lock()
		defer d.using.Unlock()
		neurons, err = explainer.Neurons(in)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, n := range neurons {
		l := explainLayer(n)
		if i < len(d.info.Layers) {
			l.LayerInfo = d.info.Layers[i]
		}
		e.Layers = append(e.Layers, l)
	}
	e.Nearest = d.nearest(neurons)
	return e, d.drawMaps(e, input, neurons)
}

func explainLayer(n detector.NeuronCoverage) LayerExplanation {
	l := LayerExplanation{LayerInfo: LayerInfo{Layer: n.Layer, Neurons: n.Channels}}
	for k, c := range n.Covered {
		l.Covered += float64(c) / float64(n.Channels)
		if c < 0.5 {
			l.Uncovered++
		}
		if c < 1 {
			l.Least = append(l.Least, Neuron{k, float64(c)})
		}
	}
	slices.SortStableFunc(l.Least, func(a, b Neuron) int { return cmp.Compare(a.Covered, b.Covered) })
	l.Least = l.Least[:min(len(l.Least), leastNeurons)]
	return l
}

// nearest finds calibration images with like states. A state in no bin is as far away as
// can be from all that are in one.
func (d *Detector) nearest(neurons []detector.NeuronCoverage) []Neighbor {
	if len(d.ref.bins) == 0 {
		return nil
	}
	all := make([]Neighbor, len(d.ref.names))
	at := 0
	for _, n := range neurons {
		if n.Bins == nil {
			continue
		}
		kept, width := d.ref.bins[at], binned(d.fitted)[at].Settings().M-2
		at++
		for i := range all {
			sum := 0
			for k, b := range kept.bins[i*kept.channels : (i+1)*kept.channels] {
				switch a := n.Bins[k]; {
				case a < 0 && b < 0:
				case a < 0 || b < 0:
					sum += width
				default:
					sum += max(int(a)-int(b), int(b)-int(a))
				}
			}
			all[i].Distance += float64(sum) / float64(kept.channels*len(d.ref.bins))
		}
	}
	for i := range all {
		all[i].Path, all[i].Class = d.ref.names[i], d.ref.classes[i]
		all[i].ClassName = d.className(all[i].Class)
	}
	slices.SortStableFunc(all, func(a, b Neighbor) int { return cmp.Compare(a.Distance, b.Distance) })
	return slices.Clone(all[:min(len(all), neighbors)])
}

// drawMaps fills in the layers' maps.
func (d *Detector) drawMaps(e *Explanation, input []float32, neurons []detector.NeuronCoverage) error {
	d.spatial.mu.Lock()
	defer d.spatial.mu.Unlock()
	if d.spatial.activations == nil {
		names := make([]string, len(neurons))
		for i, n := range neurons {
			if !n.Feature {
				names[i] = n.Layer
			}
		}
		var err error
		if d.spatial.activations, err = d.network.NewActivations(names); err != nil {
			return err
		}
	}
	activations, err := d.spatial.activations.Run(input)
	if err != nil {
		return err
	}
	for i, l := range d.spatial.activations.Layers() {
		height, width, skip := l.Height, l.Width, 0
		// Tokens are a class token and an image's patches, row by row.
		if side := int(math.Sqrt(float64(width - 1))); height == 1 && width > 1 && side*side == width-1 {
			height, width, skip = side, side, 1
		}
		if height*width > 1 {
			e.Layers[i].Height, e.Layers[i].Width = height, width
			e.Layers[i].Map = uncovered(activations[i][skip*l.Channels:], neurons[i].Covered)
		}
	}
	return nil
}

// uncovered makes a map of an activation, pixels of as many channels as there are
// coverages.
func uncovered(activation, covered []float32) []float32 {
	m := make([]float32, len(activation)/len(covered))
	total := 0.0
	for i := range m {
		for k, a := range activation[i*len(covered) : (i+1)*len(covered)] {
			a = max(a, -a)
			total += float64(a)
			m[i] += (1 - covered[k]) * a
		}
	}
	if total > 0 {
		for i := range m {
			m[i] *= float32(float64(len(m)) / total)
		}
	}
	return m
}

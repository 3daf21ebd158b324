package detector

import (
	"fmt"
	"slices"
)

// Phase is what a batch of images is for.
type Phase int

const (
	// Fitting is on ID training images.
	Fitting Phase = iota
	// Validating is on validation images, which some detectors are fitted on too.
	Validating
	Scoring
	// Phases is how many there are.
	Phases = iota
)

// Needs says what a detector reads of each image in a phase. Logits and the
// penultimate feature are always there.
type Needs struct {
	// Layers names the layers whose pooled states are read.
	Layers []string
	// Gradients tells whether the states' KL gradients are read; without it only
	// the forward pass is needed.
	Gradients bool
	// Maps are functions of whole activations.
	Maps []Map
	// Passes are further runs of the network.
	Passes []Further
}

// Map is what a Reduction makes of a layer's activation, of a layer, stage or
// convolution of the Network. Equal ones are computed once.
type Map struct {
	Layer     string
	Reduction Reduction
}

// Reduction is a function of one image's activation. Its dynamic type must be
// comparable, so that detectors can share what it yields.
type Reduction interface {
	// Size is the number of values for an activation of layer l.
	Size(l Layer) int
	// Reduce writes them. The activation comes as Height*Width pixels of Channels
	// values and may be written to. Reduce is called from several goroutines at once.
	Reduce(activation []float32, l Layer, dst []float32)
}

// Pass is a run of the network besides the first. Equal ones are made once for all
// detectors. The zero Pass runs over the images as they are, apart from the
// first: reading a convolution's output there keeps it from taking along what
// follows, which would change the last digits of everybody's first pass.
type Pass struct {
	// Loss and Move change the image: Move is given the gradient of Loss.
	Loss Loss
	Move Move
	// From is a layer whose activation is replaced by what Change makes of it,
	// which must have its size.
	From   string
	Change Reduction
}

// Start is the map of the first pass whose values a pass From a layer starts from.
func (p Pass) Start() Map { return Map{p.From, p.Change} }

// Loss is a function of what the network yields for an image. Its dynamic type must
// be comparable.
type Loss interface {
	// Layer is the stage or layer whose mean over space the loss is of; empty
	// means the logits.
	Layer() string
	// Gradient writes the loss's gradient by them. It is called from several
	// goroutines at once.
	Gradient(values, gradient []float32)
}

// fittedLoss is a Loss that depends on what fitting finds, so that its passes cannot be
// made before it has ended.
type fittedLoss interface{ fitted() }

// Move changes an image along a gradient. Its dynamic type must be comparable.
type Move interface {
	// Apply writes the changed image, all three as planes of a channel each.
	Apply(image, gradient, dst []float32, channels int)
}

// SignStep goes against the sign of the gradient, by Size of each channel; zero has
// a positive sign, as in the reference.
type SignStep struct{ Size [3]float32 }

// Apply implements Move.
func (s SignStep) Apply(image, gradient, dst []float32, channels int) {
	plane := len(image) / channels
	for i, v := range image {
		step := s.Size[i/plane%3]
		if gradient[i] < 0 {
			step = -step
		}
		dst[i] = v - step
	}
}

// LargestStep goes against the sign of the gradient at the one value where the gradient
// is largest, by Size of its channel.
type LargestStep struct{ Size [3]float32 }

// Apply implements Move.
func (s LargestStep) Apply(image, gradient, dst []float32, channels int) {
	copy(dst, image)
	at := 0
	for i, g := range gradient {
		if abs(g) > abs(gradient[at]) {
			at = i
		}
	}
	step := s.Size[at/(len(image)/channels)%3]
	if gradient[at] < 0 {
		step = -step
	}
	dst[at] = image[at] - step
}

// SmallestStep goes along the sign of the gradient, by Size, at the given Share of the
// values, those where the gradient is smallest.
type SmallestStep struct{ Share, Size float64 }

// Apply implements Move.
func (s SmallestStep) Apply(image, gradient, dst []float32, _ int) {
	copy(dst, image)
	k := int(float64(len(image)) * s.Share)
	if k == 0 {
		return
	}
	sizes := make([]float32, len(gradient))
	for i, g := range gradient {
		sizes[i] = abs(g)
	}
	limit := kthSmallest(sizes, k-1)
	equal := k // of those at the limit, the first
	for _, g := range gradient {
		if abs(g) < limit {
			equal--
		}
	}
	for i, g := range gradient {
		switch size := abs(g); {
		case size > limit || size == limit && equal == 0:
			continue
		case size == limit:
			equal--
		}
		switch {
		case g > 0:
			dst[i] += float32(s.Size)
		case g < 0:
			dst[i] -= float32(s.Size)
		}
	}
}

func abs(v float32) float32 { return max(v, -v) }

// Further is what is read of a further pass: Maps, and with Logits also the logits
// and the feature.
type Further struct {
	Pass   Pass
	Logits bool
	Maps   []Map
}

// Images tells whether more is needed than a cache of states holds.
func (n Needs) Images() bool { return len(n.Maps)+len(n.Passes) > 0 }

// add makes n what it and other need together.
func (n *Needs) add(other Needs) {
	n.Gradients = n.Gradients || other.Gradients
	n.Layers = union(n.Layers, other.Layers)
	n.Maps = union(n.Maps, other.Maps)
	for _, f := range other.Passes {
		i := slices.IndexFunc(n.Passes, func(g Further) bool { return g.Pass == f.Pass })
		if i < 0 {
			i = len(n.Passes)
			n.Passes = append(n.Passes, Further{Pass: f.Pass})
		}
		g := &n.Passes[i]
		g.Logits = g.Logits || f.Logits
		g.Maps = union(g.Maps, f.Maps)
	}
}

func union[T comparable](a, b []T) []T {
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

// Union returns what several detectors need together in a phase, in the order in
// which it first appears.
func Union(detectors []Detector, n Network, p Phase) Needs {
	var all Needs
	for _, d := range detectors {
		all.add(d.Needs(n, p))
	}
	return all
}

// Layer is a place in a network.
type Layer struct {
	Name                    string
	Channels, Height, Width int
}

// Pixels is Height times Width.
func (l Layer) Pixels() int { return l.Height * l.Width }

// Values is the size of an activation.
func (l Layer) Values() int { return l.Channels * l.Pixels() }

// Network is what a detector may know of the network before the first image.
type Network struct {
	Classes  int // K
	Features int // F
	// Channels is the number of neurons of each layer that can be read.
	Channels map[string]int
	// Weight (K×F) and Bias (K) are the last linear layer: logits = Weight*feature +
	// Bias. Both are empty if there is none.
	Weight, Bias []float32
	// Stages are the activations behind the stem, "stage 0", and behind each stage,
	// "stage 1" and so on: OpenOOD's list of features, before the last is pooled.
	Stages []Layer
	// Convolutions are the outputs of all convolutions, before any normalisation,
	// "convolution 0" and so on.
	Convolutions []Layer
	// Std is the standard deviation that the images' channels were divided by; zero
	// if it is unknown.
	Std [3]float32
}

func stageName(i int) string       { return fmt.Sprintf("stage %d", i) }
func convolutionName(i int) string { return fmt.Sprintf("convolution %d", i) }

// MapValues are the values of a Map for a batch, row by row.
type MapValues struct {
	Map    Map
	Values []float32
}

// PassInputs are what a further pass yielded.
type PassInputs struct {
	Pass   Pass
	Inputs *Inputs
	// Seconds is the time that it took, and the gradient that it moves images along.
	Seconds float64
}

// mapValues returns what a map yielded.
func (in *Inputs) mapValues(m Map) ([]float32, error) {
	for i := range in.Maps {
		if in.Maps[i].Map == m {
			return in.Maps[i].Values, nil
		}
	}
	return nil, fmt.Errorf("no values of %T of layer %q", m.Reduction, m.Layer)
}

// pass returns what a further pass yielded.
func (in *Inputs) pass(p Pass) (*Inputs, error) {
	for i := range in.Passes {
		if in.Passes[i].Pass == p {
			return in.Passes[i].Inputs, nil
		}
	}
	return nil, fmt.Errorf("no further pass of the network")
}

// Rows returns images first to last, not included, of the batch.
func (in *Inputs) Rows(first, last int) *Inputs {
	if first == last {
		return &Inputs{}
	}
	part := func(v []float32) []float32 {
		width := len(v) / in.N
		return v[first*width : last*width]
	}
	r := &Inputs{N: last - first, Logits: part(in.Logits), Feature: part(in.Feature)}
	if in.Labels != nil {
		r.Labels = in.Labels[first:last]
	}
	for _, s := range in.States {
		s.Z, s.G = part(s.Z), part(s.G)
		r.States = append(r.States, s)
	}
	for _, m := range in.Maps {
		m.Values = part(m.Values)
		r.Maps = append(r.Maps, m)
	}
	for _, p := range in.Passes {
		p.Inputs = p.Inputs.Rows(first, last)
		r.Passes = append(r.Passes, p)
	}
	return r
}

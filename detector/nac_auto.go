package detector

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"nac/coverage"
	"nac/internal/safetensors"
)

// nacAuto is neuron activation coverage whose settings come from ID training images
// alone; docs/nac-auto.md tells how the rule was found. Two coverages are
// standardised by the ID images' own and added.
//
// The response of the penultimate feature, f * dL/df with L = KL(uniform || softmax),
// is covered as NAC-UE covers it, with a sigmoid of steepness 1/standard deviation of
// all responses. The gradient is that of the last linear layer, W'(softmax - 1/K), so
// no backward pass is needed.
//
// The activations of the layers before it are covered at their tails: a neuron is
// covered to the share min(images at or below, images at or above, O)/O, the mean
// over the neurons of all layers. A layer whose activations are the feature itself, up
// to a factor, is left out: there OOD images are the ones near to the middle.
//
// O is a percentage of the images. Those images are kept until End, or a random part
// of them if there are many.
type nacAuto struct {
	fitting
	layers []tailLayer
	head   *head
	back   *bank // the columns of the head's weights

	sample     sample
	kept       []float32 // response, then the layers' activations, of each image
	priorities []uint64
	row        []float32

	response   *coverage.Layer
	mean, std  [2]float64 // of the two coverages
	minSamples int        // O
}

// tailLayer is a layer of which the tails are covered.
type tailLayer struct {
	pooledLayer
	// low and high are the O smallest and largest activations of each neuron, rising.
	low, high []float32
}

var nacAutoParams = []Param{
	{Name: "O", About: "images that cover a bin or a tail, in percent of the training images", Default: 3, Min: 0.01, Max: 50},
	{Name: "M", About: "thresholds of the response", Default: 50, Min: 4, Max: 1 << 14, Whole: true},
	{Name: "images", About: "training images kept to fit on, at most", Default: 10000, Min: 2, Max: 1 << 24, Whole: true},
}

var _ = register(Method{
	Key: "nac_auto", About: "neuron activation coverage that finds its settings on ID images", Paper: "after Liu, ICLR 2024",
	Params: nacAutoParams, make: newNACAuto,
})

func newNACAuto(p params) (Detector, error) {
	d := &nacAuto{fitting: fitting{params: p}}
	layers, err := d.pooledLayers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		d.layers = append(d.layers, tailLayer{pooledLayer: l})
	}
	if p.int("M")%2 != 0 {
		return nil, d.errorf("M is %d; it must be even", p.int("M"))
	}
	d.state = d.stored
	return d, nil
}

func (d *nacAuto) Settings() Settings {
	s := d.params.settings()
	for _, l := range d.layers {
		s.LayerNames = append(s.LayerNames, l.name)
	}
	return s
}

func (d *nacAuto) Needs(Network, Phase) Needs {
	var n Needs
	for _, l := range d.layers {
		if d.phase != ended || !l.feature {
			n.Layers = append(n.Layers, l.name)
		}
	}
	return n
}

func (d *nacAuto) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	width := n.Features
	for i := range d.layers {
		l := &d.layers[i]
		if err := l.begin(n); err != nil {
			d.phase = fresh
			return d.errorf("%w", err)
		}
		width += l.channels
	}
	var err error
	if d.head, err = d.takeHead(n); err != nil {
		d.phase = fresh
		return err
	}
	d.back = d.head.columns()
	d.sample, d.kept, d.priorities, d.row = newSample(d.int("images"), 1), nil, nil, make([]float32, width)
	return nil
}

// columns packs the weights' columns: products with them are gradients of features.
func (h *head) columns() *bank {
	columns := make([]float32, len(h.weight))
	for k := range h.classes {
		for f := range h.features {
			columns[f*h.classes+k] = h.weight[k*h.features+f]
		}
	}
	return bankOf(columns, h.classes)
}

// responses returns feature times the gradient of KL(uniform || softmax) by it, of
// all images.
func (d *nacAuto) responses(in *Inputs) []float32 {
	gradient := make([]float32, in.N*d.classes)
	p := make([]float64, d.classes)
	for i := range in.N {
		for k, v := range softmax(d.logits(in, i, p)) {
			gradient[i*d.classes+k] = float32(v - 1/float64(d.classes))
		}
	}
	dst := make([]float32, in.N*d.features)
	d.back.multiply(gradient, in.N, nil, dst)
	for i, f := range in.Feature[:len(dst)] {
		dst[i] *= f
	}
	return dst
}

func (d *nacAuto) Fit(in *Inputs) error {
	if err := d.checkFit(in); err != nil {
		return err
	}
	z := make([][]float32, len(d.layers))
	for i := range d.layers {
		var err error
		if z[i], err = d.layers[i].activations(in); err != nil {
			return d.errorf("%w", err)
		}
	}
	d.images += in.N
	responses := d.responses(in)
	for i := range in.N {
		row := append(d.row[:0], responses[i*d.features:][:d.features]...)
		for j := range d.layers {
			l := &d.layers[j]
			activations := z[j][i*l.channels:][:l.channels]
			l.compare(activations, d.feature(in, i))
			row = append(row, activations...)
		}
		priority, take := d.sample.next()
		if !take {
			continue
		}
		d.kept, d.priorities = append(d.kept, row...), append(d.priorities, priority)
		for d.sample.full() {
			d.halve()
		}
	}
	return nil
}

func (d *nacAuto) halve() {
	d.sample.halve()
	n, width := 0, len(d.row)
	for i, p := range d.priorities {
		if d.sample.holds(p) {
			d.priorities[n] = p
			copy(d.kept[n*width:], d.kept[i*width:][:width])
			n++
		}
	}
	d.priorities, d.kept = d.priorities[:n], d.kept[:n*width]
}

func (d *nacAuto) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	if err := d.learn(); err != nil {
		d.phase = fresh
		return d.errorf("%w", err)
	}
	d.kept, d.priorities = nil, nil
	return nil
}

func (d *nacAuto) learn() error {
	n, width := len(d.priorities), len(d.row)
	if n < 2 {
		return fmt.Errorf("%d training image is too few: it takes at least 2, better 1000", n)
	}
	d.minSamples = max(1, int(math.Round(float64(n)*d.float("O")/100)))
	responses := make([]float32, 0, n*d.features)
	for i := range n {
		responses = append(responses, d.kept[i*width:][:d.features]...)
	}
	spread := deviation(responses)
	if !(spread > 0) {
		return errors.New("the feature's responses to the KL gradient do not vary over the training images")
	}
	var err error
	if d.response, err = coverage.NewLayer(coverage.LayerSettings{
		Layer: responseLayer, M: d.int("M"), O: d.minSamples, Alpha: 1 / spread, Func: coverage.SigmoidO,
	}, d.features); err != nil {
		return err
	}
	if err := d.response.Add(responses, nil, n); err != nil {
		return err
	}
	if d.mean[0], d.std[0], err = spreadOf(d.responsesLeftOut(responses, n)); err != nil {
		return fmt.Errorf("the coverage of the feature's responses %w", err)
	}
	scores, neurons := make([]float64, n), 0
	at := d.features
	for i := range d.layers {
		l := &d.layers[i]
		if !l.feature {
			l.learn(d.kept[at:], width, n, d.minSamples, scores)
			neurons += l.channels
		}
		at += l.channels
	}
	if neurons == 0 {
		return nil
	}
	for i := range scores {
		scores[i] /= float64(neurons)
	}
	if d.mean[1], d.std[1], err = spreadOf(scores); err != nil {
		return fmt.Errorf("the coverage of the tails of the layers' activations %w", err)
	}
	return nil
}

// deviation is the standard deviation of all numbers.
func deviation(v []float32) float64 {
	mean := sum(v) / float64(len(v))
	squares := 0.0
	for _, x := range v {
		squares += (float64(x) - mean) * (float64(x) - mean)
	}
	return math.Sqrt(squares / float64(len(v)))
}

// spreadOf returns the mean and standard deviation of scores.
func spreadOf(scores []float64) (mean, std float64, err error) {
	for _, s := range scores {
		mean += s / float64(len(scores))
	}
	for _, s := range scores {
		std += (s - mean) * (s - mean) / float64(len(scores))
	}
	std = math.Sqrt(std)
	if !(std > 1e-9*math.Abs(mean)) || math.IsInf(std, 0) {
		return mean, std, errors.New("does not vary over ID training images")
	}
	return mean, std, nil
}

// responsesLeftOut returns the response coverage of each training image by the
// others.
func (d *nacAuto) responsesLeftOut(responses []float32, n int) []float64 {
	bins := make([]int32, len(responses))
	// Add accepted the same responses.
	if err := d.response.Bins(responses, nil, n, bins); err != nil {
		panic(err)
	}
	counts, perNeuron := d.response.Counts(), d.int("M")-1
	scores := make([]float64, n)
	for i, b := range bins {
		if b >= 0 {
			others := int(counts[i%d.features*perNeuron+int(b)]) - 1
			scores[i/d.features] += float64(min(others, d.minSamples))
		}
	}
	for i := range scores {
		scores[i] /= float64(d.minSamples * d.features)
	}
	return scores
}

// learn takes the layer's tails from n rows, and adds to scores the sum over neurons
// of the coverage of each image by the others.
func (l *tailLayer) learn(rows []float32, width, n, o int, scores []float64) {
	l.low, l.high = make([]float32, l.channels*o), make([]float32, l.channels*o)
	column := make([]float32, n)
	for c := range l.channels {
		for i := range column {
			column[i] = rows[i*width+c]
		}
		slices.Sort(column)
		copy(l.low[c*o:][:o], column)
		copy(l.high[c*o:][:o], column[n-o:])
		for i := range scores {
			// One of those at or beyond is the image itself.
			scores[i] += float64(min(beyond(column, column, rows[i*width+c])-1, o)) / float64(o)
		}
	}
}

// beyond counts the numbers at or below v among low, and at or above it among
// high, both rising, and returns the smaller count.
func beyond(low, high []float32, v float32) int {
	below, above := len(low), len(high)
	if v < low[below-1] {
		below = sort.Search(below, func(i int) bool { return low[i] > v })
	}
	if v > high[0] {
		above -= sort.Search(above, func(i int) bool { return high[i] >= v })
	}
	return min(below, above)
}

func (d *nacAuto) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	covered := make([]float32, in.N)
	if err := d.response.Score(d.responses(in), nil, in.N, covered); err != nil {
		return d.errorf("%w", err)
	}
	for i, c := range covered {
		dst[i] = (float64(c) - d.mean[0]) / d.std[0]
	}
	tails, neurons := make([]int, in.N), 0
	for i := range d.layers {
		l := &d.layers[i]
		if l.feature {
			continue
		}
		z, err := l.activations(in)
		if err != nil {
			return d.errorf("%w", err)
		}
		neurons += l.channels
		o := d.minSamples
		for i := range in.N {
			for c, v := range z[i*l.channels:][:l.channels] {
				tails[i] += beyond(l.low[c*o:][:o], l.high[c*o:][:o], v)
			}
		}
	}
	if neurons == 0 {
		return nil
	}
	for i, t := range tails {
		dst[i] += (float64(t)/float64(d.minSamples*neurons) - d.mean[1]) / d.std[1]
	}
	return nil
}

// stored keeps what was learnt.
func (d *nacAuto) stored(s *storage) {
	d.storeHead(s, &d.head)
	s.count("O", &d.minSamples)
	mean, std := d.mean[:], d.std[:]
	s.float64s("mean", &mean, 2)
	s.float64s("std", &std, 2)
	d.storeResponse(s)
	for i := range d.layers {
		l := &d.layers[i]
		if l.store(s); !l.feature && s.err == nil {
			s.float32s(l.name+".low", &l.low, l.channels, d.minSamples)
			s.float32s(l.name+".high", &l.high, l.channels, d.minSamples)
			if !s.saving && s.err == nil {
				s.err = l.check(d.minSamples)
			}
		}
	}
	if s.saving || s.err != nil {
		return
	}
	copy(d.mean[:], mean)
	copy(d.std[:], std)
	d.back = d.head.columns()
}

// check finds tails that do not rise: searching them would find anything.
func (l *tailLayer) check(o int) error {
	for _, v := range [][]float32{l.low, l.high} {
		for c := range l.channels {
			if !slices.IsSorted(v[c*o:][:o]) {
				return fmt.Errorf("the tail of neuron %d of layer %q does not rise", c, l.name)
			}
		}
	}
	return nil
}

const responsePrefix = "response."

func (d *nacAuto) storeResponse(s *storage) {
	if s.err != nil {
		return
	}
	if s.saving {
		c := &coverage.Coverage{Layers: []*coverage.Layer{d.response}}
		tensors, layers, err := c.Tensors()
		if err != nil {
			s.fail(err)
			return
		}
		for _, t := range append(tensors, safetensors.Uint8("layers", []int{len(layers)}, []byte(layers))) {
			t.Name = responsePrefix + t.Name
			s.tensors = append(s.tensors, t)
		}
		return
	}
	f := s.file.Below(responsePrefix)
	layers, _, err := f.Uint8s("layers")
	if err != nil {
		s.fail(err)
		return
	}
	c, err := coverage.FromTensors(f, string(layers))
	if err != nil {
		s.fail(err)
		return
	}
	d.response = c.Layers[0]
	if l := d.response; len(c.Layers) != 1 || l.Channels() != d.features || l.Settings().Func != coverage.SigmoidO {
		s.fail(errors.New("the response's coverage is not one of the feature"))
	}
}

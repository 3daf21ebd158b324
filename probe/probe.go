// Package probe runs a network for detectors: what several of them need of it is
// computed once for all.
package probe

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"nac/arch"
	"nac/coverage"
	"nac/detector"
)

// Options are how a probe runs.
type Options struct {
	// Kernel names the instruction set; see arch.Request.
	Kernel string
	// MaxBatch is the most images of a run; Workers is the number of goroutines, 0 for
	// all processors.
	MaxBatch, Workers int
	// Std is what the images' channels were divided by, zero if it is unknown.
	Std [3]float32
}

// Needs tells what is needed of a network in a phase; see For.
type Needs = func(detector.Network, detector.Phase) detector.Needs

// For returns what the detectors need together.
func For(detectors ...detector.Detector) Needs {
	return func(n detector.Network, p detector.Phase) detector.Needs {
		return detector.Union(detectors, n, p)
	}
}

// NetworkOf describes a model to detectors; std is as in Options.
func NetworkOf(m *arch.Model, std [3]float32) detector.Network {
	head := m.Head()
	n := detector.Network{
		Classes: m.Classes, Features: m.Features, Weight: head.Weight, Bias: head.Bias,
		Channels: map[string]int{}, Std: std,
	}
	for _, l := range m.Layers {
		n.Channels[l.Name] = l.Channels
	}
	for _, l := range m.Stages() {
		n.Stages = append(n.Stages, detector.Layer(l))
	}
	for _, l := range m.Convolutions() {
		n.Convolutions = append(n.Convolutions, detector.Layer(l))
	}
	return n
}

// Probe runs a model. It is not for concurrent use; a model may have several.
type Probe struct {
	model   *arch.Model
	options Options
	network detector.Network
	places  map[string]detector.Layer
	plans   [detector.Phases]*plan
	// Of all plans.
	passes    []*pass
	gradients []*gradients
}

// plan is how the needs of a phase are met.
type plan struct {
	needs  detector.Needs
	first  *arch.Extractor
	maps   []detector.Map // of first: those needed, and those that passes start from
	passes []*pass
	// gradients are those that passes move images along, one for each layer that
	// losses are of.
	gradients []*gradients
	in        detector.Inputs
}

// pass is a further run of the network.
type pass struct {
	detector.Further
	second *arch.Extractor
	given  []float32 // moved images
	in     detector.Inputs
}

// gradients are those of losses of one layer by the images. They share a forward pass,
// and passes share them.
type gradients struct {
	losses    []detector.Loss
	extractor *arch.Extractor
	of        [][]float32 // of the images of this run, by loss
	seconds   float64     // that one of them took
}

// New plans what is needed of a model in each phase. It fails if the model lacks some
// of it.
func New(m *arch.Model, needs Needs, o Options) (*Probe, error) {
	p := &Probe{model: m, options: o, network: NetworkOf(m, o.Std), places: map[string]detector.Layer{}}
	for _, l := range slices.Concat(m.Layers, m.Stages(), m.Convolutions()) {
		p.places[l.Name] = detector.Layer(l)
	}
	for i := range p.plans {
		of := needs(p.network, detector.Phase(i))
		if j := slices.IndexFunc(p.plans[:i], func(l *plan) bool { return reflect.DeepEqual(of, l.needs) }); j >= 0 {
			p.plans[i] = p.plans[j]
			continue
		}
		var err error
		if p.plans[i], err = p.plan(of, p.plans[:i]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// plan plans a phase. One run serves all phases that differ in further passes alone, and
// phases share passes.
func (p *Probe) plan(needs detector.Needs, earlier []*plan) (*plan, error) {
	l := &plan{needs: needs, maps: slices.Clone(needs.Maps)}
	for _, f := range needs.Passes {
		if f.Pass.Change != nil {
			if start := f.Pass.Start(); !slices.Contains(l.maps, start) {
				l.maps = append(l.maps, start)
			}
		}
		q, err := p.pass(f)
		if err != nil {
			return nil, err
		}
		l.passes = append(l.passes, q)
	}
	if err := p.planGradients(l); err != nil {
		return nil, err
	}
	for _, o := range earlier {
		if slices.Equal(o.needs.Layers, needs.Layers) && o.needs.Gradients == needs.Gradients && slices.Equal(o.maps, l.maps) {
			l.first = o.first
			return l, nil
		}
	}
	maps, err := p.requested(l.maps)
	if err != nil {
		return nil, err
	}
	l.first, err = p.extractor(arch.Request{Layers: needs.Layers, Gradients: needs.Gradients, Maps: maps})
	return l, err
}

// pass plans a further pass, unless an earlier phase has the same.
func (p *Probe) pass(f detector.Further) (*pass, error) {
	if i := slices.IndexFunc(p.passes, func(q *pass) bool { return reflect.DeepEqual(q.Further, f) }); i >= 0 {
		return p.passes[i], nil
	}
	q := &pass{Further: f}
	r := arch.Request{Bare: !f.Logits, From: f.Pass.From}
	var err error
	if r.Maps, err = p.requested(f.Maps); err != nil {
		return nil, err
	}
	if f.Pass.Move != nil {
		q.given = make([]float32, p.options.MaxBatch*p.imageSize())
	}
	if q.second, err = p.extractor(r); err != nil {
		return nil, err
	}
	p.passes = append(p.passes, q)
	return q, nil
}

// planGradients plans those that a phase's passes need. Phases that need the same
// share them.
func (p *Probe) planGradients(l *plan) error {
	var layers [][]detector.Loss
	for _, q := range l.passes {
		loss := q.Pass.Loss
		if q.Pass.Move == nil || slices.ContainsFunc(layers, func(of []detector.Loss) bool { return slices.Contains(of, loss) }) {
			continue
		}
		i := slices.IndexFunc(layers, func(of []detector.Loss) bool { return of[0].Layer() == loss.Layer() })
		if i < 0 {
			i, layers = len(layers), append(layers, nil)
		}
		layers[i] = append(layers[i], loss)
	}
	for _, losses := range layers {
		i := slices.IndexFunc(p.gradients, func(g *gradients) bool { return slices.Equal(g.losses, losses) })
		if i < 0 {
			var r arch.Request
			r.Bare = true
			for _, loss := range losses {
				r.Losses = append(r.Losses, arch.Loss{Layer: loss.Layer(), Gradient: loss.Gradient})
			}
			e, err := p.extractor(r)
			if err != nil {
				return err
			}
			i, p.gradients = len(p.gradients), append(p.gradients, &gradients{losses: losses, extractor: e})
		}
		l.gradients = append(l.gradients, p.gradients[i])
	}
	return nil
}

// run computes the gradients for the first n images.
func (g *gradients) run(images []float32, n int) error {
	start := time.Now()
	out, err := g.extractor.Run(images, n)
	if err != nil {
		return err
	}
	for _, of := range out.InputGradients {
		if slices.ContainsFunc(of, func(v float32) bool { return v != v || math.IsInf(float64(v), 0) }) {
			return errors.New("probe: the gradient of an image is not finite; are checkpoint, mean and std the right ones?")
		}
	}
	g.of, g.seconds = out.InputGradients, time.Since(start).Seconds()/float64(len(g.losses))
	return nil
}

// gradient returns those that a loss is among, and its place.
func (l *plan) gradient(loss detector.Loss) (g *gradients, i int) {
	for _, g := range l.gradients {
		if i := slices.Index(g.losses, loss); i >= 0 {
			return g, i
		}
	}
	panic("probe: a loss that was not planned")
}

func (p *Probe) extractor(r arch.Request) (*arch.Extractor, error) {
	r.Kernel = p.options.Kernel
	return p.model.NewExtractor(r, p.options.MaxBatch, p.options.Workers)
}

// requested translates maps for the network.
func (p *Probe) requested(maps []detector.Map) (r []arch.Map, err error) {
	for _, m := range maps {
		layer, ok := p.places[m.Layer]
		if !ok {
			return nil, fmt.Errorf("probe: %s has no layer, stage or convolution %q", p.model.Name, m.Layer)
		}
		r = append(r, arch.Map{Layer: m.Layer, Size: m.Reduction.Size(layer), Reduce: func(activation, dst []float32) {
			m.Reduction.Reduce(activation, layer, dst)
		}})
	}
	return r, nil
}

func (p *Probe) imageSize() int {
	return p.model.InputSize[0] * p.model.InputSize[1] * p.model.InputSize[2]
}

// Network describes the model.
func (p *Probe) Network() detector.Network { return p.network }

// Needs returns what is computed in a phase.
func (p *Probe) Needs(phase detector.Phase) detector.Needs { return p.plans[phase].needs }

// Run computes what a phase needs of the first n images, given as float32 NCHW. The
// result, without labels, is valid until the next run. What an image yields does not
// depend on the others.
func (p *Probe) Run(images []float32, n int, phase detector.Phase) (*detector.Inputs, error) {
	l := p.plans[phase]
	out, err := l.first.Run(images, n)
	if err != nil {
		return nil, err
	}
	take(&l.in, out, l.maps)
	for _, g := range l.gradients {
		if err := g.run(images, n); err != nil {
			return nil, err
		}
	}
	l.in.Passes = l.in.Passes[:0]
	for _, q := range l.passes {
		start := time.Now()
		if err := p.run(l, q, images, n); err != nil {
			return nil, err
		}
		took := time.Since(start).Seconds()
		if q.Pass.Move != nil {
			g, _ := l.gradient(q.Pass.Loss)
			took += g.seconds
		}
		l.in.Passes = append(l.in.Passes, detector.PassInputs{Pass: q.Pass, Inputs: &q.in, Seconds: took})
	}
	return &l.in, nil
}

// run makes a further pass.
func (p *Probe) run(l *plan, q *pass, images []float32, n int) error {
	given := images
	switch {
	case q.Pass.Change != nil:
		i := slices.IndexFunc(l.in.Maps, func(m detector.MapValues) bool { return m.Map == q.Pass.Start() })
		given = l.in.Maps[i].Values
	case q.Pass.Move != nil:
		g, of := l.gradient(q.Pass.Loss)
		size := p.imageSize()
		for i := range n {
			q.Pass.Move.Apply(images[i*size:][:size], g.of[of][i*size:][:size], q.given[i*size:][:size], p.model.InputSize[0])
		}
		given = q.given
	}
	out, err := q.second.Run(given, n)
	if err != nil {
		return err
	}
	take(&q.in, out, q.Maps)
	return nil
}

// take makes a network's output a detector's input.
func take(in *detector.Inputs, out *arch.Batch, maps []detector.Map) {
	in.N, in.Logits, in.Feature, in.Labels = out.N, out.Logits, out.Feature, nil
	in.States, in.Maps = in.States[:0], in.Maps[:0]
	for _, s := range out.States {
		in.States = append(in.States, coverage.States{Layer: s.Name, Z: s.Z, G: s.G})
	}
	for i, m := range maps {
		in.Maps = append(in.Maps, detector.MapValues{Map: m, Values: out.Maps[i]})
	}
}

// Split returns two probes that share p's weights and memory and have half of its
// workers each. They may run side by side, but not while p runs. There are none if p
// has one worker, or runs fewer images than it has workers.
func (p *Probe) Split() []*Probe {
	halves := [2]*Probe{}
	for i := range halves {
		q := *p
		q.passes, q.gradients = slices.Clone(p.passes), slices.Clone(p.gradients)
		halves[i] = &q
	}
	extractors := map[*arch.Extractor][]*arch.Extractor{}
	half := func(e *arch.Extractor, i int) *arch.Extractor {
		if extractors[e] == nil {
			extractors[e] = e.Split()
		}
		if extractors[e] == nil {
			return nil
		}
		return extractors[e][i]
	}
	for i, q := range halves {
		for k, g := range p.gradients {
			q.gradients[k] = &gradients{losses: g.losses, extractor: half(g.extractor, i)}
		}
		for k, a := range p.passes {
			q.passes[k] = &pass{Further: a.Further, second: half(a.second, i), given: make([]float32, len(a.given))}
		}
		for k, l := range p.plans {
			if j := slices.Index(p.plans[:k], l); j >= 0 {
				q.plans[k] = q.plans[j]
				continue
			}
			m := &plan{needs: l.needs, first: half(l.first, i), maps: l.maps}
			for _, a := range l.passes {
				m.passes = append(m.passes, q.passes[slices.Index(p.passes, a)])
			}
			for _, a := range l.gradients {
				m.gradients = append(m.gradients, q.gradients[slices.Index(p.gradients, a)])
			}
			if m.first == nil {
				return nil
			}
			q.plans[k] = m
		}
	}
	return halves[:]
}

// MemoryBytes is what the probe holds: working memory and packed weights.
func (p *Probe) MemoryBytes() (n int64) {
	held := map[*arch.Extractor]bool{}
	for _, l := range p.plans {
		held[l.first] = true
	}
	for _, q := range p.passes {
		held[q.second] = true
		n += 4 * int64(len(q.given))
	}
	for _, g := range p.gradients {
		held[g.extractor] = true
	}
	for e := range held {
		n += e.MemoryBytes()
	}
	return n
}

package openood

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"nac/arch"
	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/metric"
	"nac/states"
)

// Extractor is what Extract needs of a network; arch.Extractor is one.
type Extractor interface {
	Run(images []float32, n int) (*arch.Batch, error)
	MemoryBytes() int64
}

// Probe is what the runner needs of a network; probe.Probe is one.
type Probe interface {
	// Run computes what a phase needs of images; see probe.Probe.
	Run(images []float32, n int, phase detector.Phase) (*detector.Inputs, error)
	Network() detector.Network
	Needs(phase detector.Phase) detector.Needs
	MemoryBytes() int64
}

// Method is a detector with its name in tables.
type Method struct {
	Key      string
	Detector detector.Detector
}

// Progress is told how a run goes on. Methods are called from one goroutine.
type Progress interface {
	// Estimated is called once, before the long work.
	Estimated(Estimate)
	// Begin is called before each set, Advance after each batch.
	Begin(set string, images int)
	Advance(images int)
	End()
}

// Estimate is what a run will take, from a batch that was timed.
type Estimate struct {
	Images          int     // of all sets
	ImagesPerSecond float64 // of the network alone
	Seconds         float64
	MemoryBytes     int64 // of network, loader, scores; the Go runtime comes on top
}

// Run fits the methods on the training images and scores every set. It stops
// with the context's error when that is done.
func Run(ctx context.Context, data *Data, network Probe, methods []Method, progress Progress) (*Report, error) {
	if len(methods) == 0 {
		return nil, errors.New("openood: no detectors")
	}
	if data.Test == nil {
		return nil, errors.New("openood: no ID test images")
	}
	r := &runner{ctx: ctx, network: network.Network(), probe: network, methods: methods, progress: progress}
	r.report.Absent, r.report.Partial, r.report.Cache = data.Absent, data.Partial, data.CacheDir
	r.cost = make([]MethodCost, len(methods))
	if err := r.estimate(data); err != nil {
		return nil, err
	}
	if err := r.fit(data); err != nil {
		return nil, err
	}
	for i, m := range methods {
		var err error
		if r.cost[i].StateBytes, err = detector.StateBytes(m.Detector); err != nil {
			return nil, err
		}
	}
	var sub, val, test *SetScores
	var err error
	if data.SubTrain != nil {
		if sub, err = r.score("sub_train", data.SubTrain, data.SubIndices); err != nil {
			return nil, err
		}
	}
	if val, err = r.score("val", data.Val, nil); err != nil {
		return nil, err
	}
	if test, err = r.score("test", data.Test, nil); err != nil {
		return nil, err
	}
	var groups [3][]*SetScores
	for i, sets := range [...][]Images{data.CSID, data.Near, data.Far} {
		for _, set := range sets {
			s, err := r.score(set.Name, set.Source, nil)
			if err != nil {
				return nil, err
			}
			groups[i] = append(groups[i], s)
		}
	}
	if err := r.evaluate(sub, val, test, groups[0], groups[1], groups[2]); err != nil {
		return nil, err
	}
	return &r.report, nil
}

type runner struct {
	ctx      context.Context
	network  detector.Network
	probe    Probe
	methods  []Method
	progress Progress
	report   Report
	inputs   detector.Inputs
	cost     []MethodCost
}

// estimateImages are how many images are run to see how long one takes.
const estimateImages = 16

// estimate times some training images, twice: the first time pays for touching memory.
func (r *runner) estimate(data *Data) error {
	count := func(s Source, indices []int) int {
		if s == nil {
			return 0
		}
		if indices != nil {
			return len(indices)
		}
		return len(s.Labels())
	}
	images := count(data.Train, data.TrainIndices) + count(data.SubTrain, data.SubIndices) + count(data.Val, nil) + count(data.Test, nil)
	for _, set := range slices.Concat(data.Near, data.Far, data.CSID) {
		images += count(set.Source, nil)
	}
	if learns[detector.ValidationFitter](r.methods) {
		images += count(data.Val, nil)
	}
	if learns[detector.OODValidationFitter](r.methods) {
		images += count(data.ValOOD, nil)
	}
	// Of a set that is not in a cache; if all are, there is no network to time.
	first, indices, found := data.Train, data.TrainIndices, false
	data.parts(func(_, _ string, s *Source, i *[]int) {
		phase := detector.Scoring
		if s == &data.Train {
			phase = detector.Fitting
		}
		if _, ok := (*s).(*cached); (!ok || r.probe.Needs(phase).Images()) && !found && s != &data.ValOOD {
			first, indices, found = *s, *i, true
		}
	})
	if !found {
		r.estimated(data, Estimate{Images: images})
		return nil
	}
	stream := first.Open(r.ctx, indices)
	defer stream.Close()
	b, err := stream.Next()
	if errors.Is(err, io.EOF) {
		return errors.New("openood: no training image could be read")
	}
	if err != nil {
		return err
	}
	var took time.Duration
	n := min(b.N, estimateImages)
	for range 2 {
		start := time.Now()
		if _, err := r.probe.Run(b.Images, n, detector.Fitting); err != nil {
			return err
		}
		took = time.Since(start)
	}
	e := Estimate{Images: images, ImagesPerSecond: float64(n) / took.Seconds()}
	e.Seconds = float64(images) / e.ImagesPerSecond
	e.MemoryBytes = r.probe.MemoryBytes() + data.Train.MemoryBytes()
	r.estimated(data, e)
	return nil
}

// estimated adds what does not depend on the network.
func (r *runner) estimated(data *Data, e Estimate) {
	e.MemoryBytes += 8 * int64(e.Images) * int64(len(r.methods)+1)
	if data.CacheDir != "" {
		e.MemoryBytes += states.ReaderMemory
	}
	for _, l := range r.layerSettings() {
		// Counts, and the table of coverages that scoring reads.
		e.MemoryBytes += 2 * 4 * int64(l.M) * int64(r.network.Channels[l.Layer])
	}
	r.report.Estimate = e
	if r.progress != nil {
		r.progress.Estimated(e)
	}
}

func (r *runner) layerSettings() (s []coverage.LayerSettings) {
	for _, m := range r.methods {
		s = append(s, m.Detector.Settings().Layers...)
	}
	return s
}

// each runs the network over a set and gives every batch to f.
func (r *runner) each(name string, phase detector.Phase, s Source, indices []int, f func(b *imageset.Batch, in *detector.Inputs) error) error {
	total := len(indices)
	if indices == nil {
		total = len(s.Labels())
	}
	stage := Stage{Set: name}
	if r.progress != nil {
		r.progress.Begin(name, total)
		defer r.progress.End()
	}
	if c, ok := s.(*cached); ok {
		needs := r.probe.Needs(phase)
		if !needs.Images() {
			return r.eachCached(stage, c, needs, f)
		}
		s = &c.subset // a cache has not all that is needed
	}
	stream := s.Open(r.ctx, indices)
	defer stream.Close()
	begin := time.Now()
	for {
		start := time.Now()
		b, err := stream.Next()
		stage.WaitSeconds += time.Since(start).Seconds()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		start = time.Now()
		in, err := r.probe.Run(b.Images, b.N, phase)
		if err != nil {
			return fmt.Errorf("openood: %s: %w", name, err)
		}
		stage.NetworkSeconds += time.Since(start).Seconds()
		start = time.Now()
		if err := f(b, in); err != nil {
			return fmt.Errorf("openood: %s: %w", name, err)
		}
		stage.DetectorSeconds += time.Since(start).Seconds()
		stage.Images += b.N
		if r.progress != nil {
			r.progress.Advance(b.N)
		}
		b.Release()
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	if stage.Images == 0 {
		return fmt.Errorf("openood: %s: no image could be read", name)
	}
	stage.Seconds = time.Since(begin).Seconds()
	r.report.Stages = append(r.report.Stages, stage)
	for _, err := range stream.Skipped() {
		r.report.Skipped = append(r.report.Skipped, err.Error())
	}
	return nil
}

// eachCached is each for a set that is read from a cache.
func (r *runner) eachCached(stage Stage, c *cached, needs detector.Needs, f func(b *imageset.Batch, in *detector.Inputs) error) error {
	stage.Cached = true
	begin := time.Now()
	err := c.outputs(r.ctx, needs, func(b *imageset.Batch, out *arch.Batch) error {
		start := time.Now()
		if err := f(b, r.take(out)); err != nil {
			return fmt.Errorf("openood: %s: %w", stage.Set, err)
		}
		stage.DetectorSeconds += time.Since(start).Seconds()
		stage.Images += b.N
		if r.progress != nil {
			r.progress.Advance(b.N)
		}
		return nil
	})
	if err != nil {
		return err
	}
	stage.Seconds = time.Since(begin).Seconds()
	stage.WaitSeconds = stage.Seconds - stage.DetectorSeconds
	r.report.Stages = append(r.report.Stages, stage)
	for _, s := range c.set.Skipped() {
		r.report.Skipped = append(r.report.Skipped, s.Reason)
	}
	return nil
}

// take makes what a cache holds of images a detector's input.
func (r *runner) take(out *arch.Batch) *detector.Inputs {
	in := &r.inputs
	in.N, in.Logits, in.Feature, in.Labels = out.N, out.Logits, out.Feature, nil
	in.States = in.States[:0]
	for _, s := range out.States {
		in.States = append(in.States, coverage.States{Layer: s.Name, Z: s.Z, G: s.G})
	}
	return in
}

func (r *runner) fit(data *Data) error {
	for _, m := range r.methods {
		if err := m.Detector.Begin(r.network); err != nil {
			return err
		}
	}
	err := r.each("train", detector.Fitting, data.Train, data.TrainIndices, func(b *imageset.Batch, in *detector.Inputs) error {
		if err := finite(in.Logits); err != nil {
			return err
		}
		in.Labels = b.Labels
		for i, m := range r.methods {
			start := time.Now()
			if err := m.Detector.Fit(in); err != nil {
				return err
			}
			r.cost[i].FitSeconds += time.Since(start).Seconds()
		}
		r.report.TrainImages += in.N
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.fitValidation(data); err != nil {
		return err
	}
	for i, m := range r.methods {
		start := time.Now()
		if err := m.Detector.End(); err != nil {
			return err
		}
		r.cost[i].FitSeconds += time.Since(start).Seconds()
	}
	return nil
}

// fitValidation gives validation images to those methods that learn from them.
func (r *runner) fitValidation(data *Data) error {
	if learns[detector.ValidationFitter](r.methods) {
		if err := fitOn(r, "val, to fit", data.Val, detector.ValidationFitter.FitValidation); err != nil {
			return err
		}
	}
	if data.ValOOD != nil && learns[detector.OODValidationFitter](r.methods) {
		return fitOn(r, "val_ood, to fit", data.ValOOD, detector.OODValidationFitter.FitOODValidation)
	}
	return nil
}

// learns tells whether one of the methods is a T.
func learns[T any](methods []Method) bool {
	return slices.ContainsFunc(methods, func(m Method) bool { _, is := m.Detector.(T); return is })
}

// fitOn gives a set's images to the methods that are T.
func fitOn[T any](r *runner, name string, s Source, fit func(T, *detector.Inputs) error) error {
	return r.each(name, detector.Validating, s, nil, func(b *imageset.Batch, in *detector.Inputs) error {
		if err := finite(in.Logits); err != nil {
			return err
		}
		in.Labels = b.Labels
		for i, m := range r.methods {
			d, ok := m.Detector.(T)
			if !ok {
				continue
			}
			start := time.Now()
			if err := fit(d, in); err != nil {
				return err
			}
			r.cost[i].FitSeconds += time.Since(start).Seconds()
		}
		return nil
	})
}

func (r *runner) score(name string, s Source, indices []int) (*SetScores, error) {
	set := &SetScores{Set: name}
	for _, m := range r.methods {
		set.Scores = append(set.Scores, MethodScores{Key: m.Key})
	}
	err := r.each(name, detector.Scoring, s, indices, func(b *imageset.Batch, in *detector.Inputs) error {
		if err := finite(in.Logits); err != nil {
			return err
		}
		from := len(set.Labels)
		for _, i := range b.Index {
			if indices != nil {
				i = indices[i]
			}
			set.Paths = append(set.Paths, s.Path(i))
		}
		set.Labels = append(set.Labels, b.Labels...)
		set.Predictions = append(set.Predictions, make([]int, b.N)...)
		detector.Predictions(in.Logits, r.network.Classes, set.Predictions[from:])
		for i, m := range r.methods {
			start := time.Now()
			dst := append(set.Scores[i].Values, make([]float64, b.N)...)
			if err := m.Detector.Score(in, dst[from:]); err != nil {
				return err
			}
			set.Scores[i].Values = dst
			r.cost[i].ScoreSeconds += time.Since(start).Seconds()
		}
		r.addPasses(in)
		return nil
	})
	r.report.Scores = append(r.report.Scores, set)
	return set, err
}

// addPasses adds the time of the further passes to each method that asked for them.
func (r *runner) addPasses(in *detector.Inputs) {
	for _, p := range in.Passes {
		for i, m := range r.methods {
			for _, f := range m.Detector.Needs(r.network, detector.Scoring).Passes {
				if f.Pass == p.Pass {
					r.cost[i].PassSeconds += p.Seconds
				}
			}
		}
	}
}

// finite guards against a network that overflows: its scores would sort
// somewhere and look like a result.
func finite(logits []float32) error {
	for _, v := range logits {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return errors.New("the network's logits are not finite; are checkpoint, mean and std the right ones?")
		}
	}
	return nil
}

func (r *runner) evaluate(sub, val, test *SetScores, csid, near, far []*SetScores) error {
	rep := &r.report
	rep.Accuracy = Accuracy{
		Test: metric.Accuracy(test.Predictions, test.Labels), TestImages: len(test.Labels),
		Val: metric.Accuracy(val.Predictions, val.Labels), ValImages: len(val.Labels),
	}
	rep.Accuracy.addCSID(test, csid)
	for i, m := range r.methods {
		result := MethodResult{Key: m.Key, Settings: m.Detector.Settings(), Cost: r.cost[i]}
		id := test.Scores[i].Values
		group := func(sets []*SetScores) (rows []Row, mean *metric.Result, err error) {
			var results []metric.Result
			for _, s := range sets {
				res, err := metric.OOD(id, s.Scores[i].Values)
				if err != nil {
					return nil, nil, fmt.Errorf("openood: %s: %s: %w", m.Key, s.Set, err)
				}
				rows = append(rows, Row{s.Set, len(s.Labels), res})
				results = append(results, res)
			}
			if len(results) > 0 {
				m := metric.Mean(results)
				mean = &m
			}
			return rows, mean, nil
		}
		var err error
		if result.Near, result.NearMean, err = group(near); err != nil {
			return err
		}
		if result.Far, result.FarMean, err = group(far); err != nil {
			return err
		}
		if len(csid) > 0 {
			id = slices.Clone(id)
			for _, s := range csid {
				id = append(id, s.Scores[i].Values...)
			}
			full := new(FullSpectrum)
			if full.Near, full.NearMean, err = group(near); err != nil {
				return err
			}
			if full.Far, full.FarMean, err = group(far); err != nil {
				return err
			}
			result.FullSpectrum = full
		}
		if sub != nil {
			if result.Overfit, err = overfit(sub.Scores[i].Values, val.Scores[i].Values); err != nil {
				return fmt.Errorf("openood: %s: overfitting check: %w", m.Key, err)
			}
		}
		rep.Methods = append(rep.Methods, result)
	}
	return nil
}

// addCSID adds the accuracy on covariate-shifted ID sets.
func (a *Accuracy) addCSID(test *SetScores, csid []*SetScores) {
	if len(csid) == 0 {
		return
	}
	predictions, labels := slices.Clone(test.Predictions), slices.Clone(test.Labels)
	for _, s := range csid {
		a.CSID = append(a.CSID, SetAccuracy{s.Set, len(s.Labels), metric.Accuracy(s.Predictions, s.Labels)})
		predictions, labels = append(predictions, s.Predictions...), append(labels, s.Labels...)
	}
	a.FullSpectrum = metric.Accuracy(predictions, labels)
}

// overfit compares ID training images that were not fitted on with ID validation
// images. A detector that has learnt the training images by heart, or that reads
// differences of how the two were made, tells them apart.
func overfit(sub, val []float64) (*Overfit, error) {
	a, err := metric.AUROC(sub, val)
	if err != nil {
		return nil, err
	}
	// The spread of an AUROC of 0.5 by chance (Mann and Whitney, 1947).
	n, m := float64(len(sub)), float64(len(val))
	o := &Overfit{AUROC: a, StandardError: math.Sqrt((n + m + 1) / (12 * n * m))}
	o.Warn = math.Abs(a-0.5) > math.Max(overfitMargin, 3*o.StandardError)
	return o, nil
}

// overfitMargin is how far from 0.5 the check may stray: a network is a little
// surer of images it was trained on.
const overfitMargin = 0.05

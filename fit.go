package nac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/metric"
	"nac/probe"
	"nac/states"
)

// FitOptions are the settings of Fit; the zero value chooses everything itself.
type FitOptions struct {
	// Detector is a key of package detector. If it is empty, it is nac_auto, or nac for a
	// network that does not end in a linear layer.
	Detector string
	// Settings are the detector's. Nac's layers, if there are none here, are chosen by a
	// rule that reads ID images alone: see the package's documentation of own models.
	Settings detector.Settings
	// Layers names the layers that the detector reads when Settings names none;
	// [arch.Model.Suggested] if empty.
	Layers []string
	// Like is a detector of the same model whose settings and transform are taken, so
	// that the two can be merged.
	Like *Detector
	// Transform turns files into the network's images. If sizes are 0, they are those
	// of the model; if Mean and Std are, the usual ones are tried, and that taken with
	// which the network classifies best: see Info.Fit.Normalizations.
	Transform imageset.Transform
	// Calibration are ID images to calibrate on, best ones that the model was not trained
	// on: it tends to be surer of those it was, and the false alarms among new
	// images are then more than the rate. Without any, a fifth of the images is held out.
	Calibration imageset.List
	// ValOOD are OOD images to choose settings by; see Info.Fit.Tried.
	ValOOD imageset.List
	// Images is the most images that are fitted on, 10,000 if 0; CalibrationImages the
	// most that are calibrated on, 2,000 if 0. They are chosen at random by Seed.
	Images, CalibrationImages int
	Seed                      uint64
	// Rate is the false-alarm rate, 0.05 if 0.
	Rate float64
	// PerClass compares an image with the calibration images of its predicted class.
	PerClass bool
	// OnError says what to do about an image that cannot be read.
	OnError imageset.OnError
	// Progress, if not nil, is told after each batch of a stage.
	Progress func(stage string, done, total int)
}

const (
	// On networks that nac's settings were not searched for, nac_auto tells far more OOD
	// images: see docs/nac-auto.md.
	usualDetector      = "nac_auto"
	defaultImages      = 10_000
	defaultCalibration = 2_000
	defaultRate        = 0.05
	mostValidation     = 1_000
)

// defaults fills in what is not set and checks the rest.
func (o *FitOptions) defaults(m *Model) error {
	if o.Like != nil {
		if why := o.Like.info.Model.differs(m.Info()); why != "" {
			return fmt.Errorf("nac: the detector whose settings are taken is of another model: %s", why)
		}
		o.Detector, o.Settings, o.Transform = o.Like.info.Detector, o.Like.info.Settings, o.Like.info.Transform
	}
	if o.Detector == "" {
		o.Detector = usualDetector
		if len(m.network.Head().Weight) == 0 {
			o.Detector = "nac"
		}
	}
	if len(o.Layers) == 0 {
		o.Layers = m.network.Suggested()
	}
	if len(o.Settings.Layers)+len(o.Settings.LayerNames) == 0 {
		o.Settings.LayerNames = o.Layers
	}
	if o.Transform.Resize == 0 && o.Transform.Crop == 0 {
		t, err := defaultTransform(m.info)
		if err != nil {
			return err
		}
		o.Transform.Resize, o.Transform.Crop = t.Resize, t.Crop
	}
	if h, w := o.Transform.Size(); h > 0 && [3]int{3, h, w} != m.info.Input {
		return fmt.Errorf("nac: %s takes images of %v, the transform makes 3x%dx%d", m.info.Name, m.info.Input, h, w)
	}
	if o.Images == 0 {
		o.Images = defaultImages
	}
	if o.CalibrationImages == 0 {
		o.CalibrationImages = defaultCalibration
	}
	if o.Rate == 0 {
		o.Rate = defaultRate
	}
	if o.Images < 0 || o.CalibrationImages < 0 {
		return fmt.Errorf("nac: %d images to fit on and %d to calibrate on: want positive numbers", o.Images, o.CalibrationImages)
	}
	if !(o.Rate > 0 && o.Rate < 1) {
		return fmt.Errorf("nac: a false-alarm rate of %v; it must be above 0 and below 1", o.Rate)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}

// Fit makes a detector for the model of ID images. Memory does not grow with their
// number, except as the detector's own does.
func Fit(ctx context.Context, m *Model, images imageset.List, o FitOptions) (*Detector, error) {
	if err := o.defaults(m); err != nil {
		return nil, err
	}
	f, err := newFitter(ctx, m, images, &o)
	if err != nil {
		return nil, err
	}
	if err := f.candidates(); err != nil {
		return nil, err
	}
	return f.finish()
}

// newFitter divides the images among fitting and calibrating, and finds the
// transform.
func newFitter(ctx context.Context, m *Model, images imageset.List, o *FitOptions) (*fitter, error) {
	f := &fitter{ctx: ctx, model: m, o: o, network: probe.NetworkOf(m.network, o.Transform.Std), asGiven: o.Like != nil}
	f.info = Info{Model: m.Info(), Transform: o.Transform, Detector: o.Detector, PerClass: o.PerClass}
	f.info.Fit.Sources = []string{images.Name}
	if len(images.Classes) == m.info.Classes {
		f.info.Classes = images.Classes
	}
	if err := f.split(images); err != nil {
		return nil, err
	}
	if o.Transform.Std == ([3]float32{}) {
		if err := f.normalize(); err != nil {
			return nil, err
		}
		f.network.Std = o.Transform.Std
	}
	return f, nil
}

// finish makes the detector of those that candidates made.
func (f *fitter) finish() (*Detector, error) {
	if err := f.fit(); err != nil {
		return nil, err
	}
	best := 0
	if len(f.valOOD.Items) > 0 {
		var err error
		if best, err = f.choose(); err != nil {
			return nil, err
		}
	}
	return f.calibrate(f.fitting[best])
}

// fitter is a run of Fit.
type fitter struct {
	ctx     context.Context
	model   *Model
	o       *FitOptions
	network detector.Network
	info    Info
	asGiven bool // settings are those of Like

	train, val, calibration, valOOD fitSet
	// stored is what the network yielded, and counted what was counted, if that was done
	// before; see FitShards.
	stored  map[string]*states.Joined
	counted []*coverage.Coverage
	// kept are what the network yielded for the first training images, which the rule
	// for nac's settings reads.
	kept    []*detector.Inputs
	keptN   int
	fitting []detector.Detector
}

// fitSet is a list of images that have one use, or part of it.
type fitSet struct {
	imageset.List
	name  string
	first int // position of the first image in the whole set
}

// The names of the sets.
const (
	trainSet       = "train"
	valSet         = "validation"
	calibrationSet = "calibration"
	valOODSet      = "validation_ood"
)

// from returns the images from the n-th on, upTo those before it.
func (s fitSet) from(n int) fitSet {
	s.Items, s.first = s.Items[n:], s.first+n
	return s
}

func (s fitSet) upTo(n int) fitSet {
	s.Items = s.Items[:n]
	return s
}

// split chooses at random which images are fitted on, validated on and calibrated on.
func (f *fitter) split(images imageset.List) error {
	all := f.labelled(images)
	order := rand.New(rand.NewPCG(f.o.Seed, 0)).Perm(len(all.Items))
	take := func(name string, n int) fitSet {
		s := fitSet{List: all, name: name}
		s.Items = make([]imageset.Item, n)
		for i := range s.Items {
			s.Items[i] = all.Items[order[i]]
		}
		order = order[n:]
		return s
	}
	f.valOOD = fitSet{List: f.o.ValOOD, name: valOODSet}
	if given := f.o.Calibration; len(given.Items) > 0 {
		f.calibration = fitSet{List: f.labelled(given), name: calibrationSet}
		if n := f.o.CalibrationImages; len(given.Items) > n {
			f.calibration.Items = make([]imageset.Item, n)
			for i, j := range rand.New(rand.NewPCG(f.o.Seed, 1)).Perm(len(given.Items))[:n] {
				f.calibration.Items[i] = given.Items[j]
			}
		}
	} else {
		f.calibration = take(calibrationSet, min(len(all.Items)/5, f.o.CalibrationImages))
	}
	if n := len(f.calibration.Items); rankOf(f.o.Rate, n) < 1 {
		return fmt.Errorf("nac: a false-alarm rate of %v needs at least %d calibration images; there are %d, of %d ID images in %s. Give more images, or a higher rate",
			f.o.Rate, leastImages(f.o.Rate), n, len(images.Items), images.Name)
	}
	learns, err := detector.New(f.o.Detector, f.anySettings())
	if err != nil {
		return err
	}
	if _, ok := learns.(detector.ValidationFitter); ok || len(f.valOOD.Items) > 0 {
		f.val = take(valSet, min(len(all.Items)/10, mostValidation))
		if len(f.val.Items) == 0 {
			return fmt.Errorf("nac: %d ID images in %s are too few to validate on", len(all.Items), images.Name)
		}
	}
	f.train = take(trainSet, min(len(order), f.o.Images))
	if len(f.train.Items) == 0 {
		return fmt.Errorf("nac: no images to fit on in %s", images.Name)
	}
	return nil
}

// labelled returns the list with only such labels as are classes of the model.
func (f *fitter) labelled(list imageset.List) imageset.List {
	k := f.model.info.Classes
	known := list.Classes == nil || len(list.Classes) == k
	for _, item := range list.Items {
		known = known && item.Label < k
	}
	if known {
		return list
	}
	// Folders or numbers of something else than the model's classes.
	list.Items = slices.Clone(list.Items)
	for i := range list.Items {
		list.Items[i].Label = imageset.Unlabelled
	}
	return list
}

// engine makes one for a phase, nil if nothing is to be run.
func (f *fitter) engine(p detector.Phase, needs probe.Needs) (*engine, error) {
	if f.stored != nil {
		return nil, nil
	}
	return newEngine(f.model, f.o.Transform, p, needs)
}

// pass runs the network over a list and gives every batch to take.
func (f *fitter) pass(stage string, list fitSet, e *engine, take func(b *imageset.Batch, in *detector.Inputs) error) error {
	if f.stored != nil {
		return f.replay(stage, list, take)
	}
	var loader *imageset.Loader
	if err := f.load(stage, list, e, func(l *imageset.Loader) { loader = l }, take); err != nil {
		return err
	}
	return f.skipped(list, loader.Skipped())
}

// load runs the network over a list, and tells begin of the loader.
func (f *fitter) load(stage string, list fitSet, e *engine, begin func(*imageset.Loader), take func(b *imageset.Batch, in *detector.Inputs) error) error {
	in := f.model.info.Input
	loader := imageset.Load(f.ctx, list.List, imageset.LoadOptions{
		Transform: f.o.Transform, Height: in[1], Width: in[2], BatchSize: batchImages, OnError: f.o.OnError,
	})
	defer loader.Close()
	begin(loader)
	done := 0
	f.o.Progress(stage, 0, len(list.Items))
	for {
		b, err := loader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		err = e.run(f.ctx, b.Images, b.N, func(in *detector.Inputs) error {
			for i := range in.N {
				if _, _, err := classify(in.Logits[i*f.network.Classes : (i+1)*f.network.Classes]); err != nil {
					return fmt.Errorf("%s: %w", list.Items[b.Index[i]].Path, err)
				}
			}
			in.Labels = b.Labels
			return take(b, in)
		})
		if err != nil {
			return err
		}
		done = b.Index[b.N-1] + 1
		f.o.Progress(stage, done, len(list.Items))
		b.Release()
	}
	return nil
}

// skipped notes the images of a list that could not be read.
func (f *fitter) skipped(list fitSet, why []error) error {
	f.info.Fit.Skipped += len(why)
	if len(why) == len(list.Items) {
		return fmt.Errorf("nac: none of the images of %s can be read, the first because: %w", list.Name, why[0])
	}
	return nil
}

// fit fits the detectors of all candidates in one pass.
func (f *fitter) fit() error {
	for _, d := range f.fitting {
		if err := d.Begin(f.network); err != nil {
			return err
		}
	}
	if f.counted != nil {
		return f.addCounts()
	}
	e, err := f.engine(detector.Fitting, probe.For(f.fitting...))
	if err != nil {
		return err
	}
	take := func(in *detector.Inputs) error {
		for _, d := range f.fitting {
			if err := d.Fit(in); err != nil {
				return f.explain(err)
			}
		}
		f.info.Fit.Images += in.N
		return nil
	}
	for _, in := range f.kept {
		if err := take(in); err != nil {
			return err
		}
	}
	f.kept = nil
	if f.keptN < len(f.train.Items) {
		if err := f.pass("fit", f.train.from(f.keptN), e, func(_ *imageset.Batch, in *detector.Inputs) error { return take(in) }); err != nil {
			return err
		}
	}
	if _, ok := f.fitting[0].(detector.ValidationFitter); ok {
		if e, err = f.engine(detector.Validating, probe.For(f.fitting...)); err != nil {
			return err
		}
		err := f.pass("validate", f.val, e, func(_ *imageset.Batch, in *detector.Inputs) error {
			for _, d := range f.fitting {
				if err := d.(detector.ValidationFitter).FitValidation(in); err != nil {
					return f.explain(err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if _, ok := f.fitting[0].(detector.OODValidationFitter); ok && len(f.valOOD.Items) > 0 {
		err := f.pass("validate, OOD", f.valOOD, e, func(_ *imageset.Batch, in *detector.Inputs) error {
			for _, d := range f.fitting {
				if err := d.(detector.OODValidationFitter).FitOODValidation(in); err != nil {
					return f.explain(err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, d := range f.fitting {
		if err := d.End(); err != nil {
			return f.explain(err)
		}
	}
	return nil
}

// explain adds to a detector's error what the user can do about it.
func (f *fitter) explain(err error) error {
	for _, item := range f.train.Items {
		if item.Label < 0 {
			return fmt.Errorf("%w (the ID images have no labels that are classes of the model, which some detectors need; %s does without)", err, usualDetector)
		}
	}
	return err
}

// choose returns the fitted candidate that best tells ID from OOD validation images.
func (f *fitter) choose() (int, error) {
	e, err := f.engine(detector.Scoring, probe.For(f.fitting...))
	if err != nil {
		return 0, err
	}
	score := func(stage string, list fitSet) ([][]float64, error) {
		scores := make([][]float64, len(f.fitting))
		err := f.pass(stage, list, e, func(_ *imageset.Batch, in *detector.Inputs) error {
			in.Labels = nil
			for i, d := range f.fitting {
				at := len(scores[i])
				scores[i] = append(scores[i], make([]float64, in.N)...)
				if err := d.Score(in, scores[i][at:]); err != nil {
					return err
				}
			}
			return nil
		})
		return scores, err
	}
	id, err := score("choose, ID", f.val)
	if err != nil {
		return 0, err
	}
	ood, err := score("choose, OOD", f.valOOD)
	if err != nil {
		return 0, err
	}
	best := 0
	trials := make([]Trial, len(f.fitting))
	for i, d := range f.fitting {
		trials[i].Settings = d.Settings()
		if trials[i].AUROC, err = metric.AUROC(id[i], ood[i]); err != nil {
			return 0, fmt.Errorf("nac: choosing settings: %w", err)
		}
		if trials[i].AUROC > trials[best].AUROC {
			best = i
		}
	}
	slices.SortStableFunc(trials, func(a, b Trial) int {
		switch {
		case a.AUROC > b.AUROC:
			return -1
		case a.AUROC < b.AUROC:
			return 1
		}
		return 0
	})
	f.info.Fit.Tried = trials
	return best, nil
}

// calibrate scores the held-out images.
func (f *fitter) calibrate(fitted detector.Detector) (*Detector, error) {
	f.info.Settings = fitted.Settings()
	d := &Detector{info: f.info, fitted: fitted, using: &sync.Mutex{}}
	if err := d.Attach(f.model); err != nil {
		return nil, err
	}
	ref := &d.ref
	explainer, explains := fitted.(detector.Explainer)
	var covered []detector.NeuronCoverage
	var means [][]float64 // of each layer
	err := f.pass("calibrate", f.calibration, d.engine, func(b *imageset.Batch, in *detector.Inputs) error {
		in.Labels = nil
		scores := make([]float64, in.N)
		if err := fitted.Score(in, scores); err != nil {
			return err
		}
		ref.scores = append(ref.scores, scores...)
		for i := range in.N {
			class, _, err := classify(in.Logits[i*f.network.Classes : (i+1)*f.network.Classes])
			if err != nil {
				return err
			}
			ref.classes = append(ref.classes, class)
			ref.names = append(ref.names, f.calibration.Items[b.Index[i]].Path)
			if label := b.Labels[i]; label >= 0 {
				f.info.Fit.Labelled++
				if label == class {
					f.info.Fit.Right++
				}
			}
		}
		if !explains {
			return nil
		}
		var err error
		if covered, err = explainer.Neurons(in); err != nil {
			return err
		}
		more := ref.add(covered, in.N)
		if means == nil {
			means = make([][]float64, len(more))
		}
		for i := range more {
			means[i] = append(means[i], more[i]...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, c := range covered {
		d.info.Layers = append(d.info.Layers, layerInfo(c.Layer, c.Channels, means[i]))
	}
	if d.cal, err = newCalibration(f.o.Rate, f.o.PerClass, ref.scores, ref.classes); err != nil {
		return nil, err
	}
	d.info.Fit = f.info.Fit
	d.describe()
	return d, nil
}

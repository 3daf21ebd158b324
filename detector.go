package nac

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/probe"
)

// Detector is a fitted and calibrated detector. It may be used by many goroutines at
// once.
type Detector struct {
	info   Info
	fitted detector.Detector
	// using is held while fitted is stored or scores: a method may keep memory for both.
	using *sync.Mutex
	ref   reference
	cal   *calibration

	engine  *engine // nil if loaded without a model
	network *arch.Model
	spatial *spatial
	buffers *sync.Pool // of *[]float32, one image
}

// Info says what a detector is.
type Info struct {
	Model     ModelInfo          `json:"model"`
	Transform imageset.Transform `json:"transform"`
	// Detector is a key of package detector, Settings are its settings.
	Detector string            `json:"detector"`
	Settings detector.Settings `json:"settings"`
	// Classes are the names of the model's classes, if they are known.
	Classes []string `json:"classes,omitempty"`
	Fit     FitInfo  `json:"fit"`
	// Layers are those whose neurons' coverage makes the score, if it does.
	Layers []LayerInfo `json:"layers,omitempty"`
	// Rate is the false-alarm rate.
	Rate float64 `json:"false_alarm_rate"`
	// PerClass tells whether an image is compared with the calibration images of its
	// predicted class.
	PerClass  bool      `json:"per_class"`
	Threshold Threshold `json:"threshold"`
	// ClassThresholds are those of the classes that have enough calibration images;
	// Threshold is for the others.
	ClassThresholds map[int]Threshold `json:"class_thresholds,omitempty"`
}

// FitInfo says what a detector was fitted on.
type FitInfo struct {
	// Sources are names of lists of ID images, more than one after Merge.
	Sources []string `json:"sources"`
	// Images is the number of images fitted on, Skipped of those that could not be read.
	Images  int `json:"images"`
	Skipped int `json:"skipped,omitempty"`
	// Right is how many of the Labelled calibration images, those with a class of the
	// model's, were classified right.
	Right    int `json:"right,omitempty"`
	Labelled int `json:"labelled,omitempty"`
	// Normalizations are the means and standard deviations that were tried, if none was
	// given.
	Normalizations []NormalizationTrial `json:"normalizations,omitempty"`
	// Tried are the settings that were compared on validation images, the chosen one
	// first; empty if there were no OOD images to choose by.
	Tried []Trial `json:"tried,omitempty"`
}

// Trial is a choice of settings and how well it told validation images apart.
type Trial struct {
	Settings detector.Settings `json:"settings"`
	AUROC    float64           `json:"auroc"`
}

// Result is what a detector says of an image.
type Result struct {
	// OOD is the verdict: PValue is at most the false-alarm rate.
	OOD bool `json:"ood"`
	// Score is higher the more in-distribution the image looks.
	Score float64 `json:"score"`
	// PValue bounds the share of ID images that score as low or lower.
	PValue float64 `json:"p_value"`
	// Class is the model's prediction and Probability its softmax probability.
	Class       int     `json:"class"`
	ClassName   string  `json:"class_name,omitempty"`
	Probability float64 `json:"probability"`
}

// ErrNoModel is wrapped by the error for scoring with a detector that was loaded
// without its model.
var ErrNoModel = errors.New("the detector was loaded without its model")

// Attach gives a detector that was loaded without its model the model that it was fitted
// to, so that it can score. It must not be in use yet.
func (d *Detector) Attach(m *Model) error {
	fits := func(info ModelInfo) error {
		if why := d.info.Model.differs(info); why != "" {
			return fmt.Errorf("nac: the detector belongs to another model, %s: %s", d.info.Model.Name, why)
		}
		return nil
	}
	// The hash comes last: it may still be computed.
	but := m.info
	but.Hash = d.info.Model.Hash
	if err := fits(but); err != nil {
		return err
	}
	e, err := newEngine(m, d.info.Transform, detector.Scoring, probe.For(d.fitted))
	if err != nil {
		return err
	}
	if err := fits(m.Info()); err != nil {
		return err
	}
	d.engine, d.network, d.spatial = e, m.network, &spatial{}
	d.buffers = &sync.Pool{New: func() any { input := make([]float32, e.size); return &input }}
	return nil
}

// describe fills in what Info says of the calibration.
func (d *Detector) describe() {
	d.info.Rate = d.cal.rate
	d.info.Threshold, d.info.ClassThresholds = d.cal.threshold(d.cal.all), nil
	if d.info.PerClass {
		d.info.ClassThresholds = map[int]Threshold{}
		for class, s := range d.cal.byClass {
			d.info.ClassThresholds[class] = d.cal.threshold(s)
		}
	}
}

// Info says what the detector is.
func (d *Detector) Info() Info {
	info := d.info
	info.Classes = slices.Clone(info.Classes)
	info.Fit.Sources = slices.Clone(info.Fit.Sources)
	info.Fit.Normalizations = slices.Clone(info.Fit.Normalizations)
	info.Fit.Tried = slices.Clone(info.Fit.Tried)
	info.Layers = slices.Clone(info.Layers)
	info.ClassThresholds = maps.Clone(info.ClassThresholds)
	return info
}

// CalibrationScores returns the scores of the calibration images, lowest first: what
// scores of other ID images are like.
func (d *Detector) CalibrationScores() []float64 { return slices.Clone(d.cal.all) }

// WithRate returns the detector with another false-alarm rate. The two share the
// network.
func (d *Detector) WithRate(rate float64) (*Detector, error) {
	c, err := newCalibration(rate, d.info.PerClass, d.ref.scores, d.ref.classes)
	if err != nil {
		return nil, err
	}
	other := *d
	other.cal = c
	other.describe()
	return &other, nil
}

// Split returns two detectors that share d's network and its memory, with half of the
// processors each, so that one can run while results of the other are used and its next
// images come in. Their results are d's. They may be used along with d, but d and they take
// turns. Where there is one processor, or no network, d itself is all that is returned.
func (d *Detector) Split() []*Detector {
	if d.engine == nil {
		return []*Detector{d}
	}
	var halves []*Detector
	for _, e := range d.engine.split() {
		half := *d
		half.engine = e
		halves = append(halves, &half)
	}
	if halves == nil {
		return []*Detector{d}
	}
	return halves
}

// ScoreFile scores an image file.
func (d *Detector) ScoreFile(ctx context.Context, path string) (Result, error) {
	img, err := imageset.Decode(path)
	if err != nil {
		return Result{}, err
	}
	return d.Score(ctx, img)
}

// Score scores an image.
func (d *Detector) Score(ctx context.Context, img *imageset.Image) (Result, error) {
	if d.engine == nil {
		return Result{}, fmt.Errorf("nac: %w", ErrNoModel)
	}
	buffer := d.buffers.Get().(*[]float32)
	defer d.buffers.Put(buffer)
	input := *buffer
	if err := d.info.Transform.Apply(img, input); err != nil {
		return Result{}, fmt.Errorf("nac: %w", err)
	}
	var one [1]Result
	err := d.ScoreTensors(ctx, input, one[:])
	return one[0], err
}

// ScoreTensors scores len(dst) images that are transformed already: float32 values,
// image by image, channel by channel, normalised as Info().Transform says.
func (d *Detector) ScoreTensors(ctx context.Context, images []float32, dst []Result) error {
	if d.engine == nil {
		return fmt.Errorf("nac: %w", ErrNoModel)
	}
	return d.engine.run(ctx, images, len(dst), func(in *detector.Inputs) error {
		err := d.results(in, dst[:in.N])
		dst = dst[in.N:]
		return err
	})
}

// className is empty if the class has no name.
func (d *Detector) className(class int) string {
	if class < len(d.info.Classes) {
		return d.info.Classes[class]
	}
	return ""
}

// results makes results of what the network yielded.
func (d *Detector) results(in *detector.Inputs, dst []Result) error {
	classes := d.info.Model.Classes
	for i := range dst {
		r := &dst[i]
		var err error
		if r.Class, r.Probability, err = classify(in.Logits[i*classes : (i+1)*classes]); err != nil {
			return err
		}
		r.ClassName = d.className(r.Class)
	}
	scores := make([]float64, in.N)
	d.using.Lock()
	err := d.fitted.Score(in, scores)
	d.using.Unlock()
	if err != nil {
		return err
	}
	for i := range dst {
		r := &dst[i]
		r.Score = scores[i]
		r.PValue, r.OOD = d.cal.judge(r.Score, r.Class)
	}
	return nil
}

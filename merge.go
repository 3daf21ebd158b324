package nac

import (
	"fmt"
	"slices"
)

// Merge adds to d the images that another detector of the same model, transform and
// settings was fitted on (see FitOptions.Like), exactly as if d had been fitted on all
// of them, and its calibration images, all scored anew. Only detectors of neuron
// coverage can be merged. On an error, which names the first difference, d is
// unchanged. Merge is not for use while d scores.
func (d *Detector) Merge(other *Detector) error {
	a, b := covered(d.fitted), covered(other.fitted)
	fail := func(format string, args ...any) error {
		return fmt.Errorf("nac: cannot merge: %w", fmt.Errorf(format, args...))
	}
	if why := d.info.Model.differs(other.info.Model); why != "" {
		return fail("another model: %s", why)
	}
	if d.info.Detector != other.info.Detector {
		return fail("detector %s against %s", d.info.Detector, other.info.Detector)
	}
	if a == nil || b == nil {
		return fail("%s is not a count of images, as nac is: its parts cannot be added. Fit on all images at once, or the parts with nac", d.info.Detector)
	}
	if x, y := d.info.Transform, other.info.Transform; x != y {
		return fail("images transformed otherwise: %+v against %+v", x, y)
	}
	if d.info.Rate != other.info.Rate || d.info.PerClass != other.info.PerClass {
		return fail("calibrated for a false-alarm rate of %v (by class: %v) against %v (%v)",
			d.info.Rate, d.info.PerClass, other.info.Rate, other.info.PerClass)
	}
	if !slices.Equal(d.info.Classes, other.info.Classes) {
		return fail("other names of classes")
	}
	if err := a.Merge(b); err != nil {
		return fail("%w", err)
	}
	d.ref.names = slices.Concat(d.ref.names, other.ref.names)
	d.ref.classes = slices.Concat(d.ref.classes, other.ref.classes)
	d.info.Layers = nil
	for i, more := range other.ref.bins {
		d.ref.bins[i].bins = slices.Concat(d.ref.bins[i].bins, more.bins)
	}
	bins := make([][]int16, len(d.ref.bins))
	for i := range bins {
		bins[i] = d.ref.bins[i].bins
		d.info.Layers = append(d.info.Layers, layerInfo(a.Layers[i].Settings().Layer, a.Layers[i].Channels(), d.ref.bins[i].means(a.Layers[i])))
	}
	scores := make([]float32, len(d.ref.names))
	if err := a.ScoreBins(bins, len(scores), scores); err != nil {
		return err
	}
	d.ref.scores = make([]float64, len(scores))
	for i, s := range scores {
		d.ref.scores[i] = float64(s)
	}
	cal, err := newCalibration(d.info.Rate, d.info.PerClass, d.ref.scores, d.ref.classes)
	if err != nil {
		return err
	}
	d.cal = cal
	fit := &d.info.Fit
	fit.Sources = slices.Concat(fit.Sources, other.info.Fit.Sources)
	fit.Images += other.info.Fit.Images
	fit.Skipped += other.info.Fit.Skipped
	fit.Right += other.info.Fit.Right
	fit.Labelled += other.info.Fit.Labelled
	fit.Tried = nil
	d.describe()
	return nil
}

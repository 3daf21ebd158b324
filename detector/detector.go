// Package detector holds the methods that tell in-distribution (ID) images from
// out-of-distribution (OOD) ones.
//
// A detector declares what it reads of a network (Needs), is fitted on ID training
// images batch by batch, and then scores batches. It never runs the network
// itself: package probe does, each thing once for all detectors.
//
// A score is higher the more ID an image looks, for every method. One file holds
// one method and registers it in the table.
package detector

import (
	"errors"
	"fmt"

	"nac/coverage"
	"nac/internal/safetensors"
)

// Inputs are what the network yields for a batch of N images, row by row.
type Inputs struct {
	N       int
	Logits  []float32 // N×K
	Feature []float32 // N×F
	States  []coverage.States
	Maps    []MapValues
	Passes  []PassInputs
	// Labels are the classes of ID training and validation images, negative if
	// unknown. They are nil when scoring.
	Labels []int
}

// Detector is one method. The calls come in order: Begin once, Fit for each
// batch of ID training images, End once, then Score any number of times. Score
// may be called by many goroutines at once, the others may not.
type Detector interface {
	// Needs says what it reads in a phase. A network that lacks it is refused by
	// Begin.
	Needs(n Network, p Phase) Needs
	// Begin is told about the network; it fails if the network lacks what the
	// detector needs.
	Begin(n Network) error
	// Fit takes in a batch of ID training images.
	Fit(in *Inputs) error
	// End finishes fitting.
	End() error
	// Score writes the score of each of in.N images into dst. It returns an error
	// wrapping ErrUnfitted if fitting has not ended.
	Score(in *Inputs, dst []float64) error
	// Settings returns those settings that the detector reads, with the defaults
	// filled in.
	Settings() Settings
	// tensors returns what fitting found out, and restore takes it back; see Save.
	tensors() ([]safetensors.Tensor, error)
	restore(f *safetensors.File) error
}

// ValidationFitter is a Detector that also learns from ID validation images.
type ValidationFitter interface {
	Detector
	// FitValidation takes in a batch of them. It is called between the last Fit and
	// End.
	FitValidation(in *Inputs) error
}

// OODValidationFitter is a Detector that also learns from OOD validation images, where
// there are any.
type OODValidationFitter interface {
	ValidationFitter
	// FitOODValidation takes in a batch of them. It is called, if at all, between the
	// last FitValidation and End.
	FitOODValidation(in *Inputs) error
}

// Covered is a Detector whose score is the coverage of neurons: the mean over
// layers of the mean over neurons.
type Covered interface {
	Detector
	// Coverage returns what was counted, nil before Begin. It is the detector's own.
	Coverage() *coverage.Coverage
}

// ErrUnfitted is wrapped by the error for scoring before fitting has ended.
var ErrUnfitted = errors.New("not fitted yet")

// Predictions writes the class with the largest logit of each image, the first
// of equal ones, into dst.
func Predictions(logits []float32, classes int, dst []int) {
	for i := range dst {
		dst[i] = argmax(logits[i*classes : (i+1)*classes])
	}
}

// logitsOnly is the part of a detector that reads logits alone and has nothing
// to fit but the number of classes.
type logitsOnly struct{ classes int }

func (*logitsOnly) Needs(Network, Phase) Needs { return Needs{} }

func (d *logitsOnly) Begin(n Network) error {
	if n.Classes < 1 {
		return fmt.Errorf("detector: a network of %d classes", n.Classes)
	}
	d.classes = n.Classes
	return nil
}

func (*logitsOnly) Fit(*Inputs) error  { return nil }
func (*logitsOnly) End() error         { return nil }
func (*logitsOnly) Settings() Settings { return Settings{} }

func (d *logitsOnly) tensors() ([]safetensors.Tensor, error) {
	return []safetensors.Tensor{safetensors.Int64("classes", []int{1}, []int64{int64(d.classes)})}, nil
}

func (d *logitsOnly) restore(f *safetensors.File) error {
	v, _, err := f.Int64s("classes")
	if err != nil {
		return err
	}
	if len(v) != 1 || v[0] < 1 || v[0] > 1<<24 {
		return fmt.Errorf("classes is %v, want one positive number", v)
	}
	d.classes = int(v[0])
	return nil
}

// each calls score with the logits of every image, in float64: softmax and
// log-sum-exp lose ranks in float32 where networks are sure of themselves.
func (d *logitsOnly) each(in *Inputs, dst []float64, score func(logits []float64) float64) error {
	if d.classes == 0 {
		return fmt.Errorf("detector: %w", ErrUnfitted)
	}
	if err := in.check(d.classes, dst); err != nil {
		return err
	}
	row := make([]float64, d.classes)
	for i := range in.N {
		dst[i] = score(widen(in.Logits[i*d.classes:][:d.classes], row))
	}
	return nil
}

func (in *Inputs) check(classes int, dst []float64) error {
	if err := rows("logits", in.Logits, in.N, classes); err != nil {
		return fmt.Errorf("detector: %w", err)
	}
	if len(dst) < in.N {
		return fmt.Errorf("detector: room for %d scores of %d images", len(dst), in.N)
	}
	return nil
}

package openood

import (
	"math/rand/v2"
	"slices"
	"testing"

	"nac/detector"
)

// listener is a detector that learns from validation images of both kinds.
type listener struct {
	detector.Detector
	calls []string
	id    int
	ood   int
}

func (l *listener) Fit(in *detector.Inputs) error {
	l.calls = append(l.calls, "fit")
	return l.Detector.Fit(in)
}

func (l *listener) FitValidation(in *detector.Inputs) error {
	l.calls, l.id = append(l.calls, "id"), l.id+in.N
	return nil
}

func (l *listener) FitOODValidation(in *detector.Inputs) error {
	l.calls, l.ood = append(l.calls, "ood"), l.ood+in.N
	return nil
}

func (l *listener) End() error {
	l.calls = append(l.calls, "end")
	return l.Detector.End()
}

// Validation images of both kinds go to the detectors that learn from them, before fitting
// ends; where there are no OOD ones, or no detector asks, the network does not run on them.
func TestValidationImages(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	l := newLinear(5, 20, random)
	data := &Data{
		Train: l.images("train", 40, true, random), Val: l.images("val", 30, true, random), Test: l.images("test", 20, true, random),
		Near: []Images{{"near", l.images("near", 25, false, random)}},
	}
	outliers := l.images("val_ood", 35, false, random)
	for _, c := range []struct {
		outliers Source
		asks     bool
		calls    []string
		runs     int // on images of validation, to fit
	}{
		{outliers, true, []string{"fit", "id", "ood", "end"}, 30 + 35},
		{nil, true, []string{"fit", "id", "end"}, 30},
		{outliers, false, nil, 0},
	} {
		d, err := detector.New("msp", detector.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		heard := &listener{Detector: d}
		method := Method{"msp", heard}
		if !c.asks {
			method.Detector = d
		}
		data.ValOOD, l.runs = c.outliers, 0
		if _, err := Run(t.Context(), data, prober{l}, []Method{method}, nil); err != nil {
			t.Fatal(err)
		}
		if got := slices.Compact(heard.calls); !slices.Equal(got, c.calls) {
			t.Errorf("calls %v, want %v", got, c.calls)
		}
		if c.asks && (heard.id != 30 || c.outliers != nil && heard.ood != 35) {
			t.Errorf("%d ID and %d OOD validation images", heard.id, heard.ood)
		}
		// Some images run twice more, to be timed.
		if want := 2*estimateImages + 40 + c.runs + 30 + 20 + 25; l.runs != want {
			t.Errorf("the network ran on %d images, want %d", l.runs, want)
		}
	}
}

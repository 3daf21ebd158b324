package nacbeam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"nac"
	"nac/coverage"
	"nac/detector"
	"nac/imageset"
)

// FitConfig says what is fitted: the options of nac.Fit whose zero values choose
// everything. Workers read the lists themselves and make the same plan of them.
type FitConfig struct {
	Model, Arch     string
	ID, Calibration string // places, as imageset.Read reads them
	ValOOD          string
	Root            string
	Like            string // a detector file
	// The others are those of nac.FitOptions.
	Detector                  string
	Settings                  detector.Settings
	Layers                    []string
	Transform                 imageset.Transform
	Images, CalibrationImages int
	Seed                      uint64
	Rate                      float64
	PerClass                  bool
}

// Plan opens the model and plans the fit. Images that cannot be read are dead letters, so
// OnError is Skip.
func (c FitConfig) Plan(ctx context.Context) (*nac.FitPlan, error) {
	m, err := openModel(c.Model, c.Arch)
	if err != nil {
		return nil, err
	}
	o := nac.FitOptions{
		Detector: c.Detector, Settings: c.Settings, Layers: c.Layers, Transform: c.Transform, Images: c.Images,
		CalibrationImages: c.CalibrationImages, Seed: c.Seed, Rate: c.Rate, PerClass: c.PerClass, OnError: imageset.Skip,
	}
	images, err := imageset.Read(c.ID, c.Root)
	if err != nil {
		return nil, err
	}
	for _, l := range []struct {
		place string
		to    *imageset.List
	}{{c.Calibration, &o.Calibration}, {c.ValOOD, &o.ValOOD}} {
		if l.place == "" {
			continue
		}
		if *l.to, err = imageset.Read(l.place, c.Root); err != nil {
			return nil, err
		}
	}
	if c.Like != "" {
		if o.Like, err = nac.Load(c.Like, nil); err != nil {
			return nil, err
		}
	}
	return nac.PlanFit(ctx, m, images, o)
}

func init() {
	beam.RegisterType(reflect.TypeFor[Fitted]())
	beam.RegisterDoFn(&planFn{})
	beam.RegisterFunction(countsRow)
	beam.RegisterFunction(failureRow)
	beam.RegisterDoFn(&finishFn{})
	beam.RegisterDoFn(&setFn{})
}

// Fitted tells of a detector that was written.
type Fitted struct{ File string }

// Fit fits a detector on images and writes it to file: the bytes that nac.Fit would save.
// The second collection are the images that were left out.
func Fit(ctx context.Context, s beam.Scope, c FitConfig, file string) (fitted, failed beam.PCollection, err error) {
	s = s.Scope("Fit")
	plan, err := c.Plan(ctx)
	if err != nil {
		return fitted, failed, err
	}
	n := Network{Model: c.Model, Arch: c.Arch, Yield: plan.Yield()}
	images := beam.Reshuffle(s, beam.ParDo(s, &planFn{Config: c}, beam.Impulse(s)))
	rows, failed := ExtractStates(s, images, n)
	all := []beam.PCollection{beam.ParDo(s, failureRow, failed)}
	if settings, channels := plan.Coverage(); settings != nil {
		counted := beam.ParDo(s, &setFn{Counted: true}, rows)
		all = append(all, beam.ParDo(s, countsRow, BuildCoverage(s, counted, n, settings, channels)))
		rows = beam.ParDo(s, &setFn{}, rows)
	}
	all = append(all, rows)
	byKey := beam.GroupByKey(s, beam.AddFixedKey(s, beam.Flatten(s, all...)))
	return beam.ParDo(s, &finishFn{Config: c, Network: n, File: file}, byKey), failed, nil
}

// planFn emits the images of a fit.
type planFn struct{ Config FitConfig }

func (f *planFn) ProcessElement(ctx context.Context, _ []byte, emit func(Image)) error {
	plan, err := f.Config.Plan(ctx)
	if err != nil {
		return err
	}
	for _, set := range plan.Sets() {
		for i, item := range plan.Items(set) {
			name := set
			if plan.Counted(set) {
				name = countedSet
			}
			emit(Image{name, int64(i), item.Path, int64(item.Label)})
		}
	}
	return nil
}

// countedSet marks images that are counted and not kept; countsSet a row that has counts
// for values.
const (
	countedSet = "counted"
	countsSet  = "counts"
)

// setFn lets through rows that are to be counted, or the others.
type setFn struct{ Counted bool }

func (f *setFn) ProcessElement(r Row, emit func(Row)) {
	if (r.Set == countedSet) == f.Counted {
		emit(r)
	}
}

func countsRow(c Counts) Row {
	data, err := encodeCounts(c)
	if err != nil {
		return Row{Set: countsSet, Reason: err.Error()}
	}
	return Row{Set: countsSet, Values: data}
}

func failureRow(f Failure) Row {
	return Row{Set: f.Set, Position: f.Position, Path: f.Path, Label: f.Label, Reason: f.Reason}
}

// finishFn fits of all rows. Memory is that of the rows kept, of which FitOptions bounds the
// number.
type finishFn struct {
	Config  FitConfig
	Network Network
	File    string
}

func (f *finishFn) ProcessElement(ctx context.Context, _ int, rows func(*Row) bool, emit func(Fitted)) error {
	m, err := openModel(f.Config.Model, f.Config.Arch)
	if err != nil {
		return err
	}
	w, err := f.Network.widths(m)
	if err != nil {
		return err
	}
	var all []nac.FitRow
	var counts *coverage.Coverage
	var r Row
	for rows(&r) {
		switch {
		case r.Set == countsSet:
			c, err := decodeCounts(bytes.Clone(r.Values))
			if err == nil && c.Err+r.Reason != "" {
				err = errors.New(c.Err + r.Reason)
			}
			if err != nil {
				return fmt.Errorf("nacbeam: counting: %w", err)
			}
			counts = c.Coverage
		case r.Set == countedSet: // could not be read
		default:
			row := nac.FitRow{}
			if r.Reason == "" {
				if row, err = w.unpack(r.Values); err != nil {
					return err
				}
			}
			row.Set, row.Position, row.Reason = r.Set, int(r.Position), r.Reason
			all = append(all, row)
		}
		r = Row{}
	}
	plan, err := f.Config.Plan(ctx)
	if err != nil {
		return err
	}
	d, err := plan.Finish(ctx, all, counts)
	if err != nil {
		return err
	}
	if err := d.Save(f.File); err != nil {
		return err
	}
	emit(Fitted{f.File})
	return nil
}

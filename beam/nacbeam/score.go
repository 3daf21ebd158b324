package nacbeam

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"nac"
	"nac/imageset"
	"nac/internal/atomicfile"
)

// Detector is a fitted detector and its classifier, as files that every worker sees.
type Detector struct {
	File  string
	Model string // empty: where the detector says
}

// Scored is an image and what the detector says of it, as the JSON lines of "nac score".
type Scored struct {
	Set         string  `json:"-"`
	Position    int64   `json:"-"`
	Label       int64   `json:"-"`
	Path        string  `json:"path"`
	Verdict     string  `json:"verdict"`
	Score       float64 `json:"score"`
	PValue      float64 `json:"p_value"`
	Class       int64   `json:"class"`
	ClassName   string  `json:"class_name,omitempty"`
	Probability float64 `json:"probability"`
}

func init() {
	beam.RegisterType(reflect.TypeFor[Scored]())
	beam.RegisterType(reflect.TypeFor[Line]())
	beam.RegisterDoFn(&scoreFn{})
	beam.RegisterFunction(scoredLine)
	beam.RegisterFunction(failureLine)
	beam.RegisterDoFn(&writeFn{})
}

var detectors once[*nac.Detector]

// open loads the detector, once for a process.
func (d Detector) open() (*nac.Detector, error) {
	return detectors.get(d.File+"\x00"+d.Model, func() (*nac.Detector, error) {
		at, err := nac.Load(d.File, nil)
		if err != nil {
			return nil, err
		}
		info := at.Info().Model
		if d.Model != "" {
			info.Path = d.Model
		}
		m, err := openModel(info.Path, info.Architecture)
		if err != nil {
			return nil, err
		}
		return at, at.Attach(m)
	})
}

// Score scores images. What cannot be scored is in the second collection.
func Score(s beam.Scope, images beam.PCollection, d Detector) (scored, failed beam.PCollection) {
	return beam.ParDo2(s.Scope("Score"), &scoreFn{Detector: d}, images)
}

type scoreFn struct {
	Detector Detector

	detector *nac.Detector
	batch    batch
}

func (f *scoreFn) Setup() (err error) {
	f.detector, err = f.Detector.open()
	return err
}

func (f *scoreFn) StartBundle(context.Context, func(Scored), func(Failure)) { f.batch.take() }

func (f *scoreFn) ProcessElement(ctx context.Context, img Image, emit func(Scored), failed func(Failure)) error {
	return f.run(ctx, f.batch.add(img), emit, failed)
}

func (f *scoreFn) FinishBundle(ctx context.Context, emit func(Scored), failed func(Failure)) error {
	return f.run(ctx, f.batch.take(), emit, failed)
}

func (f *scoreFn) run(ctx context.Context, images []Image, emit func(Scored), failed func(Failure)) error {
	i := 0
	for s, err := range f.detector.ScoreAll(ctx, archives(), imageset.List{Items: items(images)}.All()) {
		if err != nil {
			return err
		}
		img := images[i]
		i++
		if s.Err != nil {
			failed(img.failed(s.Err.Error()))
			continue
		}
		verdict := "ID"
		if s.OOD {
			verdict = "OOD"
		}
		emit(Scored{
			Set: img.Set, Position: img.Position, Label: img.Label, Path: img.Path, Verdict: verdict, Score: s.Score, PValue: s.PValue,
			Class: int64(s.Class), ClassName: s.ClassName, Probability: s.Probability,
		})
	}
	return nil
}

// Line is a line of a file, and its place.
type Line struct {
	Position int64
	Text     string
}

// fileLines is how many images a file of WriteLines covers: what a worker holds in memory.
const fileLines = 100_000

func scoredLine(s Scored) (int64, Line) {
	text, err := json.Marshal(s)
	if err != nil { // a score is finite
		panic(err)
	}
	return s.Position / fileLines, Line{s.Position, string(text)}
}

func failureLine(f Failure) (int64, Line) {
	text, err := json.Marshal(struct {
		Path    string `json:"path"`
		Verdict string `json:"verdict"`
		Error   string `json:"error"`
	}{f.Path, "error", f.Reason})
	if err != nil {
		panic(err)
	}
	return f.Position / fileLines, Line{f.Position, string(text)}
}

// WriteScores writes JSON lines to files in dir, scores-00000.jsonl with the first 100,000
// images and so on, and returns their names. Files are whole or absent; one that is
// written twice is the same.
func WriteScores(s beam.Scope, scored, failed beam.PCollection, dir string) beam.PCollection {
	s = s.Scope("WriteScores")
	lines := beam.Flatten(s, beam.ParDo(s, scoredLine, scored), beam.ParDo(s, failureLine, failed))
	return beam.ParDo(s, &writeFn{Dir: dir, Name: "scores-%05d.jsonl"}, beam.GroupByKey(s, lines))
}

// WriteFailures writes dead letters as JSON lines to files failures-00000.jsonl and so on; there
// is none without failures.
func WriteFailures(s beam.Scope, failed beam.PCollection, dir string) beam.PCollection {
	s = s.Scope("WriteFailures")
	return beam.ParDo(s, &writeFn{Dir: dir, Name: "failures-%05d.jsonl"}, beam.GroupByKey(s, beam.ParDo(s, failureLine, failed)))
}

// writeFn writes the lines of a group to a file.
type writeFn struct{ Dir, Name string }

func (f *writeFn) ProcessElement(_ context.Context, number int64, lines func(*Line) bool, emit func(string)) error {
	var all []Line
	var l Line
	for lines(&l) {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Line) int { return int(a.Position - b.Position) })
	if err := os.MkdirAll(f.Dir, 0o777); err != nil {
		return err
	}
	path := filepath.Join(f.Dir, fmt.Sprintf(f.Name, number))
	err := atomicfile.Write(path, func(w io.Writer) error {
		for _, l := range all {
			if _, err := fmt.Fprintln(w, l.Text); err != nil {
				return err
			}
		}
		return nil
	})
	emit(path)
	return err
}

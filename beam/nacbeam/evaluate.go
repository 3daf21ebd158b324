package nacbeam

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"nac/metric"
)

// Point is a score and what it is of.
type Point struct {
	Score float64
	OOD   bool
}

// Bucket holds the ties of a range of scores, rising.
type Bucket struct {
	Key     int64 // rises with the scores
	ID, OOD []int64
}

// Report is what an OOD set is judged by.
type Report struct {
	Name                            string
	FPR95, AUROC, AUPRIn, AUPROut   float64
	SketchAUROCLow, SketchAUROCHigh float64 // the AUROC lies between them
}

// Bounds are those of a sketch's AUROC.
type Bounds struct{ Sketch metric.Sketch }

func init() {
	beam.RegisterType(reflect.TypeFor[Point]())
	beam.RegisterType(reflect.TypeFor[Bucket]())
	beam.RegisterType(reflect.TypeFor[Report]())
	beam.RegisterDoFn(&pointFn{})
	beam.RegisterFunction(bucketOf)
	beam.RegisterDoFn(&sortFn{})
	beam.RegisterDoFn(&reportFn{})
	beam.RegisterType(reflect.TypeFor[Bounds]())
	beam.RegisterCoder(reflect.TypeFor[Bounds](), encodeBounds, decodeBounds)
	beam.RegisterType(reflect.TypeFor[sketchFn]())
}

// Points returns the scores of a set as those of ID or of OOD images.
func Points(s beam.Scope, scored beam.PCollection, isOOD bool) beam.PCollection {
	return beam.ParDo(s.Scope("Points"), &pointFn{OOD: isOOD}, scored)
}

type pointFn struct{ OOD bool }

func (f *pointFn) ProcessElement(s Scored, emit func(Point)) { emit(Point{s.Score, f.OOD}) }

// Evaluate judges ID and OOD scores: a Report with the metrics of metric.OOD, to the last bit,
// by a distributed sort, and the bounds of a metric.Sketch. The last worker holds the ties:
// 16 bytes for each different score.
func Evaluate(s beam.Scope, name string, points beam.PCollection) beam.PCollection {
	s = s.Scope("Evaluate")
	buckets := beam.ParDo(s, &sortFn{}, beam.GroupByKey(s, beam.ParDo(s, bucketOf, points)))
	sketch := beam.Combine(s, &sketchFn{}, points)
	return beam.ParDo(s, &reportFn{Name: name}, beam.GroupByKey(s, beam.AddFixedKey(s, buckets)), beam.SideInput{Input: sketch})
}

// bucketOf gives scores keys that rise with them: sign, exponent and 12 bits.
func bucketOf(p Point) (int64, Point) { return int64(metric.OrderedBits(p.Score) >> 40), p }

type sortFn struct{}

func (*sortFn) ProcessElement(key int64, points func(*Point) bool, emit func(Bucket)) error {
	var all []Point
	var p Point
	for points(&p) {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Point) int {
		switch {
		case a.Score < b.Score:
			return -1
		case a.Score > b.Score:
			return 1
		}
		return 0
	})
	b := Bucket{Key: key}
	for i, p := range all {
		if i == 0 || p.Score != all[i-1].Score {
			b.ID, b.OOD = append(b.ID, 0), append(b.OOD, 0)
		}
		to := b.ID
		if p.OOD {
			to = b.OOD
		}
		to[len(to)-1]++
	}
	emit(b)
	return nil
}

type reportFn struct{ Name string }

func (f *reportFn) ProcessElement(_ context.Context, _ int, buckets func(*Bucket) bool, sketch Bounds, emit func(Report)) error {
	var all []Bucket
	for {
		var b Bucket
		if !buckets(&b) {
			break
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Bucket) int { return int(a.Key - b.Key) })
	var ties []metric.Tie
	for _, b := range all {
		for i := range b.ID {
			ties = append(ties, metric.Tie{ID: int(b.ID[i]), OOD: int(b.OOD[i])})
		}
	}
	r, err := metric.OODOfTies(ties)
	if err != nil {
		return fmt.Errorf("nacbeam: %s: %w", f.Name, err)
	}
	low, high, err := sketch.Sketch.AUROC()
	if err != nil {
		return fmt.Errorf("nacbeam: %s: %w", f.Name, err)
	}
	emit(Report{f.Name, r.FPR95, r.AUROC, r.AUPRIn, r.AUPROut, low, high})
	return nil
}

// sketchFn merges sketches.
type sketchFn struct{}

func (*sketchFn) CreateAccumulator() Bounds { return Bounds{} }

func (*sketchFn) AddInput(b Bounds, p Point) Bounds {
	if err := b.Sketch.Add(p.Score, p.OOD); err != nil { // a detector's scores are finite
		panic(err)
	}
	return b
}

func (*sketchFn) MergeAccumulators(a, b Bounds) Bounds {
	a.Sketch.Merge(b.Sketch)
	return a
}

func (*sketchFn) ExtractOutput(b Bounds) Bounds { return b }

func encodeBounds(b Bounds) ([]byte, error) { return json.Marshal(b.Sketch) }

func decodeBounds(data []byte) (b Bounds, err error) {
	err = json.Unmarshal(data, &b.Sketch)
	return b, err
}

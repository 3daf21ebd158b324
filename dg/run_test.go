package dg

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"nac/train"
	"nac/weights"
)

// toy is three domains of squares, whose class is the half of the picture that they
// lie in.
func toy() *Dataset {
	d := &Dataset{Name: "toy", ClassNames: []string{"top", "bottom"}, Channels: 1, Size: digitSide}
	for i, name := range []string{"a", "b", "c"} {
		domain := &digitDomain{channels: 1}
		for k := range 25 {
			r := rand.New(rand.NewPCG(uint64(i), uint64(k)))
			image, label := make([]uint8, digitSide*digitSide), uint8(k%2)
			y, x := int(label)*14+r.IntN(8), r.IntN(22)
			for p := range 36 {
				image[(y+p/6)*digitSide+x+p%6] = uint8(150 + 30*i)
			}
			domain.pixels, domain.labels = append(domain.pixels, image), append(domain.labels, label)
		}
		d.Domains = append(d.Domains, Domain{name, domain})
	}
	return d
}

func toyRun(dir, algorithm string) *Run {
	b, _ := FindBenchmark("RotatedMNIST")
	h := DefaultHParams(algorithm, b)
	h.BatchSize = 4
	coverage := DefaultCoverage("bn3")
	coverage.O = 2
	return &Run{
		Config: Config{
			Dataset: "toy", Algorithm: algorithm, Arch: "mnist_cnn", Test: []string{"b"}, Seed: 3, Holdout: 0.2,
			HParams: h, Steps: 6, CheckpointEvery: 3, Coverage: coverage,
		},
		Data: toy(), Dir: dir, Keep: KeepBest,
	}
}

// swadRun is toyRun with weights averaged from the second checkpoint on.
func swadRun(dir, algorithm string) *Run {
	r := toyRun(dir, algorithm)
	r.SWAD = &SWADSettings{Converge: 1, Tolerance: 2, Ratio: 10}
	return r
}

type stopAt struct {
	step   int
	cancel func()
}

func (s stopAt) Step(step, _ int, _ float64) {
	if step == s.step {
		s.cancel()
	}
}
func (s stopAt) Checkpoint(Record) {}

func timeless(records []Record) []Record {
	for i := range records {
		records[i].StepSeconds, records[i].EvalSeconds, records[i].Config = 0, 0, nil
		if a := records[i].SWAD; a != nil {
			a.sd = nil
		}
	}
	return records
}

// A run that is stopped and resumed leaves the records and weights of one that was not,
// whatever the algorithm remembers.
func TestResume(t *testing.T) {
	for _, algorithm := range []string{"GroupDRO", "Mixup", "CORAL", "DANN", "SagNet"} {
		whole, parts := t.TempDir(), t.TempDir()
		want, err := swadRun(whole, algorithm).Do(context.Background())
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if len(want) != 3 || want[2].Step != 6 || !(want[2].Coverage > 0) || want[2].CoverageSamples == 0 || want[1].SWAD != nil || want[2].SWAD == nil {
			t.Errorf("%s: records %+v", algorithm, want)
		}
		for _, step := range []int{2, 4, 0} {
			run := swadRun(parts, algorithm)
			ctx, cancel := context.WithCancel(context.Background())
			run.Progress = stopAt{step, cancel}
			if _, err := run.Do(ctx); (step > 0) != errors.Is(err, context.Canceled) {
				t.Fatalf("%s: stopped at %d: %v", algorithm, step, err)
			}
			cancel()
		}
		got, err := ReadRecords(filepath.Join(parts, ResultsFile))
		if err != nil {
			t.Fatal(err)
		}
		if want := timeless(want); !reflect.DeepEqual(timeless(got), want) {
			t.Errorf("%s: after stops %+v, want %+v", algorithm, got, want)
		}
		for _, name := range []string{LastFile, CoverageBest, ValidBest, SWADFile} {
			a, err := os.ReadFile(filepath.Join(whole, name))
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := os.ReadFile(filepath.Join(parts, name)); !bytes.Equal(a, b) {
				t.Errorf("%s: %s is another", algorithm, name)
			}
		}
	}
}

// A loss that is no number stops the run, which says so, and leaves what was saved: the
// last checkpoint whole, its numbers finite, and its record. A run that goes on from
// there meets the same end, whatever it saved on the way.
func TestDivergence(t *testing.T) {
	for _, algorithm := range []string{"ERM", "DANN", "SagNet"} {
		dir := t.TempDir()
		run := toyRun(dir, algorithm)
		run.Steps, run.CheckpointEvery, run.Keep = 40, 1, KeepBest
		run.HParams.Optimizer = "sgd"
		run.HParams.LR, run.HParams.LRG, run.HParams.LRD = 3e3, 3e3, 3e3
		for range 2 {
			_, err := run.Do(context.Background())
			var diverged *train.DivergedError
			if !errors.As(err, &diverged) || !strings.Contains(err.Error(), "diverged") {
				t.Fatalf("%s: got %v", algorithm, err)
			}
			records, err := ReadRecords(filepath.Join(dir, ResultsFile))
			if err != nil || len(records) == 0 || records[len(records)-1].Step >= diverged.Step {
				t.Fatalf("%s: %d records before step %d (%v)", algorithm, len(records), diverged.Step, err)
			}
			for _, r := range records {
				if err := train.CheckLoss(r.Step, r.Loss+r.TrainOutLoss+r.Coverage); err != nil {
					t.Errorf("%s: record of step %d: %v", algorithm, r.Step, err)
				}
			}
			sd, err := weights.Open(filepath.Join(dir, LastFile))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range sd.Names() {
				tensor, _ := sd.Lookup(name)
				for _, v := range tensor.Data {
					if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
						t.Fatalf("%s: %s of the last checkpoint holds %v", algorithm, name, v)
					}
				}
			}
		}
	}
}

func TestMissingClass(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"a/cat", "a/dog", "b/dog"} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path, "1.png"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := FindBenchmark(AnyFolder)
	if _, err := b.Open(dir, OpenOptions{}); err == nil || !strings.Contains(err.Error(), "domain b has no class cat") {
		t.Errorf("got %v", err)
	}
	d, err := b.Open(dir, OpenOptions{MissingClasses: true})
	if err != nil || d.Domains[1].Samples.Label(0) != 1 {
		t.Errorf("the label of b's dog has moved: %v", err)
	}
}

package dg

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"nac/train"
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
	}
	return records
}

// A run that is stopped and resumed leaves the records and weights of one that was not,
// whatever the algorithm remembers.
func TestResume(t *testing.T) {
	for _, algorithm := range []string{"GroupDRO", "Mixup", "CORAL"} {
		whole, parts := t.TempDir(), t.TempDir()
		want, err := toyRun(whole, algorithm).Do(context.Background())
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if len(want) != 3 || want[2].Step != 6 || !(want[2].Coverage > 0) || want[2].CoverageSamples == 0 {
			t.Errorf("%s: records %+v", algorithm, want)
		}
		for _, step := range []int{2, 4, 0} {
			run := toyRun(parts, algorithm)
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
		for _, name := range []string{LastFile, CoverageBest, ValidBest} {
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

// A loss that is no number stops the run and leaves what was saved.
func TestDivergence(t *testing.T) {
	dir := t.TempDir()
	run := toyRun(dir, "ERM")
	run.HParams.LR = 1e30
	_, err := run.Do(context.Background())
	var diverged *train.DivergedError
	if !errors.As(err, &diverged) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, StateFile)); err != nil {
		t.Error(err)
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

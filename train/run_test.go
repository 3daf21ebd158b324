package train

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nac/arch"
	"nac/weights"
)

// blobs are 32x32 images whose class is a colour under noise.
type blobs struct{ n int }

func (b blobs) Len() int        { return b.n }
func (b blobs) Label(i int) int { return i % 3 }

func (b blobs) Image(i int, r *rand.Rand, dst []float32) error {
	noise := rand.New(rand.NewPCG(7, uint64(i)))
	shift := 0.0
	if r != nil {
		shift = r.Float64() - 0.5
	}
	for k := range dst {
		dst[k] = float32(noise.NormFloat64() + 0.2*shift)
		if k/1024 == b.Label(i) {
			dst[k]++
		}
	}
	return nil
}

func task(dir string) *Task {
	return &Task{
		Config: Config{
			Arch: "resnet20", Classes: 3, Epochs: 3, Batch: 6, Seed: 5,
			Optimizer: SGD(0.9, true, 1e-4), Schedule: Schedule{Kind: "cosine", Rate: 0.05, Warmup: 2, Total: 12},
			Smoothing: 0.1, Dropout: 0.1, EMA: 0.9, SWA: 2,
		},
		Train: blobs{26}, Valid: blobs{9}, Dir: dir,
	}
}

// stopAt ends the context after a step.
type stopAt struct {
	step   int
	cancel func()
}

func (s stopAt) Step(step, _ int, _, _ float64) {
	if step == s.step {
		s.cancel()
	}
}
func (s stopAt) Epoch(Row) {}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range []string{ModelFile, BestFile, EMAFile, SWAFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}

// A run that is stopped anywhere and resumed, on any number of workers, leaves the
// bits of one that was not.
func TestResumeBitForBit(t *testing.T) {
	whole := t.TempDir()
	rows, err := task(whole).Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || !(rows[2].Loss < rows[0].Loss) {
		t.Errorf("losses do not fall: %+v", rows)
	}
	want := contents(t, whole)
	parts := t.TempDir()
	for i, step := range []int{3, 4, 10, 0} {
		part := task(parts)
		part.Resume, part.Workers = true, i+1
		ctx, cancel := context.WithCancel(context.Background())
		part.Progress = stopAt{step, cancel}
		got, err := part.Run(ctx)
		cancel()
		if step > 0 && !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at step %d: %v", step, err)
		}
		if step == 0 {
			if err != nil {
				t.Fatal(err)
			}
			for e := range got {
				got[e].Seconds = rows[e].Seconds
				if got[e] != rows[e] {
					t.Errorf("epoch %d: %+v, want %+v", e+1, got[e], rows[e])
				}
			}
		}
	}
	for name, data := range contents(t, parts) {
		if !bytes.Equal(data, want[name]) {
			t.Errorf("%s differs after stops", name)
		}
	}
	again := task(parts)
	again.Resume = true
	if _, err := again.Run(context.Background()); !errors.Is(err, ErrDone) {
		t.Errorf("a finished run: %v", err)
	}
	again.Seed++
	if _, err := again.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("other settings: %v", err)
	}
	// What was written is a checkpoint of the architecture.
	for name := range want {
		sd, err := weights.Open(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := arch.Load("resnet20", sd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A loss that is no number stops the run, says so, and leaves the last good weights.
func TestDivergence(t *testing.T) {
	dir := t.TempDir()
	if _, err := task(dir).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	bad := task(dir)
	bad.Schedule = Schedule{Kind: "constant", Rate: 1e30}
	_, err := bad.Run(context.Background())
	var diverged *DivergedError
	if !errors.As(err, &diverged) || !strings.Contains(err.Error(), "learning rate") {
		t.Fatalf("got %v", err)
	}
	for name, data := range contents(t, dir) {
		if !bytes.Equal(data, before[name]) {
			t.Errorf("%s was overwritten", name)
		}
	}
}

func TestStateRefusals(t *testing.T) {
	dir := t.TempDir()
	if _, err := task(dir).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, StateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(dir, ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"cut off": data[:len(data)/2], "empty": nil, "weights instead": model,
		"a later version": bytes.Replace(data, []byte(`"version":"1"`), []byte(`"version":"9"`), 1),
	} {
		if err := os.WriteFile(path, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		again := task(dir)
		again.Resume = true
		if _, err := again.Run(context.Background()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		step int
		want float64
	}{
		{Schedule{Kind: "constant", Rate: 2}, 9, 2},
		{Schedule{Kind: "constant", Rate: 2, Warmup: 4}, 0, 0.5},
		{Schedule{Kind: "cosine", Rate: 2, Total: 10}, 0, 2},
		{Schedule{Kind: "cosine", Rate: 2, Total: 10}, 5, 1},
		{Schedule{Kind: "cosine", Rate: 2, Total: 10, Last: 1}, 10, 1},
		{Schedule{Kind: "linear", Rate: 2, Total: 10}, 5, 1},
		{Schedule{Kind: "step", Rate: 2, Milestones: []int{3, 6}, Factor: 0.1}, 2, 2},
		{Schedule{Kind: "step", Rate: 2, Milestones: []int{3, 6}, Factor: 0.1}, 6, 0.02},
	} {
		if got := c.s.At(c.step); got < c.want*(1-1e-12) || got > c.want*(1+1e-12) {
			t.Errorf("%+v at step %d: %v, want %v", c.s, c.step, got, c.want)
		}
	}
}

// Augmentation follows from its source of numbers alone, and gives the size asked for.
func TestAugmentIsDeterministic(t *testing.T) {
	img := noise(40, 30)
	for _, name := range AugmentNames() {
		a, err := NamedAugment(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Validate(); err != nil {
			t.Error(err)
		}
		differ := 0
		var first []uint8
		for seed := range uint64(8) {
			var twice [2][]uint8
			for i := range twice {
				out, err := a.Apply(img, 32, 32, rand.New(rand.NewPCG(seed, 1)))
				if err != nil || out.Width != 32 || out.Height != 32 {
					t.Fatalf("%s: %v, %+v", name, err, out)
				}
				twice[i] = out.Pix
			}
			if !bytes.Equal(twice[0], twice[1]) {
				t.Errorf("%s: two pictures of one seed", name)
			}
			if first == nil {
				first = twice[0]
			} else if !bytes.Equal(first, twice[0]) {
				differ++
			}
		}
		if (differ > 0) != (name != "none") {
			t.Errorf("%s: %d of 7 other seeds change the picture", name, differ)
		}
	}
}

package train

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"time"

	"nac/arch"
	"nac/internal/atomicfile"
	"nac/nn"
	"nac/weights"
)

// Config says how a classifier is trained.
type Config struct {
	Arch      string            `json:"arch"`
	Classes   int               `json:"classes"`
	Epochs    int               `json:"epochs"`
	Batch     int               `json:"batch"`
	Seed      uint64            `json:"seed"`
	Optimizer OptimizerSettings `json:"optimizer"`
	// Schedule counts steps: PerEpoch of them are an epoch.
	Schedule  Schedule  `json:"schedule"`
	Smoothing float64   `json:"label_smoothing,omitempty"`
	Weights   []float64 `json:"class_weights,omitempty"`
	Dropout   float64   `json:"dropout,omitempty"`
	// EMA is the decay of an exponential moving average of the weights; 0 keeps none.
	EMA float64 `json:"ema,omitempty"`
	// SWA is the epoch from whose end on weights are averaged evenly; 0 for never.
	SWA int `json:"swa,omitempty"`
	// FrozenNorm: batch norms keep their statistics, as for fine-tuning.
	FrozenNorm bool `json:"frozen_norm,omitempty"`
	// Data says what the images are, so that a run is not resumed on others.
	Data any `json:"data,omitempty"`
}

// PerEpoch is the number of steps of an epoch: the rest that fills no batch is left
// out, unless it is all there is.
func (c Config) PerEpoch(images int) int { return max(images/max(c.Batch, 1), 1) }

// Row is an epoch of the learning curves.
type Row struct {
	Epoch         int     `json:"epoch"`
	Step          int     `json:"step"`
	Rate          float64 `json:"learning_rate"`
	Loss          float64 `json:"train_loss"`
	Accuracy      float64 `json:"train_accuracy"` // in train mode, on augmented images
	ValidLoss     float64 `json:"validation_loss"`
	ValidAccuracy float64 `json:"validation_accuracy"`
	Seconds       float64 `json:"seconds"`
}

// Progress is told how a run goes on.
type Progress interface {
	Step(step, steps int, loss, rate float64)
	Epoch(Row)
}

// Task is a run.
type Task struct {
	Config
	Train, Valid Samples // Valid may be nil
	// Init are the weights to begin with; nil for new ones by the seed.
	Init *weights.StateDict
	// Dir is the folder of all that is written. It must exist.
	Dir     string
	Resume  bool
	Workers int
	Kernel  string
	// SaveEvery is how long work may be lost to a crash within an epoch; 0 saves at
	// the ends of epochs, and when the context ends.
	SaveEvery time.Duration
	Progress  Progress
}

// Files of a run.
const (
	StateFile  = "state.safetensors" // to resume from
	ModelFile  = "model.safetensors" // the weights of the last epoch
	BestFile   = "best.safetensors"  // of the epoch of the best validation accuracy
	EMAFile    = "ema.safetensors"
	SWAFile    = "swa.safetensors"
	CurvesFile = "curves.csv"
	LinesFile  = "curves.jsonl"
)

// runState is what a run remembers beside tensors.
type runState struct {
	Config  Config  `json:"config"`
	Step    int     `json:"step"`
	Loss    float64 `json:"loss"`    // sum over the epoch's steps
	Correct int     `json:"correct"` // images of the epoch
	Seconds float64 `json:"seconds"` // spent in the epoch
	Rows    []Row   `json:"rows"`
	Best    float64 `json:"best"`
}

// ErrDone is returned by a resumed run that had been finished.
var ErrDone = errors.New("the run is finished already")

// Run trains, writes learning curves and weights into the folder, and returns the
// curves. When the context ends it saves its state and returns the context's error.
// A loss that is no number is a DivergedError; what was saved stays. Only one run may
// train into a folder at a time.
func (t *Task) Run(ctx context.Context) ([]Row, error) {
	if t.Epochs < 1 || t.Batch < 1 || t.Train.Len() == 0 {
		return nil, fmt.Errorf("train: %d epochs in batches of %d of %d images", t.Epochs, t.Batch, t.Train.Len())
	}
	if err := t.Schedule.Validate(); err != nil {
		return nil, err
	}
	release, err := Lock(t.Dir)
	if err != nil {
		return nil, err
	}
	defer release()
	sd := t.Init
	if sd == nil {
		var err error
		if sd, err = arch.Init(t.Arch, arch.InitOptions{Classes: t.Classes, Seed: t.Seed}); err != nil {
			return nil, err
		}
	}
	net, err := arch.NewTrainee(t.Arch, sd, arch.TrainOptions{
		TrainOptions: nn.TrainOptions{Kernel: t.Kernel, Workers: t.Workers, MaxBatch: min(t.Batch, t.Train.Len()), FrozenNorm: t.FrozenNorm},
		Dropout:      t.Dropout,
	})
	if err != nil {
		return nil, err
	}
	if net.Classes != t.Classes {
		return nil, fmt.Errorf("train: the network has %d classes, the images %d", net.Classes, t.Classes)
	}
	optimizer, err := NewOptimizer(t.Optimizer, ParametersOf(net.Named))
	if err != nil {
		return nil, err
	}
	r := &run{Task: t, net: net, optimizer: optimizer, state: runState{Config: t.Config, Best: -1}}
	r.saved = &State{Network: sd, Optimizer: []*Optimizer{optimizer}, Extra: &r.state}
	if t.EMA > 0 {
		r.ema = NewAverage(t.EMA)
		r.saved.Averages = append(r.saved.Averages, r.ema)
	}
	if t.SWA > 0 {
		r.swa = NewAverage(0)
		r.saved.Averages = append(r.saved.Averages, r.swa)
	}
	if err := r.begin(); err != nil {
		return nil, err
	}
	if err := r.loop(ctx); err != nil {
		return r.state.Rows, err
	}
	return r.state.Rows, r.finishSWA(ctx)
}

type run struct {
	*Task
	net       *arch.Trainee
	optimizer *Optimizer
	ema, swa  *Average
	saved     *State
	state     runState
}

// begin resumes, if there is something to resume.
func (r *run) begin() error {
	path := filepath.Join(r.Dir, StateFile)
	if !r.Resume {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	want, err := canonical(r.Config)
	if err != nil {
		return err
	}
	if err := r.saved.Load(path); err != nil {
		return err
	}
	got, err := canonical(r.state.Config)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s is of a run with other settings; begin anew in another folder, or repeat them:\n was %v\n now %v", path, got, want)
	}
	// A run that was killed at its end has still to validate or to average.
	if len(r.state.Rows) < r.Epochs {
		return nil
	}
	if r.swa != nil {
		if _, err := os.Stat(filepath.Join(r.Dir, SWAFile)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return ErrDone
}

// canonical is a value as JSON has it.
func canonical(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var c any
	return c, json.Unmarshal(text, &c)
}

// plan lists the images of the batches from the given step on, to the end.
func (r *run) plan(from int) func(int) []Pick {
	n := r.Train.Len()
	per := r.PerEpoch(n)
	var order []int
	shuffled := -1
	return func(i int) []Pick {
		step := from + i
		epoch := step / per
		if epoch >= r.Epochs {
			return nil
		}
		if epoch != shuffled {
			order, shuffled = rand.New(rand.NewPCG(Seed(r.Seed, 1), uint64(epoch))).Perm(n), epoch
		}
		var picks []Pick
		for _, index := range order[step%per*r.Batch : min((step%per+1)*r.Batch, n)] {
			picks = append(picks, Pick{Samples: r.Train, Index: index, Augment: true, Seed: Seed(r.Seed, 2, uint64(epoch))})
		}
		return picks
	}
}

func (r *run) loop(ctx context.Context) error {
	per := r.PerEpoch(r.Train.Len())
	total := per * r.Epochs
	size := r.net.InputSize[0] * r.net.InputSize[1] * r.net.InputSize[2]
	loader := NewLoader(ctx, size, r.Workers, r.plan(r.state.Step))
	defer loader.Close()
	loss := CrossEntropy{Smoothing: r.Smoothing, Weights: r.Weights}
	grad := make([]float32, min(r.Batch, r.Train.Len())*r.Classes)
	lastSave, began := time.Now(), time.Now()
	if done := r.state.Step / per; r.state.Step%per == 0 && len(r.state.Rows) < done {
		// The run ended while it validated.
		if err := r.endEpoch(ctx, per, r.Schedule.At(r.state.Step-1)); err != nil {
			return err
		}
	}
	for r.state.Step < total {
		b, err := loader.Next()
		if ctx.Err() != nil {
			r.state.Seconds += time.Since(began).Seconds()
			if err := r.save(); err != nil {
				return err
			}
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		step := r.state.Step
		rate := r.Schedule.At(step)
		if err := r.net.Forward(b.Images, b.N, Seed(r.Seed, 3, uint64(step))); err != nil {
			return err
		}
		g := grad[:b.N*r.Classes]
		l := loss.Loss(r.net.Logits(), b.Labels, g)
		if err := CheckLoss(step, l); err != nil {
			return err
		}
		r.state.Loss += l
		r.state.Correct += Correct(r.net.Logits(), b.Labels)
		if err := r.net.Backward(g, nil); err != nil {
			return err
		}
		r.optimizer.Step(rate)
		if r.ema != nil {
			r.ema.Update(r.saved.Network)
		}
		r.state.Step++
		if r.Progress != nil {
			r.Progress.Step(r.state.Step, total, l, rate)
		}
		if r.state.Step%per == 0 {
			r.state.Seconds += time.Since(began).Seconds()
			if err := r.endEpoch(ctx, per, rate); err != nil {
				return err
			}
			lastSave, began = time.Now(), time.Now()
		} else if r.SaveEvery > 0 && time.Since(lastSave) > r.SaveEvery {
			if err := r.save(); err != nil {
				return err
			}
			lastSave = time.Now()
		}
	}
	return nil
}

// endEpoch validates and writes everything; the state comes last, so that what
// it remembers is there.
func (r *run) endEpoch(ctx context.Context, per int, rate float64) error {
	if err := r.save(); err != nil { // validating may take long
		return err
	}
	batch := min(r.Batch, r.Train.Len())
	row := Row{
		Epoch: r.state.Step / per, Step: r.state.Step, Rate: rate, Seconds: r.state.Seconds,
		Loss: r.state.Loss / float64(per), Accuracy: float64(r.state.Correct) / float64(per*batch),
	}
	if r.swa != nil && row.Epoch >= r.SWA {
		r.swa.Update(r.saved.Network)
	}
	m, err := r.net.Model()
	if err != nil {
		return fmt.Errorf("train: after epoch %d: %w", row.Epoch, err)
	}
	best := false
	if r.Valid != nil && r.Valid.Len() > 0 {
		if row.ValidLoss, row.ValidAccuracy, err = Evaluate(ctx, m, r.Valid, r.Batch, r.Workers, r.Kernel); err != nil {
			return err
		}
		if best = row.ValidAccuracy > r.state.Best; best {
			r.state.Best = row.ValidAccuracy
		}
	}
	r.state.Rows = append(r.state.Rows, row)
	r.state.Loss, r.state.Correct, r.state.Seconds = 0, 0, 0
	about := map[string]string{"arch": r.Arch, "epoch": strconv.Itoa(row.Epoch)}
	if err := SaveWeights(filepath.Join(r.Dir, ModelFile), r.saved.Network, about); err != nil {
		return err
	}
	if best {
		if err := SaveWeights(filepath.Join(r.Dir, BestFile), r.saved.Network, about); err != nil {
			return err
		}
	}
	if r.ema != nil {
		if err := SaveWeights(filepath.Join(r.Dir, EMAFile), r.ema.StateDict(), about); err != nil {
			return err
		}
	}
	if err := writeCurves(r.Dir, r.state.Rows); err != nil {
		return err
	}
	if err := r.save(); err != nil {
		return err
	}
	if r.Progress != nil {
		r.Progress.Epoch(row)
	}
	return nil
}

func (r *run) save() error { return r.saved.Save(filepath.Join(r.Dir, StateFile)) }

// finishSWA re-estimates the averaged network's batch norms and writes it.
func (r *run) finishSWA(ctx context.Context) error {
	if r.swa == nil || r.swa.Count() == 0 {
		return nil
	}
	for _, name := range r.saved.Network.Names() {
		to, _ := r.saved.Network.Lookup(name)
		from, _ := r.swa.StateDict().Lookup(name)
		copy(to.Data, from.Data)
	}
	if !r.FrozenNorm {
		per := r.PerEpoch(r.Train.Len())
		plan := r.plan((r.Epochs - 1) * per)
		size := r.net.InputSize[0] * r.net.InputSize[1] * r.net.InputSize[2]
		if err := RefreshNorms(r.net, NewLoader(ctx, size, r.Workers, plan)); err != nil {
			return err
		}
	}
	return SaveWeights(filepath.Join(r.Dir, SWAFile), r.saved.Network, map[string]string{"arch": r.Arch})
}

// Evaluate returns a model's mean cross-entropy and accuracy on samples.
func Evaluate(ctx context.Context, m *arch.Model, s Samples, batch, workers int, kernel string) (loss, accuracy float64, err error) {
	e, err := m.NewExtractor(arch.Request{Kernel: kernel}, batch, workers)
	if err != nil {
		return 0, 0, err
	}
	correct := 0
	err = Each(ctx, m.InputSize, s, batch, workers, func(b *Batch) error {
		out, err := e.Run(b.Images, b.N)
		if err != nil {
			return err
		}
		loss += CrossEntropy{}.Loss(out.Logits, b.Labels, nil) * float64(b.N)
		correct += Correct(out.Logits, b.Labels)
		return nil
	})
	n := float64(s.Len())
	return loss / n, float64(correct) / n, err
}

// Each calls f with all samples in order, in batches, as they are evaluated.
func Each(ctx context.Context, input [3]int, s Samples, batch, workers int, f func(*Batch) error) error {
	l := NewLoader(ctx, input[0]*input[1]*input[2], workers, func(i int) []Pick {
		var picks []Pick
		for k := i * batch; k < min((i+1)*batch, s.Len()); k++ {
			picks = append(picks, Pick{Samples: s, Index: k})
		}
		return picks
	})
	defer l.Close()
	for {
		b, err := l.Next()
		if b == nil {
			if err == io.EOF {
				return ctx.Err()
			}
			return err
		}
		if err := f(b); err != nil {
			return err
		}
	}
}

// writeCurves writes the learning curves as CSV and as lines of JSON.
func writeCurves(dir string, rows []Row) error {
	err := atomicfile.Write(filepath.Join(dir, LinesFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, CurvesFile), func(w io.Writer) error {
		c := csv.NewWriter(w)
		_ = c.Write([]string{"epoch", "step", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"})
		for _, r := range rows {
			row := []string{strconv.Itoa(r.Epoch), strconv.Itoa(r.Step)}
			for _, v := range []float64{r.Rate, r.Loss, r.Accuracy, r.ValidLoss, r.ValidAccuracy, math.Round(1000*r.Seconds) / 1000} {
				row = append(row, strconv.FormatFloat(v, 'g', 8, 64))
			}
			_ = c.Write(row)
		}
		c.Flush()
		return c.Error()
	})
}

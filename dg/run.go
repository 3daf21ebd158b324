package dg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"nac/arch"
	"nac/nn"
	"nac/train"
	"nac/weights"
)

// Config says how a network is trained and judged.
type Config struct {
	Dataset   string `json:"dataset"`
	Algorithm string `json:"algorithm"`
	Arch      string `json:"arch"`
	// Test are the domains left out.
	Test []string `json:"test_envs"`
	// TrialSeed splits the domains, Seed does everything else.
	TrialSeed int     `json:"trial_seed"`
	Seed      uint64  `json:"seed"`
	Holdout   float64 `json:"holdout_fraction"`
	HParams   HParams `json:"hparams"`
	// Steps is the number of steps; there is a checkpoint after every CheckpointEvery,
	// and after the first one.
	Steps           int              `json:"steps"`
	CheckpointEvery int              `json:"checkpoint_freq"`
	Coverage        CoverageSettings `json:"coverage_kwargs"`
	// SWAD averages weights densely; nil does not.
	SWAD *SWADSettings `json:"swad,omitempty"`
	// EvalImages bounds the images of each split that a checkpoint is judged by; 0 means
	// all.
	EvalImages int `json:"eval_images,omitempty"`
	// Init names the weights to begin with.
	Init string `json:"init,omitempty"`
}

// Rounded returns the number of steps that is done: the reference rounds it down to
// whole checkpoints, and does one more.
func (c Config) Rounded() int { return c.Steps/c.CheckpointEvery*c.CheckpointEvery + 1 }

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	switch {
	case c.Steps < 1 || c.Steps > 1e9:
		return fmt.Errorf("%d steps: want 1 to a billion", c.Steps)
	case c.CheckpointEvery < 1 || c.CheckpointEvery > c.Steps:
		return fmt.Errorf("a checkpoint every %d of %d steps", c.CheckpointEvery, c.Steps)
	case !(c.Holdout > 0 && c.Holdout < 1):
		return fmt.Errorf("a share of %v held out: want more than 0 and less than 1", c.Holdout)
	case c.EvalImages < 0:
		return fmt.Errorf("%d images to judge by", c.EvalImages)
	case len(c.Test) == 0:
		return errors.New("no domain is left out")
	}
	if err := c.Coverage.Validate(); err != nil {
		return err
	}
	if err := c.SWAD.Validate(); err != nil {
		return err
	}
	if c.Algorithm == "DANN" {
		if err := c.HParams.validateDANN(); err != nil {
			return err
		}
	}
	return c.HParams.Validate()
}

// Rate is the network's learning rate.
func (c Config) Rate() float64 {
	if c.Algorithm == "DANN" {
		return c.HParams.LRG
	}
	return c.HParams.LR
}

// optimizer returns the settings of the network's optimizers.
func (c Config) optimizer() (train.OptimizerSettings, error) {
	h := c.HParams
	if c.Algorithm != "DANN" {
		return optimizerSettings(h.Optimizer, h.WeightDecay)
	}
	s, err := optimizerSettings(h.Optimizer, h.WeightDecayG)
	if s.Kind != "sgd" {
		s.Beta1, s.Beta2 = h.Beta1, adversarialBeta2
	}
	return s, err
}

// Keep says which checkpoints' weights stay on the disk.
type Keep string

// What may be kept: those that are best by coverage and by validation and the last
// one, every one, or none.
const (
	KeepBest Keep = "best"
	KeepAll  Keep = "all"
	KeepNone Keep = "none"
)

// Progress is told how a run goes on.
type Progress interface {
	Step(step, steps int, loss float64)
	Checkpoint(r Record)
}

// Run is one training with domains left out.
type Run struct {
	Config
	Data *Dataset
	// Init are the weights to begin with; nil for new ones by the seed.
	Init *weights.StateDict
	// Dir is the folder of all that is written. It must exist.
	Dir     string
	Keep    Keep
	Workers int
	Kernel  string
	// SaveEvery is how long work may be lost to a crash between checkpoints.
	SaveEvery time.Duration
	Progress  Progress
}

// Files of a run.
const (
	ResultsFile  = "results.jsonl"
	StateFile    = "state.safetensors"
	ConfigFile   = "config.json"
	CoverageBest = "best_coverage.safetensors"
	ValidBest    = "best_validation.safetensors"
	LastFile     = "last.safetensors"
	SWADFile     = "swad.safetensors"
)

// runState is what a run remembers beside tensors.
type runState struct {
	Config  *Config            `json:"config"`
	Done    int                `json:"done"` // steps
	Losses  map[string]float64 `json:"losses"`
	Count   int                `json:"count"` // steps that Losses are the sums of
	Seconds float64            `json:"seconds"`
	Memory  []float64          `json:"memory,omitempty"`
	Valley  *valleyState       `json:"valley,omitempty"`
	Records []Record           `json:"records"`
}

type running struct {
	*Run
	net *arch.Trainee
	sd  *weights.StateDict // net's
	// Of all before the last linear layer, and of that.
	featurizer, classifier *train.Optimizer
	algorithm              Algorithm
	valley                 *lossValley // nil without SWAD
	in, out                []*subset   // of every domain
	test                   []int
	others                 []int // the training domains
	classes                [][][]int
	saved                  *train.State
	state                  runState
	batch                  Minibatches
}

// Do trains, judges every checkpoint and returns the records. A run whose state lies in
// the folder is gone on with; a finished one returns at once. When the context ends it
// saves its state and returns the context's error. A loss that is no number is a
// [train.DivergedError]; what was saved stays. Only one run may train into a folder at a
// time.
func (r *Run) Do(ctx context.Context) ([]Record, error) {
	release, err := train.Lock(r.Dir)
	if err != nil {
		return nil, err
	}
	defer release()
	s, err := r.start()
	if err != nil {
		return nil, err
	}
	// A run that was killed while it judged the last checkpoint has that left to do.
	if s.state.Done >= r.Rounded() && !s.due() {
		return s.state.Records, nil
	}
	err = s.loop(ctx)
	return s.state.Records, err
}

// start makes or loads everything.
func (r *Run) start() (*running, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("dg: %w", err)
	}
	s := &running{Run: r}
	var err error
	if err = s.split(); err != nil {
		return nil, err
	}
	sd := r.Init
	if sd == nil {
		sd, err = arch.Init(r.Arch, arch.InitOptions{Classes: len(r.Data.ClassNames), Channels: r.Data.Channels, Seed: r.Seed})
		if err != nil {
			return nil, err
		}
	}
	h := r.HParams
	most := h.BatchSize * len(s.others)
	s.net, err = arch.NewTrainee(r.Arch, sd, arch.TrainOptions{
		TrainOptions: nn.TrainOptions{Kernel: r.Kernel, Workers: r.Workers, MaxBatch: most, FrozenNorm: h.FreezeBN},
		Dropout:      h.Dropout,
	})
	if err != nil {
		return nil, err
	}
	if want := [3]int{r.Data.Channels, r.Data.Size, r.Data.Size}; s.net.InputSize != want {
		return nil, fmt.Errorf("dg: %s takes images of %v, %s has images of %v", r.Arch, s.net.InputSize, r.Data.Name, want)
	}
	if s.net.Classes != len(r.Data.ClassNames) {
		return nil, fmt.Errorf("dg: the network has %d classes, %s has %d", s.net.Classes, r.Data.Name, len(r.Data.ClassNames))
	}
	if s.algorithm, err = NewAlgorithm(r.Algorithm, h); err != nil {
		return nil, err
	}
	s.sd = sd
	s.batch = Minibatches{
		Domains: len(s.others), Classes: s.net.Classes, Labels: make([]int, most),
		GradLogits: make([]float32, most*s.net.Classes), GradFeatures: make([]float32, most*s.net.Features),
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return s, s.resume()
}

// prepare makes optimizers, and what the state saves.
func (s *running) prepare() error {
	settings, err := s.optimizer()
	if err != nil {
		return err
	}
	var before, last []*nn.Parameter
	for _, p := range s.net.Named {
		if slices.Contains(s.net.Classifier[:], p.Parameter) {
			last = append(last, p.Parameter)
		} else {
			before = append(before, p.Parameter)
		}
	}
	if s.featurizer, err = train.NewOptimizer(settings, before); err != nil {
		return err
	}
	if s.classifier, err = train.NewOptimizer(settings, last); err != nil {
		return err
	}
	s.state = runState{Config: &s.Config, Losses: map[string]float64{}}
	s.saved = &train.State{Network: s.sd, Optimizer: []*train.Optimizer{s.featurizer, s.classifier}, Extra: &s.state}
	if c, ok := s.algorithm.(company); ok {
		if err := c.begin(companyOf{s.net.Features, s.net.Classes, len(s.others), s.net.Classifier, train.Seed(s.Seed, 15)}); err != nil {
			return err
		}
		s.saved.Optimizer = append(s.saved.Optimizer, c.optimizers()...)
		s.saved.Network = union(s.sd, c.tensors())
	}
	if s.SWAD != nil {
		s.valley = newLossValley(*s.SWAD)
		s.saved.Averages = s.valley.averages()
		s.state.Valley = &s.valley.valleyState
	}
	return nil
}

// union is the tensors of both, which stay theirs.
func union(a, b *weights.StateDict) *weights.StateDict {
	u := weights.New(a.Source())
	for _, sd := range []*weights.StateDict{a, b} {
		for _, name := range sd.Names() {
			t, _ := sd.Lookup(name)
			u.Set(name, t)
		}
	}
	return u
}

func optimizerSettings(kind string, decay float64) (train.OptimizerSettings, error) {
	switch kind {
	case "adam":
		return train.Adam(decay), nil
	case "adamw":
		return train.AdamW(decay), nil
	case "sgd":
		// The reference's has no momentum.
		return train.SGD(0, false, decay), nil
	}
	return train.OptimizerSettings{}, fmt.Errorf("hyperparameters: no optimizer %q: want adam, adamw or sgd", kind)
}

// split splits the domains and looks whether there is enough of each.
func (s *running) split() error {
	for _, name := range s.Test {
		i, err := s.Data.Domain(name)
		if err != nil {
			return err
		}
		if slices.Contains(s.test, i) {
			return fmt.Errorf("domain %s is left out twice", name)
		}
		s.test = append(s.test, i)
	}
	slices.Sort(s.test)
	s.in, s.out = s.Data.Splits(s.TrialSeed, s.Holdout)
	for i, d := range s.Data.Domains {
		if s.in[i].Len() == 0 || s.out[i].Len() == 0 {
			return fmt.Errorf("domain %s: %d images are too few to hold a share of %v out", d.Name, d.Samples.Len(), s.Holdout)
		}
		if !slices.Contains(s.test, i) {
			s.others = append(s.others, i)
		}
	}
	if len(s.others) == 0 {
		return errors.New("every domain is left out; there is none to train on")
	}
	for _, i := range s.others {
		s.classes = append(s.classes, s.in[i].byClass(len(s.Data.ClassNames)))
	}
	return nil
}

// Splits returns the in-split and the out-split of every domain.
func (d *Dataset) Splits(trial int, holdout float64) (in, out []*subset) {
	for i, m := range d.Domains {
		a, b := Split(m.Samples.Len(), i, trial, holdout)
		in, out = append(in, &subset{m.Samples, a}), append(out, &subset{m.Samples, b})
	}
	return in, out
}

// resume loads the state, if there is one.
func (s *running) resume() error {
	path := filepath.Join(s.Dir, StateFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// Into another value: the run's own settings are to be compared with.
	loaded := runState{Losses: map[string]float64{}}
	s.saved.Extra = &loaded
	if err := s.saved.Load(path); err != nil {
		return err
	}
	if loaded.Config == nil || !reflect.DeepEqual(*loaded.Config, s.Config) {
		was, _ := json.Marshal(loaded.Config)
		now, _ := json.Marshal(s.Config)
		return fmt.Errorf("%s is of a run with other settings; begin anew in another folder, or repeat them:\n was %s\n now %s", path, was, now)
	}
	loaded.Config = &s.Config
	if s.valley != nil {
		if loaded.Valley == nil || !s.valley.fits(*loaded.Valley) {
			return fmt.Errorf("%s: the state of SWAD does not fit its settings", path)
		}
		s.valley.valleyState = *loaded.Valley
		loaded.Valley = &s.valley.valleyState
	}
	s.state = loaded
	s.saved.Extra = &s.state
	if m, ok := s.algorithm.(rememberer); ok {
		*m.memory() = s.state.Memory
	}
	// What the records say may be newer than the files, if the process was killed
	// between them.
	return s.write()
}

// plan lists the images of the steps from one to before another: of each training
// domain as many, drawn with replacement, as DomainBed draws them.
func (s *running) plan(from, to int) func(int) []train.Pick {
	return func(i int) []train.Pick {
		step := from + i
		if step >= to {
			return nil
		}
		picks := make([]train.Pick, 0, len(s.batch.Labels))
		for k, d := range s.others {
			seed := train.Seed(s.Seed, 11, uint64(step), uint64(d))
			r := rand.New(rand.NewPCG(seed, 0))
			for range s.HParams.BatchSize {
				index := 0
				if s.HParams.ClassBalanced {
					filled := s.classes[k]
					of := filled[r.IntN(len(filled))]
					for len(of) == 0 {
						of = filled[r.IntN(len(filled))]
					}
					index = of[r.IntN(len(of))]
				} else {
					index = r.IntN(s.in[d].Len())
				}
				// Drawn twice, an image is augmented in two ways.
				picks = append(picks, train.Pick{Samples: s.in[d], Index: index, Augment: true, Seed: train.Seed(seed, uint64(len(picks)))})
			}
		}
		return picks
	}
}

func (s *running) loop(ctx context.Context) error {
	input := s.net.InputSize
	loader := train.NewLoader(ctx, input[0]*input[1]*input[2], s.Workers, s.plan(s.state.Done, s.Rounded()))
	defer loader.Close()
	lastSave := time.Now()
	// A run that ended between a step and its evaluation evaluates first.
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	for s.state.Done < s.Rounded() {
		began := time.Now()
		b, err := loader.Next()
		if ctx.Err() != nil {
			if err := s.save(); err != nil {
				return err
			}
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		loss, err := s.step(b)
		if err != nil {
			return err
		}
		s.state.Seconds += time.Since(began).Seconds()
		if s.Progress != nil {
			s.Progress.Step(s.state.Done, s.Rounded(), loss)
		}
		if s.due() {
			if err := s.checkpoint(ctx); err != nil {
				return err
			}
			lastSave = time.Now()
		} else if s.SaveEvery > 0 && time.Since(lastSave) > s.SaveEvery {
			if err := s.save(); err != nil {
				return err
			}
			lastSave = time.Now()
		}
	}
	return nil
}

// step trains once.
func (s *running) step(b *train.Batch) (float64, error) {
	step := s.state.Done
	if a, ok := s.algorithm.(restarter); ok && step == a.restart() {
		s.featurizer.Reset()
		s.classifier.Reset()
	}
	m := &s.batch
	m.Step, m.Seed = step, train.Seed(s.Seed, 12, uint64(step))
	copy(m.Labels, b.Labels)
	if a, ok := s.algorithm.(mixer); ok {
		a.mix(b.Images, m, rand.New(rand.NewPCG(train.Seed(s.Seed, 12), uint64(step))))
	}
	passes := 1
	if a, ok := s.algorithm.(passer); ok {
		passes = a.passes()
	}
	first := 0.0
	for m.Pass = range passes {
		loss, err := s.pass(b)
		if err != nil {
			return loss, err
		}
		if m.Pass == 0 {
			first = loss
		}
	}
	s.state.Done++
	s.state.Count++
	s.state.Losses["loss"] += first
	if s.valley != nil {
		s.valley.step(step, s.sd)
	}
	return first, nil
}

// pass goes through the network once, there and back.
func (s *running) pass(b *train.Batch) (float64, error) {
	m := &s.batch
	if err := s.net.Forward(b.Images, b.N, train.Seed(s.Seed, 13, uint64(m.Step))); err != nil {
		return 0, err
	}
	m.Logits, m.Features = s.net.Logits(), s.net.Feature()
	clear(m.GradLogits)
	clear(m.GradFeatures)
	m.FrozenFeaturizer, m.FrozenClassifier = false, false
	loss, parts := s.algorithm.Loss(m)
	if err := train.CheckLoss(m.Step, loss); err != nil {
		return loss, err
	}
	for name, v := range parts {
		s.state.Losses[name] += v
	}
	if m.FrozenFeaturizer && m.FrozenClassifier {
		return loss, nil
	}
	if err := s.net.Backward(m.GradLogits, m.GradFeatures); err != nil {
		return loss, err
	}
	if c, ok := s.algorithm.(company); ok {
		c.finish()
	}
	if !m.FrozenFeaturizer {
		s.featurizer.Step(s.Rate())
	}
	if !m.FrozenClassifier {
		s.classifier.Step(s.Rate())
	}
	return loss, nil
}

// due tells whether the step that was just done is one of a checkpoint, which has no
// record yet.
func (s *running) due() bool {
	step := s.state.Done - 1
	if step < 0 || step%s.CheckpointEvery != 0 {
		return false
	}
	n := len(s.state.Records)
	return n == 0 || s.state.Records[n-1].Step < step
}

// checkpoint judges the network, if it is time to.
func (s *running) checkpoint(ctx context.Context) error {
	if !s.due() {
		return nil
	}
	if err := s.save(); err != nil { // judging may take long
		return err
	}
	began := time.Now()
	m, err := s.net.Model()
	if err != nil {
		return &train.DivergedError{Step: s.state.Done - 1, Loss: s.state.Losses["loss"]}
	}
	r, err := s.judge(ctx, m)
	if err != nil {
		return err
	}
	n := float64(s.state.Count)
	smallest := s.in[s.others[0]].Len()
	for _, d := range s.others {
		smallest = min(smallest, s.in[d].Len())
	}
	r.Step = s.state.Done - 1
	r.Epoch = float64(r.Step) * float64(s.HParams.BatchSize) / float64(smallest)
	r.StepSeconds, r.EvalSeconds = s.state.Seconds/n, time.Since(began).Seconds()
	for name, sum := range s.state.Losses {
		if name == "loss" {
			r.Loss = sum / n
			continue
		}
		if r.Parts == nil {
			r.Parts = map[string]float64{}
		}
		r.Parts[name] = sum / n
	}
	if s.Keep == KeepAll {
		r.Checkpoint = fmt.Sprintf("step%06d.safetensors", r.Step)
	}
	if s.valley != nil {
		s.valley.checkpoint(r.TrainOutLoss)
		if s.state.Done == s.Rounded() {
			if r.SWAD, err = s.average(ctx); err != nil {
				return err
			}
			if s.Keep != KeepNone {
				r.SWAD.Checkpoint = SWADFile
			}
		}
	}
	s.state.Records = append(s.state.Records, *r)
	s.state.Losses, s.state.Count, s.state.Seconds = map[string]float64{}, 0, 0
	if err := s.weights(); err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	if s.Progress != nil {
		s.Progress.Checkpoint(*r)
	}
	return nil
}

// weights writes the checkpoint files that the latest record asks for. They come before
// the state, so that what the state remembers is there.
func (s *running) weights() error {
	all := s.state.Records
	last := all[len(all)-1]
	about := map[string]string{"arch": s.Arch, "step": strconv.Itoa(last.Step), "dataset": s.Dataset, "algorithm": s.Algorithm}
	var names []string
	switch s.Keep {
	case KeepAll:
		names = []string{last.Checkpoint}
	case KeepBest:
		names = []string{LastFile}
		if best(all, byCoverage) == len(all)-1 {
			names = append(names, CoverageBest)
		}
		if best(all, byValidation) == len(all)-1 {
			names = append(names, ValidBest)
		}
	}
	for _, name := range names {
		if err := train.SaveWeights(filepath.Join(s.Dir, name), s.sd, about); err != nil {
			return err
		}
	}
	if a := last.SWAD; a != nil && a.Checkpoint != "" {
		return train.SaveWeights(filepath.Join(s.Dir, a.Checkpoint), a.sd, about)
	}
	return nil
}

func (s *running) save() error {
	if m, ok := s.algorithm.(rememberer); ok {
		s.state.Memory = *m.memory()
	}
	return s.saved.Save(filepath.Join(s.Dir, StateFile))
}

func (s *running) write() error {
	return writeRecords(filepath.Join(s.Dir, ResultsFile), s.state.Records, &s.Config)
}

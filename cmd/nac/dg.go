package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/dg"
	"nac/weights"
)

func newDGCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dg",
		Short: "Train for unseen domains and choose among checkpoints (NAC-ME)",
	}
	cmd.AddCommand(newDGTrainCommand(), newDGSweepCommand())
	return cmd
}

// dgFlags are the flags of dg train.
type dgFlags struct {
	dataset, data, algorithm, arch, test, initial, out string
	trial, steps, every, evalImages, workers           int
	seed                                               uint64
	holdout                                            float64
	hparams                                            []string
	hparamsFile, keep, kernel                          string
	missing, quiet, swad                               bool
	coverage                                           coverageFlags
}

// coverageFlags are NAC-ME's settings.
type coverageFlags struct {
	layer   string // config finds it if none is named
	m, o    int
	alpha   float64
	augment bool
}

func (f *coverageFlags) add(cmd *cobra.Command) {
	d, s := dg.DefaultCoverage(""), cmd.Flags()
	s.StringVar(&f.layer, "layer", "", "`layer` whose coverage is measured (default: the reference's)")
	s.IntVar(&f.m, "M", d.M, "thresholds per neuron, evenly in 0..1")
	s.IntVar(&f.o, "O", d.O, "images that make a bin fully covered; the default is for ten thousands of images")
	s.Float64Var(&f.alpha, "alpha", d.Alpha, "steepness of the sigmoid")
}

func (f *coverageFlags) settings(layer string) dg.CoverageSettings {
	return dg.CoverageSettings{Layer: layer, M: f.m, O: f.o, Alpha: f.alpha, Augment: f.augment}
}

func newDGTrainCommand() *cobra.Command {
	var f dgFlags
	cmd := &cobra.Command{
		Use:   "train --dataset NAME --data DIR --test-domain NAME --out DIR",
		Short: "Train with one domain left out and judge every checkpoint",
		Long: `Trains a network on all domains of a data set but those left out, as DomainBed
does, and judges every checkpoint: accuracy on each domain's splits, and NAC-ME, the
coverage of the neurons on the training domains. Then it tells what each way to
choose a checkpoint comes to on the domain left out.

Data sets: ` + list(dg.BenchmarkNames()) + `.
Algorithms: ` + list(dg.AlgorithmNames()) + `.

Into --out go results.jsonl, a line for each checkpoint, weights, and
state.safetensors: the same command goes on with a run that was ended.`,
		Example: `  nac dg train --dataset ColoredMNIST --data data --test-domain -90% --out run
  nac dg train --dataset PACS --data data --test-domain sketch --algorithm CORAL \
      --arch resnet50 --init resnet50.pth --hparam lr=3e-5 --out run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			run, err := f.run()
			if err != nil {
				return err
			}
			return runDG(cmd.Context(), run, f.quiet, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.add(cmd)
	s := cmd.Flags()
	s.StringVar(&f.test, "test-domain", "", "`names` of the domains left out, comma between")
	s.StringVar(&f.algorithm, "algorithm", "ERM", list(dg.AlgorithmNames()))
	s.IntVar(&f.trial, "trial-seed", 0, "seed of the splits")
	s.Uint64Var(&f.seed, "seed", 0, "seed of everything else")
	s.BoolVar(&f.quiet, "quiet", false, "no progress")
	complete(cmd, "algorithm", dg.AlgorithmNames)
	return cmd
}

// add adds the flags that dg train and dg sweep share.
func (f *dgFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.dataset, "dataset", "", "`name` of the data set")
	s.StringVar(&f.data, "data", "", "`folder` that holds the data set's folder, or is it")
	s.StringVar(&f.arch, "arch", "", "architecture, a `name` of \"nac arch\" (default: mnist_cnn or resnet50)")
	s.StringVar(&f.initial, "init", "", "begin with the weights of this `file`")
	s.StringVar(&f.out, "out", "", "`folder` for everything that is written")
	s.Float64Var(&f.holdout, "holdout", 0.2, "share of each domain that is held out")
	s.IntVar(&f.steps, "steps", 0, "steps (default: the data set's)")
	s.IntVar(&f.every, "checkpoint-freq", 0, "steps between checkpoints (default: the data set's)")
	s.IntVar(&f.evalImages, "eval-images", 0, "judge by at most so many images of each split; 0 for all")
	s.StringArrayVar(&f.hparams, "hparam", nil, "a hyperparameter, as `lr=0.001`; may be repeated")
	s.StringVar(&f.hparamsFile, "hparams", "", "YAML `file` of hyperparameters, also as the reference's")
	s.StringVar(&f.keep, "keep", string(dg.KeepBest), "weights to keep: best, all or none")
	s.BoolVar(&f.swad, "swad", false, "also average weights by SWAD and judge their mean")
	f.coverage.add(cmd)
	s.BoolVar(&f.coverage.augment, "coverage-augment", false, "measure coverage on augmented images, as the reference does but for MNIST")
	s.BoolVar(&f.missing, "allow-missing-classes", false, "a domain may lack classes that others have")
	s.IntVar(&f.workers, "workers", 0, "processors to use; 0 means all")
	s.StringVar(&f.kernel, "kernel", "", "instruction `set`: avx512, avx2 or portable (default: the best here)")
	complete(cmd, "dataset", dg.BenchmarkNames)
	complete(cmd, "arch", arch.Names)
}

// config checks the flags as far as that needs no data.
func (f *dgFlags) config() (c dg.Config, b dg.Benchmark, err error) {
	switch {
	case f.dataset == "":
		return c, b, usagef("--dataset is missing: one of %s", list(dg.BenchmarkNames()))
	case f.data == "":
		return c, b, usagef("--data is missing: the folder of the data set")
	case f.test == "":
		return c, b, usagef("--test-domain is missing: the domain that training shall not see")
	case f.out == "":
		return c, b, usagef("--out is missing: the folder for what is written")
	case f.workers < 0 || f.workers > maxWorkers:
		return c, b, usagef("--workers is %d; it must be 0 (all processors) to %d", f.workers, maxWorkers)
	}
	for _, choice := range []struct {
		flag, value string
		valid       []string
	}{
		{"--dataset", f.dataset, dg.BenchmarkNames()},
		{"--algorithm", f.algorithm, dg.AlgorithmNames()},
		{"--keep", f.keep, []string{string(dg.KeepBest), string(dg.KeepAll), string(dg.KeepNone)}},
	} {
		if err := oneOf(choice.flag, choice.value, choice.valid); err != nil {
			return c, b, err
		}
	}
	if b, err = dg.FindBenchmark(f.dataset); err != nil {
		return c, b, err
	}
	if f.arch == "" {
		f.arch = "resnet50"
		if b.Small() {
			f.arch = "mnist_cnn"
		}
	}
	if err := oneOf("--arch", f.arch, arch.Names()); err != nil {
		return c, b, err
	}
	h := dg.DefaultHParams(f.algorithm, b)
	if f.hparamsFile != "" {
		if err := h.ReadYAML(f.hparamsFile, f.algorithm, b); err != nil {
			return c, b, err
		}
	}
	for _, assignment := range f.hparams {
		if err := h.SetText(assignment); err != nil {
			return c, b, usageError{fmt.Errorf("--hparam: %w", err)}
		}
	}
	steps, every := b.Steps, b.CheckpointEvery
	if f.steps != 0 {
		steps = f.steps
	}
	if f.every != 0 {
		every = f.every
	}
	if f.coverage.layer == "" {
		if f.coverage.layer, err = coverageLayer(f.arch); err != nil {
			return c, b, err
		}
	}
	c = dg.Config{
		Dataset: f.dataset, Algorithm: f.algorithm, Arch: f.arch, Test: strings.Split(f.test, ","), TrialSeed: f.trial, Seed: f.seed,
		Holdout: f.holdout, HParams: h, Steps: steps, CheckpointEvery: every, Coverage: f.coverage.settings(f.coverage.layer),
		EvalImages: f.evalImages, Init: f.initial,
	}
	if f.swad {
		settings := dg.DefaultSWAD()
		c.SWAD = &settings
	}
	if err := c.Validate(); err != nil {
		return c, b, usageError{err}
	}
	return c, b, nil
}

// open opens the data set; it may take seconds.
func (f *dgFlags) open(b dg.Benchmark) (*dg.Dataset, error) {
	size, err := dgSize(f.arch)
	if err != nil {
		return nil, err
	}
	return b.Open(f.data, dg.OpenOptions{Seed: uint32(f.seed), Size: size, MissingClasses: f.missing})
}

func (f *dgFlags) run() (*dg.Run, error) {
	config, b, err := f.config()
	if err != nil {
		return nil, err
	}
	data, err := f.open(b)
	if err != nil {
		return nil, err
	}
	for _, name := range config.Test {
		if _, err := data.Domain(name); err != nil {
			return nil, usageError{fmt.Errorf("--test-domain: %w", err)}
		}
	}
	var initial *weights.StateDict
	if f.initial != "" {
		if initial, err = startFrom(f.arch, f.initial, len(data.ClassNames), f.seed); err != nil {
			return nil, err
		}
	}
	if err := prepareRunFolder(f.out, true); err != nil {
		return nil, err
	}
	return &dg.Run{Config: config, Data: data, Init: initial, Dir: f.out, Keep: dg.Keep(f.keep), Workers: f.workers, Kernel: f.kernel, SaveEvery: 5 * time.Minute}, nil
}

// coverageLayer is the layer that NAC-ME reads of an architecture.
func coverageLayer(name string) (string, error) {
	sd, err := arch.Init(name, arch.InitOptions{Classes: 2, Channels: 3})
	if err != nil {
		return "", err
	}
	m, err := arch.Load(name, sd)
	if err != nil {
		return "", err
	}
	return dg.CoverageLayer(m), nil
}

// dgSize is the side of the images that a network takes.
func dgSize(name string) (int, error) {
	in, err := inputSize(name, 2)
	return in[1], err
}

func runDG(ctx context.Context, run *dg.Run, quiet bool, stdout, stderr io.Writer) error {
	if !quiet {
		fmt.Fprintf(stderr, "%s on %s without %s: %s steps of %d images from each domain\n", run.Algorithm, run.Dataset,
			strings.Join(run.Test, ", "), thousands(run.Rounded()), run.HParams.BatchSize)
		run.Progress = &dgProgress{trainProgress{w: stderr, bars: isTerminal(stderr)}, run.Rate()}
	}
	records, err := run.Do(ctx)
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "nac: saved; go on with the same command")
		}
		return err
	}
	c, err := dg.Select(records)
	if err != nil {
		return err
	}
	t := newTable("selection", strings.Join(run.Test, ", "))
	rightAligned(t, 2)
	row := func(name string, value float64) {
		cell := "–"
		if !math.IsNaN(value) {
			cell = percent(value)
		}
		t.AppendRow(table.Row{name, cell})
	}
	row("oracle", c.Oracle)
	row("last", c.Last)
	row("training-domain validation", c.Validation)
	row("coverage", c.Coverage)
	if run.SWAD != nil {
		row("SWAD", float64(c.SWAD))
	}
	for _, kind := range []struct {
		ending string
		of     func(dg.Correlation) dg.Float
	}{
		{"rc", func(c dg.Correlation) dg.Float { return c.Reference }},
		{"r", func(c dg.Correlation) dg.Float { return c.Pearson }},
		{"tau", func(c dg.Correlation) dg.Float { return c.Kendall }},
	} {
		t.AppendSeparator()
		row("coverage_"+kind.ending, float64(kind.of(c.CoverageRC)))
		row("val_"+kind.ending, float64(kind.of(c.ValRC)))
		row("oracle_"+kind.ending, float64(kind.of(c.OracleRC)))
	}
	return printLines(stdout, t.Render(), correlationsTold, fmt.Sprintf("%d checkpoints: %s.", c.Checkpoints, filepath.Join(run.Dir, dg.ResultsFile)))
}

const correlationsTold = "_rc: rank correlation as the reference computes it; _r: Pearson's; _tau: Kendall's."

// dgProgress shows the steps, and a line for each checkpoint.
type dgProgress struct {
	trainProgress
	rate float64
}

func (p *dgProgress) Step(step, steps int, loss float64) {
	p.trainProgress.Step(step, steps, loss, p.rate)
}

func (p *dgProgress) Checkpoint(r dg.Record) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	p.latest = time.Now()
	fmt.Fprintf(p.w, "step %s: loss %.4f, validation %.2f %%, coverage %.4f, unseen domain %.2f %%\n",
		thousands(r.Step), r.Loss, 100*r.TrainOut, r.Coverage, 100*r.TestIn)
}

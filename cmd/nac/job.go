package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/internal/kernel"
	"nac/openood"
	"nac/probe"
	"nac/report"
)

// jobFlags are the flags that bench and quickstart share.
type jobFlags struct {
	settingsFlags
	cacheFlags
	apsFlags
	detectors      []string
	batch, workers int
	kernel         string
	images         int
	seed           uint32
	out, page      string
	sort           string
	quiet          bool
}

// kernelFlag is of the commands that run networks and do not train them.
func kernelFlag(f *pflag.FlagSet, set *string) {
	f.StringVar(set, "kernel", "", "instruction `set`: avx512, avx2 or portable, or bf16, which multiplies in bfloat16: faster, less exact (default: the best here in float32)")
}

func (j *jobFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&j.detectors, "detectors", []string{"nac", "msp", "mls", "ebo"}, "`names` of \"nac detectors\", or all")
	j.settingsFlags.add(f)
	f.IntVar(&j.batch, "batch", 64, "images of a batch")
	f.IntVar(&j.workers, "workers", 0, "processors to use; 0 means all")
	kernelFlag(f, &j.kernel)
	f.IntVar(&j.images, "images", 0, "training images to fit on; 0 means the benchmark's number")
	f.Uint32Var(&j.seed, "seed", 1, "seed for the choice of training images")
	f.StringVar(&j.out, "out", "", "`folder` for table.csv, report.json and the scores of every image")
	f.StringVar(&j.page, "report", "", "HTML `file` with tables and figures (default: report.html in --out)")
	f.StringVar(&j.sort, "sort", "auroc", "order of the detectors in the table: `auroc` (mean of near and far), near, far, fpr95, time, memory or given")
	f.BoolVar(&j.quiet, "quiet", false, "no progress")
	complete(cmd, "detectors", detector.Keys)
	complete(cmd, "sort", rankingNames)
	_ = cmd.MarkFlagDirname("out")
	_ = cmd.MarkFlagFilename("report", "html")
	_ = cmd.MarkFlagFilename("settings", "yaml", "yml")
}

// Bounds against a slip of the keyboard that would eat all memory.
const (
	maxBatch   = 4096
	maxWorkers = 1024
)

// check looks at everything that can be known before files are read.
func (j *jobFlags) check() error {
	switch {
	case j.batch < 1 || j.batch > maxBatch:
		return usagef("--batch is %d; it must be 1 to %d", j.batch, maxBatch)
	case j.workers < 0 || j.workers > maxWorkers:
		return usagef("--workers is %d; it must be 0 (all processors) to %d", j.workers, maxWorkers)
	case j.images < 0:
		return usagef("--images is %d; it must be above 0, or 0 for the benchmark's number", j.images)
	case len(j.detectors) == 0:
		return usagef("--detectors: none is named; there are %s", list(detector.Keys()))
	}
	if err := oneOf("--sort", j.sort, rankingNames()); err != nil {
		return err
	}
	set, err := kernel.ByName(j.kernel)
	if err != nil {
		return usagef("--kernel: %w", err)
	}
	j.kernel = set.Name()
	if slices.Equal(j.detectors, []string{"all"}) {
		j.detectors = detector.Keys()
	}
	for i, d := range j.detectors {
		if err := oneOf("--detectors", d, detector.Keys()); err != nil {
			return err
		}
		if slices.Contains(j.detectors[:i], d) {
			return usagef("--detectors: %s is there twice", d)
		}
	}
	return nil
}

// job is a benchmark to be run, on one checkpoint or on several training runs.
type job struct {
	*jobFlags
	benchmark openood.Benchmark
	layout    openood.Layout
	transform imageset.Transform
	onError   imageset.OnError
	runs      []trainingRun
	notes     []string          // to be printed with the results
	landscape *report.Landscape // of the first run's parameter search
	classes   []string          // names of labels, if they have any
	model     func(checkpoint string) (*arch.Model, error)
}

// run does the benchmark, prints its table to stdout and its progress to stderr.
func (j *job) run(ctx context.Context, stdout, stderr io.Writer) error {
	if _, err := j.methods(); err != nil {
		return err
	}
	for _, r := range j.runs {
		if j.out != "" {
			if err := prepareFolder(filepath.Join(j.out, r.name)); err != nil {
				return err
			}
		}
	}
	if err := prepareFile("--report", j.page); err != nil {
		return err
	}
	var reports []*openood.Report
	var maps []report.Map // of the first run
	for i, r := range j.runs {
		if len(j.runs) > 1 && !j.quiet {
			if err := printLines(stderr, fmt.Sprintf("run %d of %d: %s", i+1, len(j.runs), r.checkpoint)); err != nil {
				return err
			}
		}
		result, covered, err := j.one(ctx, r.checkpoint, stderr)
		if err != nil {
			return err
		}
		if j.out != "" {
			if err := writeFolder(ctx, filepath.Join(j.out, r.name), result); err != nil {
				return err
			}
		}
		if reports = append(reports, result); i == 0 {
			maps = covered
		}
	}
	if page := j.pageFile(); page != "" {
		if err := j.writePage(page, reports, maps); err != nil {
			return err
		}
	}
	if len(reports) == 1 {
		if j.out != "" {
			if err := writeOpenOOD(j.out, reports[0], nil); err != nil {
				return err
			}
		}
		if err := printReport(stdout, reports[0], j.sort); err != nil {
			return err
		}
	} else if err := j.summarize(stdout, reports); err != nil {
		return err
	}
	if j.out != "" {
		if err := printLines(stdout, "Written to "+j.out+": "+list(j.written())+"."); err != nil {
			return err
		}
	}
	if j.page != "" {
		return printLines(stdout, "Report: "+j.page)
	}
	return nil
}

// written names what is in the output folder.
func (j *job) written() []string {
	files := []string{"table.csv", "report.json", "scores/"}
	if len(j.runs) > 1 {
		files = []string{"table.csv", "summary.json"}
		for _, r := range j.runs {
			files = append(files, r.name+"/")
		}
	}
	if j.page == "" {
		files = append(files, "report.html")
	}
	files = append(files, "ood/")
	if j.benchmark.FullSpectrum {
		files = append(files, "fsood/")
	}
	return files
}

// summarize prints and writes the means of several training runs.
func (j *job) summarize(stdout io.Writer, reports []*openood.Report) error {
	mean, std, err := openood.Average(reports)
	if err != nil {
		return err
	}
	if j.out != "" {
		if err := writeSummary(j.out, j.runs, mean, std); err != nil {
			return err
		}
		if err := writeOpenOOD(j.out, mean, std); err != nil {
			return err
		}
	}
	return printSummary(stdout, j.runs, reports, mean, std, j.sort)
}

// one runs the benchmark on one checkpoint and draws what NAC covers.
func (j *job) one(ctx context.Context, checkpoint string, stderr io.Writer) (*openood.Report, []report.Map, error) {
	methods, err := j.methods()
	if err != nil {
		return nil, nil, err
	}
	m, err := j.model(checkpoint)
	if err != nil {
		return nil, nil, err
	}
	needs := probe.For(detectorsOf(methods)...)
	for _, l := range needs(probe.NetworkOf(m, j.transform.Std), detector.Scoring).Layers {
		if _, err := m.Layer(l); err != nil {
			return nil, nil, usagef("--layers: %w", err)
		}
	}
	h, w := j.transform.Size()
	if size := [3]int{3, h, w}; h > 0 && size != m.InputSize {
		return nil, nil, usagef("%s takes images of %dx%d, but benchmark %s has %dx%d", m.Name, m.InputSize[1], m.InputSize[2], j.benchmark.Name, h, w)
	}
	data, err := openood.Open(ctx, j.benchmark, j.layout, imageset.LoadOptions{
		Transform: j.transform, Height: m.InputSize[1], Width: m.InputSize[2],
		BatchSize: j.batch, Workers: j.workers, OnError: j.onError,
	}, j.images, j.seed)
	if err != nil {
		return nil, nil, err
	}
	if err := checkLabels(m, data); err != nil {
		return nil, nil, err
	}
	var progress openood.Progress
	if !j.quiet {
		progress = newProgress(stderr)
	}
	from := source{model: m, checkpoint: checkpoint, transform: j.transform, kernel: j.kernel, batch: j.batch, workers: j.workers}
	settings, err := j.settings(j.benchmark)
	if err != nil {
		return nil, nil, err
	}
	notes := slices.Concat(j.notes, setNote(settings.Params))
	if j.aps && slices.Contains(j.detectors, "nac") {
		var note string
		settings, note, err = j.tune(ctx, from, data, progress)
		if err != nil {
			return nil, nil, err
		}
		if methods, err = j.methodsOf(settings, nil); err != nil {
			return nil, nil, err
		}
		needs, notes = probe.For(detectorsOf(methods)...), append(slices.Clone(notes), note)
	}
	options := probe.Options{Kernel: j.kernel, MaxBatch: j.batch, Workers: j.workers, Std: j.transform.Std}
	said, err := j.use(data, from, j.benchmark.Name, needs(probe.NetworkOf(m, j.transform.Std), detector.Scoring))
	if err != nil {
		return nil, nil, err
	}
	if len(said) > 0 && !j.quiet {
		if err := printLines(stderr, said...); err != nil {
			return nil, nil, err
		}
	}
	var tuned []openood.Tuned
	if others := swept(j.detectors); j.aps && len(others) > 0 {
		var said []string
		open := func(needs probe.Needs) (openood.Probe, error) { return probe.New(m, needs, options) }
		if tuned, said, err = tuneOthers(ctx, others, settings, data, open, progress); err != nil {
			return nil, nil, err
		}
		if methods, err = j.methodsOf(settings, tuned); err != nil {
			return nil, nil, err
		}
		needs, notes = probe.For(detectorsOf(methods)...), slices.Concat(notes, said)
	}
	network, err := probe.New(m, needs, options)
	if err != nil {
		return nil, nil, err
	}
	result, err := openood.Run(ctx, data, network, methods, progress)
	if err != nil {
		return nil, nil, err
	}
	result.Benchmark, result.Network, result.Checkpoint = j.benchmark.Name, m.Name, checkpoint
	result.Tuned = tuned
	result.Transform, result.Notes = describe(j.transform), notes
	result.Kernel, result.Conventions = j.kernel, strings.Join(conventions, " ")
	maps, err := mapsOf(methods)
	return result, maps, err
}

func (j *job) methods() ([]openood.Method, error) {
	settings, err := j.settings(j.benchmark)
	if err == nil {
		err = j.used(settings.Params, j.detectors, settings.Fusion)
	}
	if err != nil {
		return nil, err
	}
	return j.methodsOf(settings, nil)
}

// methodsOf makes the detectors with the settings given, or those found for them.
func (j *job) methodsOf(given detector.Settings, tuned []openood.Tuned) ([]openood.Method, error) {
	var methods []openood.Method
	for _, key := range j.detectors {
		settings := given
		if i := slices.IndexFunc(tuned, func(t openood.Tuned) bool { return t.Key == key }); i >= 0 {
			settings = tuned[i].Settings
		}
		d, err := detector.New(key, settings)
		if err != nil {
			return nil, usageError{err}
		}
		methods = append(methods, openood.Method{Key: key, Detector: d})
	}
	return methods, nil
}

func detectorsOf(methods []openood.Method) []detector.Detector {
	var detectors []detector.Detector
	for _, m := range methods {
		detectors = append(detectors, m.Detector)
	}
	return detectors
}

// checkLabels finds a checkpoint of another data set: its accuracy would be a
// number all the same.
func checkLabels(m *arch.Model, data *openood.Data) error {
	sources := []openood.Source{data.Train, data.Val}
	if data.Test != nil {
		sources = append(sources, data.Test)
	}
	for _, s := range data.CSID {
		sources = append(sources, s.Source)
	}
	for _, s := range sources {
		for i, label := range s.Labels() {
			if label >= m.Classes {
				return fmt.Errorf("%s has label %d, but the checkpoint has only %d classes", s.Path(i), label, m.Classes)
			}
			if label < 0 {
				return fmt.Errorf("%s has label %d in a list of in-distribution images", s.Path(i), label)
			}
		}
	}
	return nil
}

func describe(t imageset.Transform) string {
	return fmt.Sprintf("resize %d %v, crop %d, mean %v, std %v", t.Resize, t.Filter, t.Crop, t.Mean, t.Std)
}

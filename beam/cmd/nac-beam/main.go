// Command nac-beam fits detectors, scores images and judges detectors on Apache Beam.
//
//	nac-beam fit   --model FILE --id-images IMAGES --out DETECTOR [--like DETECTOR]
//	nac-beam score --detector DETECTOR --out FOLDER IMAGES...
//	nac-beam bench --detector DETECTOR --id-images IMAGES --ood NAME=IMAGES,... --out FOLDER
//
// It runs on Prism in this process unless --runner and --endpoint name a Beam job server.
// Workers must see models, lists and images under the same paths.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/exec/optimized"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"

	"nac/beam/nacbeam"
	"nac/imageset"
	"nac/internal/atomicfile"
)

var (
	runner     = flag.String("runner", "prism", "`name` of the runner: prism in this process, or universal with --endpoint")
	model      = flag.String("model", "", "`file` of the classifier: .onnx, or a checkpoint with --arch")
	arch       = flag.String("arch", "", "architecture of a checkpoint, a `name` of \"nac arch\"")
	id         = flag.String("id-images", "", "ID `images`: a folder, list or tar archive")
	held       = flag.String("calibration", "", "ID `images` to calibrate on (default: a fifth of --id-images)")
	oodVal     = flag.String("ood-val", "", "OOD `images` to choose settings by")
	root       = flag.String("root", "", "`folder` that paths in lists are relative to (default: the list's)")
	method     = flag.String("method", "", "a `key` of \"nac detectors\" (default: nac_auto)")
	like       = flag.String("like", "", "take settings and transform from this `detector`: nac's images are then only counted")
	normalize  = flag.String("normalize", "imagenet", "take mean and std from this `preset`")
	mean       = flag.String("mean", "", "`mean` of red, green and blue in 0..1, as 0.485,0.456,0.406")
	std        = flag.String("std", "", "standard `deviation`, as 0.229,0.224,0.225")
	fpr        = flag.Float64("fpr", 0.05, "false-alarm `rate`")
	images     = flag.Int("images", 10_000, "most images to fit on, chosen at random")
	calibrated = flag.Int("calibration-images", 2_000, "most images to calibrate on, chosen at random")
	seed       = flag.Uint64("seed", 1, "seed for these choices")
	file       = flag.String("detector", "", "`file` of \"nac fit\" or of nac-beam fit")
	ood        = flag.String("ood", "", "OOD `sets`, NAME=IMAGES,...")
	out        = flag.String("out", "", "`file` for a detector, folder for scores and reports")
)

func init() {
	beam.RegisterDoFn(&reportsFn{})
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	args, err := workerArgs(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "nac-beam: worker:", err)
		os.Exit(1)
	}
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	if err := flag.CommandLine.Parse(args); err != nil {
		os.Exit(2)
	}
	beam.Init() // does not return in a worker
	if self, err := os.Executable(); err == nil && *jobopts.WorkerBinary == "" {
		*jobopts.WorkerBinary = self // what the runner stages; it would be compiled anew
	}
	if err := run(ctx, command, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nac-beam:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command string, places []string, stdout io.Writer) error {
	if *out == "" {
		return errors.New("--out is missing")
	}
	p, s := beam.NewPipelineWithRoot()
	said := ""
	var err error
	switch command {
	case "fit":
		said, err = fit(ctx, s)
	case "score":
		said, err = score(s, places)
	case "bench":
		said, err = bench(s)
	default:
		err = fmt.Errorf("%q: want fit, score or bench", command)
	}
	if err != nil {
		return err
	}
	if _, err := beam.Run(ctx, *runner, p); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, said)
	return err
}

func fit(ctx context.Context, s beam.Scope) (string, error) {
	if *model == "" || *id == "" {
		return "", errors.New("fit needs --model and --id-images")
	}
	t, err := transform()
	if err != nil {
		return "", err
	}
	c := nacbeam.FitConfig{
		Model: *model, Arch: *arch, ID: *id, Calibration: *held, ValOOD: *oodVal, Root: *root, Like: *like,
		Detector: *method, Rate: *fpr, Images: *images, CalibrationImages: *calibrated, Seed: *seed,
		Transform: t,
	}
	_, failed, err := nacbeam.Fit(ctx, s, c, *out)
	if err != nil {
		return "", err
	}
	nacbeam.WriteFailures(s, failed, *out+".failures")
	return "Written to " + *out, nil
}

// transform is --mean and --std, or else --normalize.
func transform() (t imageset.Transform, err error) {
	if *mean == "" && *std == "" {
		preset, err := imageset.Preset(*normalize)
		if err != nil {
			return t, fmt.Errorf("--normalize: %w", err)
		}
		t.Mean, t.Std = preset.Mean, preset.Std
		return t, nil
	}
	for _, f := range []struct {
		name, text string
		to         *[3]float32
	}{{"mean", *mean, &t.Mean}, {"std", *std, &t.Std}} {
		if _, err := fmt.Sscanf(f.text, "%g,%g,%g", &f.to[0], &f.to[1], &f.to[2]); err != nil {
			return t, fmt.Errorf("--%s: %q is not three numbers as 0.485,0.456,0.406", f.name, f.text)
		}
	}
	return t, nil
}

func score(s beam.Scope, places []string) (string, error) {
	if *file == "" || len(places) == 0 {
		return "", errors.New("score needs --detector and images")
	}
	for _, p := range places {
		if _, err := os.Stat(p); err != nil {
			return "", err
		}
	}
	scored, failed := nacbeam.Score(s, nacbeam.ReadImages(s, "images", places, *root), nacbeam.Detector{File: *file, Model: *model})
	nacbeam.WriteScores(s, scored, failed, *out)
	nacbeam.WriteFailures(s, failed, *out)
	return "Written to " + *out, nil
}

func bench(s beam.Scope) (string, error) {
	if *file == "" || *id == "" || *ood == "" {
		return "", errors.New("bench needs --detector, --id-images and --ood")
	}
	d := nacbeam.Detector{File: *file, Model: *model}
	points := func(name, place string, isOOD bool) beam.PCollection {
		scored, failed := nacbeam.Score(s, nacbeam.ReadImages(s, name, []string{place}, *root), d)
		nacbeam.WriteFailures(s, failed, filepath.Join(*out, name))
		return nacbeam.Points(s, scored, isOOD)
	}
	in := points("id", *id, false)
	var reports []beam.PCollection
	for _, set := range strings.Split(*ood, ",") {
		name, place, ok := strings.Cut(set, "=")
		if !ok {
			return "", fmt.Errorf("--ood: %q is not NAME=IMAGES", set)
		}
		reports = append(reports, nacbeam.Evaluate(s, name, beam.Flatten(s, in, points(name, place, true))))
	}
	path := filepath.Join(*out, "report.json")
	all := beam.GroupByKey(s, beam.AddFixedKey(s, beam.Flatten(s, reports...)))
	beam.ParDo(s, &reportsFn{File: path}, all)
	return "Written to " + path, nil
}

// reportsFn writes all reports to a file.
type reportsFn struct{ File string }

func (f *reportsFn) ProcessElement(_ int, reports func(*nacbeam.Report) bool, emit func(string)) error {
	var all []nacbeam.Report
	for {
		var r nacbeam.Report
		if !reports(&r) {
			break
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b nacbeam.Report) int { return strings.Compare(a.Name, b.Name) })
	if err := os.MkdirAll(filepath.Dir(f.File), 0o777); err != nil {
		return err
	}
	err := atomicfile.Write(f.File, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(all)
	})
	emit(f.File)
	return err
}

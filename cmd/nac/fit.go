package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nac"
	"nac/arch"
	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/remote"
)

func newFitCommand() *cobra.Command {
	var f fitFlags
	cmd := &cobra.Command{
		Use:   "fit --model FILE --id IMAGES -o DETECTOR",
		Short: "Fit a detector for a classifier of your own",
		Long: `Fits a detector for a classifier on in-distribution (ID) images, best those that the
classifier was trained on, and writes one file, which "nac score" needs.

--model is an ONNX model, or a checkpoint (PyTorch, safetensors) with its --arch.
--id is a folder, with a folder for each class or without; a list, lines of "path" or
"path label", relative to --root or to the list; a tar archive or a folder of them, as
WebDataset makes them. Labels are not needed. If there are some, whose numbers are the
classifier's classes, accuracy is checked.

Everything else is chosen: layers; settings, from ID images alone; mean and std
of the images, those of the usual ones with which the classifier classifies best. With
--ood-val, OOD images such as you expect, settings are chosen by AUROC. The detector is
nac_auto, coverage that needs the forward pass only; --detector nac is the published
one, whose parts can be merged.

A fifth of the images is held out to calibrate: an image is called OOD if at most
--fpr of ID images look as strange. That holds for images like those calibrated on: if
the classifier was trained on the ID images, give others to --calibration, or new
images will raise more false alarms than --fpr.

With --shard i/n the network is run over the i-th of n equal parts of the images, i from 0,
and --out is a folder for "nac merge", which makes the detector of all n: the very file that
one run would have written. Give --normalize, which each shard would else find out.`,
		Example: `  nac fit --model model.onnx --id train/ --calibration val/ -o detector.nac
  nac fit --model resnet20.th --arch resnet20 --id list.txt --root images -o detector.nac
  nac fit --model model.onnx --id shards/ --images 50000 --fpr 0.01 --ood-val odd/ -o detector.nac

  # in two shards, on two machines
  nac fit --model model.onnx --id train/ --normalize imagenet --shard 0/2 -o shard0
  nac fit --model model.onnx --id train/ --normalize imagenet --shard 1/2 -o shard1
  nac merge shard0 shard1 -o detector.nac

  # of parts that come one after the other
  nac fit --model model.onnx --id part1/ --detector nac -o a.nac
  nac fit --model model.onnx --id part2/ --like a.nac -o b.nac
  nac merge a.nac b.nac -o detector.nac`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.add(cmd)
	return cmd
}

type fitFlags struct {
	setFlag
	model, arch              string
	id, calibration, oodVal  string
	root                     string
	detector, settings, like string
	layers                   []string
	preset, filter           string
	resize, crop             int
	normalize                string
	mean, std                []float32
	fpr                      float64
	perClass                 bool
	images, held             int
	seed                     uint64
	onError, out             string
	quiet                    bool
	shard                    string
}

func (f *fitFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "`file` of the classifier: .onnx, or a checkpoint with --arch")
	fl.StringVar(&f.arch, "arch", "", "architecture of a checkpoint, a `name` of \"nac arch\"")
	fl.StringVar(&f.id, "id", "", "ID `images` to fit on: a folder, list or tar archive")
	fl.StringVar(&f.calibration, "calibration", "", "ID `images` to calibrate on, best unseen in training (default: a fifth of --id)")
	fl.StringVar(&f.oodVal, "ood-val", "", "OOD `images` to choose settings by")
	fl.StringVar(&f.root, "root", "", "`folder` that paths in lists are relative to (default: the list's)")
	fl.StringVarP(&f.out, "out", "o", "", "`file` for the detector")
	fl.StringVar(&f.detector, "detector", "", "a `key` of \"nac detectors\" (default: nac_auto; nac if the classifier does not end in a linear layer)")
	fl.StringSliceVar(&f.layers, "layers", nil, "`names` of the layers that the detector reads, see \"nac layers\" (default: chosen)")
	fl.StringVar(&f.settings, "settings", "", "YAML `file` with the detector's settings (default: chosen)")
	f.setFlag.add(fl)
	fl.StringVar(&f.like, "like", "", "take settings and transform from this `detector` of the same classifier, to merge them")
	fl.StringVar(&f.preset, "transform", "", "prepare images as for this `preset`: cifar10, imagenet, resnet50_v2, ...")
	fl.IntVar(&f.resize, "resize", 0, "bring the shorter side to this `length` (default: by the classifier's input)")
	fl.IntVar(&f.crop, "crop", 0, "cut a square of this `side` from the middle (default: the classifier's input)")
	fl.StringVar(&f.filter, "filter", "bilinear", "resize `bilinear` or bicubic")
	fl.StringVar(&f.normalize, "normalize", "", "take mean and std from this `preset` (default: the usual ones are tried)")
	fl.Float32SliceVar(&f.mean, "mean", nil, "mean of red, green and blue in 0..1, as `0.485,0.456,0.406`")
	fl.Float32SliceVar(&f.std, "std", nil, "standard deviation, as `0.229,0.224,0.225`")
	fl.Float64Var(&f.fpr, "fpr", 0.05, "false-alarm `rate`: share of ID images that may be called OOD")
	fl.BoolVar(&f.perClass, "per-class", false, "calibrate each predicted class by itself, where there are enough images")
	fl.IntVar(&f.images, "images", 10_000, "most images to fit on, chosen at random")
	fl.IntVar(&f.held, "calibration-images", 2_000, "most images to calibrate on, chosen at random")
	fl.Uint64Var(&f.seed, "seed", 1, "seed for these choices")
	fl.StringVar(&f.onError, "on-error", "stop", "an image that cannot be read: `stop`, or skip and report it")
	addShardFlag(cmd, &f.shard)
	fl.BoolVar(&f.quiet, "quiet", false, "no progress")
	complete(cmd, "arch", arch.Names)
	complete(cmd, "detector", detector.Keys)
	complete(cmd, "normalize", imageset.PresetNames)
	complete(cmd, "transform", imageset.PresetNames)
	for _, name := range []string{"model", "out", "like"} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.MarkFlagFilename("settings", "yaml", "yml")
	_ = cmd.MarkFlagDirname("root")
}

func (f *fitFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	for _, need := range []struct{ flag, value, what string }{
		{"--model", f.model, "the classifier's file"},
		{"--id", f.id, "images that the classifier knows"},
		{"--out", f.out, "the file to write the detector to"},
	} {
		if need.value == "" {
			return usagef("%s is missing: %s", need.flag, need.what)
		}
	}
	if err := checkArch(f.arch, f.model); err != nil {
		return err
	}
	of, err := parseShard(f.shard)
	if err != nil {
		return err
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	// Before hours of work: is there where to write?
	if info, err := os.Stat(filepath.Dir(f.out)); err != nil || !info.IsDir() {
		return usagef("--out: there is no folder %s", filepath.Dir(f.out))
	}
	id, err := imageset.Read(f.id, f.root)
	if err != nil {
		return fmt.Errorf("--id: %w", err)
	}
	if f.calibration != "" {
		if o.Calibration, err = imageset.Read(f.calibration, f.root); err != nil {
			return fmt.Errorf("--calibration: %w", err)
		}
	}
	if f.oodVal != "" {
		if o.ValOOD, err = imageset.Read(f.oodVal, f.root); err != nil {
			return fmt.Errorf("--ood-val: %w", err)
		}
	}
	file, err := filepath.Abs(f.model) // noted in the detector
	if err != nil {
		return err
	}
	m, err := nac.Open(file, f.arch)
	if err != nil {
		return err
	}
	if f.like != "" {
		if o.Like, err = nac.Load(f.like, nil); err != nil {
			return fmt.Errorf("--like: %w", err)
		}
	}
	for _, l := range []*imageset.List{&id, &o.Calibration, &o.ValOOD} {
		local := l.FS
		if local == nil {
			local = &imageset.Shards{}
		}
		l.FS = remote.FS{Context: ctx, Local: local}
	}
	if !f.quiet {
		stages := newStages(stderr)
		defer stages.end()
		o.Progress = stages.advance
	}
	if of.Of > 0 {
		if err := nac.FitShard(ctx, m, id, o, of, f.out); err != nil {
			return err
		}
		return printLines(stdout, fmt.Sprintf("Shard %v is in %s. When all %d are there: nac merge FOLDER... -o DETECTOR", of, f.out, of.Of))
	}
	d, err := nac.Fit(ctx, m, id, o)
	if err != nil {
		return err
	}
	if err := d.Save(f.out); err != nil {
		return err
	}
	return printLines(stdout, append(describeDetector(d.Info()), "Written to "+f.out+". Now: nac score "+f.out+" IMAGE...")...)
}

// options checks what can be known before files are read.
func (f *fitFlags) options() (o nac.FitOptions, err error) {
	if f.detector != "" {
		if err := oneOf("--detector", f.detector, detector.Keys()); err != nil {
			return o, err
		}
	}
	if !(f.fpr > 0 && f.fpr < 1) {
		return o, usagef("--fpr is %v; it must be above 0 and below 1", f.fpr)
	}
	if f.images < 1 || f.held < 1 {
		return o, usagef("--images and --calibration-images must be above 0")
	}
	o = nac.FitOptions{
		Detector: f.detector, Layers: f.layers, Rate: f.fpr, PerClass: f.perClass,
		Images: f.images, CalibrationImages: f.held, Seed: f.seed,
	}
	if o.OnError, err = parseOnError(f.onError); err != nil {
		return o, err
	}
	if o.Settings, err = f.ownSettings(); err != nil {
		return o, err
	}
	if f.preset != "" {
		if err := oneOf("--transform", f.preset, imageset.PresetNames()); err != nil {
			return o, err
		}
		if o.Transform, err = imageset.Preset(f.preset); err != nil {
			return o, err
		}
	}
	t := &o.Transform
	if f.resize != 0 || f.crop != 0 {
		t.Resize, t.Crop = f.resize, f.crop
	}
	filter, err := imageset.ParseFilter(f.filter)
	if err != nil {
		return o, usagef("--filter: %w", err)
	}
	if f.preset == "" {
		t.Filter = filter
	}
	if f.preset != "" || f.normalize != "" || f.mean != nil || f.std != nil {
		*t, err = normalize(*t, f.normalize, f.mean, f.std)
	}
	return o, err
}

// ownSettings reads --settings and --set; nac's layers must be complete there, as there is no
// benchmark to take the rest from.
func (f *fitFlags) ownSettings() (s detector.Settings, err error) {
	var file settingsFile
	if f.settings != "" {
		if file, err = readSettings(f.settings); err != nil {
			return s, err
		}
	}
	if s.Params, err = f.params(f.settings, file.Params); err != nil {
		return s, err
	}
	if f.like == "" || len(s.Params) == 0 {
		err = f.used(s.Params, []string{cmp.Or(f.detector, "nac_auto")}, nil)
	} else {
		err = usagef("--set: the settings are those of --like")
	}
	if err != nil {
		return s, err
	}
	for _, l := range file.Layers {
		if l.M == nil || l.O == nil || l.Alpha == nil {
			return s, usagef("--settings: %s: layer %s needs M, O and alpha", f.settings, l.Layer)
		}
		layer := coverage.LayerSettings{Layer: l.Layer, M: *l.M, O: *l.O, Alpha: *l.Alpha}
		replace(&layer.Func, l.Func)
		if err := layer.Validate(); err != nil {
			return s, usageError{err}
		}
		s.Layers = append(s.Layers, layer)
	}
	replace(&s.Temperature, file.Temperature)
	return s, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/imageset"
	"nac/train"
	"nac/weights"
)

func newTrainCommand() *cobra.Command {
	var (
		f       trainFlags
		initial string
	)
	cmd := &cobra.Command{
		Use:   "train --arch NAME --data DIR --out DIR",
		Short: "Train a classifier on a folder or list of images",
		Long: `Trains a network of "nac arch" and writes it so that "nac bench" and PyTorch load
it. Images come from a folder with a subfolder for each class, or from an
OpenOOD list of "path label" lines (--list, with --data as the folder that its
paths are relative to).

Validation images come from --valid (a folder of the same classes, or a list);
without it a tenth of the training images, drawn by the seed, is kept for that.

Into --out go curves.csv and curves.jsonl (loss and accuracy of each epoch),
classes.txt, model.safetensors (the last epoch), best.safetensors (the best on
validation), ema.safetensors and swa.safetensors if asked for, and
state.safetensors, from which --resume goes on: after Ctrl-C, a crash or a loss
of power, to the same bits as without.

Learning rates: --schedule cosine (to 0), linear, constant, or step, which
multiplies by --factor at each epoch of --milestones. Augmentations:
` + list(train.AugmentNames()) + ` (cifar: a border of 4, random place, flip;
imagenet: RandomResizedCrop, flip; domainbed: that and changes of colour).`,
		Example: `  nac train --arch resnet18_32x32 --data cifar/train --valid cifar/test --out run
  nac train --arch resnet18_32x32 --data cifar/train --out run --resume
  nac train --arch resnet50 --data photos --init resnet50.pth --frozen-norm \
      --optimizer adam --lr 5e-5 --schedule constant --epochs 20 --out tuned`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%q is no flag: the images' folder goes behind --data", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			task, classes, err := f.task(initial)
			if err != nil {
				return err
			}
			return runTraining(cmd.Context(), task, classes, f.quiet, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&initial, "init", "", "begin with the weights of this `file`; a last layer of other classes is made anew")
	_ = cmd.MarkFlagFilename("init")
	return cmd
}

// trainFlags are the flags of train.
type trainFlags struct {
	arch, data, listFile, valid, out string
	epochs, batch, workers           int
	seed                             uint64
	kernel                           string
	optimizer, schedule, augment     string
	normalize                        string
	rate, momentum, decay, factor    float64
	warmup                           float64
	milestones                       []int
	noNesterov, frozenNorm           bool
	smoothing, dropout, ema          float64
	weights                          []float64
	swa                              int
	resume, quiet                    bool
	saveEvery                        time.Duration
}

func (t *trainFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.arch, "arch", "", "architecture, a `name` of \"nac arch\"")
	f.StringVar(&t.data, "data", "", "`folder` of images, one subfolder a class")
	f.StringVar(&t.listFile, "list", "", "`file` of \"path label\" lines, instead of classes by folder")
	f.StringVar(&t.valid, "valid", "", "validation images: a `folder`, or a list if --list is given")
	f.StringVar(&t.out, "out", "", "`folder` for everything that is written")
	f.IntVar(&t.epochs, "epochs", 100, "passes over the images")
	f.IntVar(&t.batch, "batch", 128, "images of a step; a rest that fills no step is left out")
	f.StringVar(&t.optimizer, "optimizer", "sgd", "sgd (with Nesterov's momentum), adam or adamw")
	f.Float64Var(&t.rate, "lr", 0.1, "learning rate")
	f.Float64Var(&t.momentum, "momentum", 0.9, "of sgd")
	f.BoolVar(&t.noNesterov, "no-nesterov", false, "plain momentum")
	f.Float64Var(&t.decay, "weight-decay", 5e-4, "weight decay")
	f.StringVar(&t.schedule, "schedule", "cosine", list(train.ScheduleKinds))
	f.Float64Var(&t.warmup, "warmup", 0, "`epochs` in which the learning rate rises from 0")
	f.IntSliceVar(&t.milestones, "milestones", nil, "`epochs` at which schedule step lowers the rate")
	f.Float64Var(&t.factor, "factor", 0.1, "what schedule step multiplies the rate by")
	f.StringVar(&t.augment, "augment", "", list(train.AugmentNames())+" (default: cifar up to 64 pixels, else imagenet)")
	f.StringVar(&t.normalize, "normalize", "", "mean and std of this `preset` (default: cifar10 up to 64 pixels, else imagenet)")
	f.Float64Var(&t.smoothing, "label-smoothing", 0, "share of a label that goes to all classes")
	f.Float64SliceVar(&t.weights, "class-weights", nil, "a weight in the loss for each class")
	f.Float64Var(&t.dropout, "dropout", 0, "rate at which the last feature's values are dropped")
	f.Float64Var(&t.ema, "ema", 0, "decay of an exponential moving average of the weights, as 0.999; 0 for none")
	f.IntVar(&t.swa, "swa", 0, "`epoch` from which on weights are averaged evenly (SWA); 0 for never")
	f.BoolVar(&t.frozenNorm, "frozen-norm", false, "batch norms keep their statistics, for fine-tuning")
	f.Uint64Var(&t.seed, "seed", 1, "seed for weights, order, augmentation and split")
	f.IntVar(&t.workers, "workers", 0, "processors to use; 0 means all")
	f.StringVar(&t.kernel, "kernel", "", "instruction `set`: avx512, avx2 or portable (default: the best here)")
	f.BoolVar(&t.resume, "resume", false, "go on with the run in --out, if there is one")
	f.DurationVar(&t.saveEvery, "save-every", 10*time.Minute, "save within an epoch after so long; 0 for at its end only")
	f.BoolVar(&t.quiet, "quiet", false, "no progress")
	complete(cmd, "arch", arch.Names)
	complete(cmd, "augment", train.AugmentNames)
	complete(cmd, "normalize", imageset.PresetNames)
	for _, dir := range []string{"data", "out"} {
		_ = cmd.MarkFlagDirname(dir)
	}
}

func (t *trainFlags) check() error {
	switch {
	case t.arch == "":
		return usagef("--arch is missing: a name of \"nac arch\"")
	case t.data == "":
		return usagef("--data is missing: the folder of images")
	case t.out == "":
		return usagef("--out is missing: the folder for what is written")
	case t.epochs < 1 || t.epochs > 1e6:
		return usagef("--epochs is %d; it must be 1 to a million", t.epochs)
	case t.batch < 1 || t.batch > maxBatch:
		return usagef("--batch is %d; it must be 1 to %d", t.batch, maxBatch)
	case t.workers < 0 || t.workers > maxWorkers:
		return usagef("--workers is %d; it must be 0 (all processors) to %d", t.workers, maxWorkers)
	case !(t.smoothing >= 0 && t.smoothing < 1):
		return usagef("--label-smoothing is %v; it must be 0 to below 1", t.smoothing)
	case !(t.dropout >= 0 && t.dropout < 1):
		return usagef("--dropout is %v; it must be 0 to below 1", t.dropout)
	case !(t.ema >= 0 && t.ema < 1):
		return usagef("--ema is %v; it must be 0 to below 1", t.ema)
	case t.swa < 0 || t.swa > t.epochs:
		return usagef("--swa is %d; it must be one of the %d epochs, or 0", t.swa, t.epochs)
	case !(t.warmup >= 0 && t.warmup <= float64(t.epochs)):
		return usagef("--warmup is %v epochs of %d", t.warmup, t.epochs)
	}
	if err := oneOf("--arch", t.arch, arch.Names()); err != nil {
		return err
	}
	if err := oneOf("--schedule", t.schedule, train.ScheduleKinds); err != nil {
		return err
	}
	if t.schedule == "step" && len(t.milestones) == 0 {
		return usagef("--schedule step needs --milestones, the epochs at which the rate falls")
	}
	return nil
}

func (t *trainFlags) optimizerSettings() (train.OptimizerSettings, error) {
	s := train.SGD(t.momentum, !t.noNesterov && t.momentum > 0, t.decay)
	switch t.optimizer {
	case "adam":
		s = train.Adam(t.decay)
	case "adamw":
		s = train.AdamW(t.decay)
	case "sgd":
	default:
		return s, oneOf("--optimizer", t.optimizer, []string{"sgd", "adam", "adamw"})
	}
	if err := s.Validate(); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// task reads lists and settings.
func (t *trainFlags) task(initial string) (*train.Task, []string, error) {
	if err := t.check(); err != nil {
		return nil, nil, err
	}
	optimizer, err := t.optimizerSettings()
	if err != nil {
		return nil, nil, err
	}
	all, valid, err := t.lists()
	if err != nil {
		return nil, nil, err
	}
	classes := len(all.Classes)
	for _, it := range all.Items {
		if it.Label < 0 {
			return nil, nil, fmt.Errorf("%s: %s has no class; a folder for training holds a folder for each class", all.Name, it.Path)
		}
		classes = max(classes, it.Label+1)
	}
	if len(t.weights) > 0 && len(t.weights) != classes {
		return nil, nil, usagef("--class-weights are %d for %d classes", len(t.weights), classes)
	}
	size, err := inputSize(t.arch, classes)
	if err != nil {
		return nil, nil, err
	}
	if size[0] != 3 {
		return nil, nil, usagef("--arch %s takes images of %d channels; image files have 3", t.arch, size[0])
	}
	small := size[1] <= 64
	pick := func(given, ifSmall, otherwise string) string {
		switch {
		case given != "":
			return given
		case small:
			return ifSmall
		}
		return otherwise
	}
	augment, err := train.NamedAugment(pick(t.augment, "cifar", "imagenet"))
	if err != nil {
		return nil, nil, usageError{err}
	}
	preset, err := imageset.Preset(pick(t.normalize, "cifar10", "imagenet"))
	if err != nil {
		return nil, nil, usageError{err}
	}
	resize := size[1] * 8 / 7
	if small {
		resize = 0
	}
	files := func(l imageset.List) *train.Files {
		return &train.Files{List: l, Size: size[1], Resize: resize, Mean: preset.Mean, Std: preset.Std, Augment: augment}
	}
	trainSet, validSet := files(all), files(valid)
	if err := validSet.Check(classes); err != nil {
		return nil, nil, err
	}
	c := train.Config{
		Arch: t.arch, Classes: classes, Epochs: t.epochs, Batch: t.batch, Seed: t.seed, Optimizer: optimizer,
		Smoothing: t.smoothing, Weights: t.weights, Dropout: t.dropout, EMA: t.ema, SWA: t.swa, FrozenNorm: t.frozenNorm,
		Data: map[string]any{
			"data": t.data, "list": t.listFile, "images": len(all.Items), "validation_images": len(valid.Items),
			"augment": augment, "mean": preset.Mean, "std": preset.Std, "init": initial,
		},
	}
	per := c.PerEpoch(len(all.Items))
	c.Schedule = train.Schedule{
		Kind: t.schedule, Rate: t.rate, Warmup: int(math.Round(t.warmup * float64(per))), Total: per * t.epochs, Factor: t.factor,
	}
	for _, m := range t.milestones {
		c.Schedule.Milestones = append(c.Schedule.Milestones, m*per)
	}
	if err := c.Schedule.Validate(); err != nil {
		return nil, nil, usageError{err}
	}
	task := &train.Task{
		Config: c, Train: trainSet, Valid: validSet, Dir: t.out, Resume: t.resume,
		Workers: t.workers, Kernel: t.kernel, SaveEvery: t.saveEvery,
	}
	if initial != "" {
		if task.Init, err = startFrom(t.arch, initial, classes, t.seed); err != nil {
			return nil, nil, err
		}
	}
	if err := prepareRunFolder(t.out, t.resume); err != nil {
		return nil, nil, err
	}
	return task, all.Classes, nil
}

// lists returns the training and the validation images.
func (t *trainFlags) lists() (all, valid imageset.List, err error) {
	read := func(path string) (imageset.List, error) {
		if t.listFile != "" {
			return imageset.ReadList(path, t.data)
		}
		return imageset.ReadFolder(path)
	}
	first := t.data
	if t.listFile != "" {
		first = t.listFile
	}
	if all, err = read(first); err != nil {
		return all, valid, err
	}
	if len(all.Items) == 0 {
		return all, valid, fmt.Errorf("%s: no images", first)
	}
	if t.valid != "" {
		if valid, err = read(t.valid); err != nil {
			return all, valid, err
		}
		if all.Classes != nil && strings.Join(valid.Classes, "/") != strings.Join(all.Classes, "/") {
			return all, valid, fmt.Errorf("%s has the classes %s, %s has %s", t.valid, list(valid.Classes), first, list(all.Classes))
		}
		return all, valid, nil
	}
	var keep, hold []imageset.Item
	for i, it := range all.Items {
		if train.Seed(t.seed, 4, uint64(i))%10 == 0 {
			hold = append(hold, it)
		} else {
			keep = append(keep, it)
		}
	}
	if len(keep) == 0 {
		return all, valid, fmt.Errorf("%s: %d images are too few to keep some for validation", first, len(all.Items))
	}
	valid = all
	valid.Name, valid.Items, all.Items = all.Name+" (validation)", hold, keep
	return all, valid, nil
}

// inputSize is the size of the images that a new network of the architecture takes.
func inputSize(name string, classes int) ([3]int, error) {
	sd, err := arch.Init(name, arch.InitOptions{Classes: classes, Channels: 3})
	if err != nil {
		return [3]int{}, err
	}
	m, err := arch.Load(name, sd)
	if err != nil {
		return [3]int{}, err
	}
	return m.InputSize, nil
}

// startFrom opens a checkpoint; tensors of another shape than the network has with so
// many classes, which may be the last layer's only, are made anew.
func startFrom(name, file string, classes int, seed uint64) (*weights.StateDict, error) {
	given, err := weights.Open(file)
	if err != nil {
		return nil, err
	}
	m, err := arch.Load(name, given)
	if err != nil {
		return nil, err
	}
	if m.Classes == classes {
		return given, nil
	}
	fresh, err := arch.Init(name, arch.InitOptions{Classes: classes, Channels: m.InputSize[0], Seed: seed})
	if err != nil {
		return nil, err
	}
	for _, tensor := range fresh.Names() {
		to, _ := fresh.Lookup(tensor)
		from, ok := given.Lookup(tensor)
		if ok && len(from.Data) == len(to.Data) {
			copy(to.Data, from.Data)
		}
	}
	return fresh, nil
}

// prepareRunFolder makes the folder of a run and refuses to begin over another's.
func prepareRunFolder(dir string, resume bool) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, train.StateFile)); err == nil && !resume {
		return usagef("--out: %s holds a run already; --resume goes on with it", dir)
	}
	f, err := os.CreateTemp(dir, ".nac-*.tmp")
	if err != nil {
		return fmt.Errorf("--out: cannot write to the folder: %w", err)
	}
	f.Close()
	return os.Remove(f.Name())
}

func runTraining(ctx context.Context, task *train.Task, classes []string, quiet bool, stdout, stderr io.Writer) error {
	if len(classes) > 0 {
		if err := os.WriteFile(filepath.Join(task.Dir, "classes.txt"), []byte(strings.Join(classes, "\n")+"\n"), 0o666); err != nil {
			return err
		}
	}
	if !quiet {
		fmt.Fprintf(stderr, "%s, %d classes: %s images for training, %s for validation, %d epochs of %d steps\n", task.Arch, task.Classes,
			thousands(task.Train.Len()), thousands(task.Valid.Len()), task.Epochs, task.PerEpoch(task.Train.Len()))
		task.Progress = &trainProgress{w: stderr, bars: isTerminal(stderr)}
	}
	rows, err := task.Run(ctx)
	if errors.Is(err, train.ErrDone) {
		return printLines(stdout, task.Dir+" is finished already: "+train.ModelFile+".")
	}
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(stderr, "nac: saved; go on with the same command and --resume\n")
		}
		return err
	}
	last, best := rows[len(rows)-1], rows[0]
	for _, r := range rows {
		if r.ValidAccuracy > best.ValidAccuracy {
			best = r
		}
	}
	return printLines(stdout,
		fmt.Sprintf("Validation accuracy %.2f %% after epoch %d, the best %.2f %% after epoch %d.", 100*last.ValidAccuracy, last.Epoch, 100*best.ValidAccuracy, best.Epoch),
		fmt.Sprintf("Written to %s: %s, %s, %s, %s.", task.Dir, train.ModelFile, train.BestFile, train.CurvesFile, train.LinesFile),
		fmt.Sprintf("Use it: nac bench ... --arch %s --checkpoint %s", task.Arch, filepath.Join(task.Dir, train.BestFile)))
}

// trainProgress shows a bar on a terminal, and a line after each epoch.
type trainProgress struct {
	w      io.Writer
	bars   bool
	bar    *progressbar.ProgressBar
	latest time.Time
}

func (p *trainProgress) Step(step, steps int, loss, rate float64) {
	if p.bars {
		if p.bar == nil {
			p.bar = progressbar.NewOptions(steps,
				progressbar.OptionSetWriter(p.w), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetItsString("steps"), progressbar.OptionSetWidth(24),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		p.bar.Describe(fmt.Sprintf("loss %.4f", loss))
		_ = p.bar.Set(step)
		return
	}
	if p.latest.IsZero() {
		p.latest = time.Now()
	}
	if time.Since(p.latest) > 30*time.Second {
		p.latest = time.Now()
		fmt.Fprintf(p.w, "step %s of %s: loss %.4f, learning rate %.3g\n", thousands(step), thousands(steps), loss, rate)
	}
}

func (p *trainProgress) Epoch(r train.Row) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	p.latest = time.Now()
	fmt.Fprintf(p.w, "epoch %d: loss %.4f, accuracy %.2f %%; validation loss %.4f, accuracy %.2f %%; %s\n",
		r.Epoch, r.Loss, 100*r.Accuracy, r.ValidLoss, 100*r.ValidAccuracy, seconds(r.Seconds))
}

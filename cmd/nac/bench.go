package main

import (
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/imageset"
	"nac/openood"
)

func newBenchCommand() *cobra.Command {
	var (
		flags                 jobFlags
		name, checkpoint      string
		runs                  []string
		fsood                 string
		data, normalize, skip string
		mean, std             []float32
	)
	cmd := &cobra.Command{
		Use:   "bench BENCHMARK --checkpoint FILE --data DIR",
		Short: "Run an OOD benchmark on a checkpoint",
		Long: `Runs a benchmark of OpenOOD v1.5: fits detectors on in-distribution (ID) training
images, scores the ID test images and the near-OOD and far-OOD sets, and prints
FPR@95TPR, AUROC, AUPR and ID accuracy. Benchmarks: ` + list(benchmarkNames()) + `.
Near-OOD sets are always run.

--data is a folder laid out as OpenOOD lays it out:

  DIR/benchmark_imglist/cifar10/test_cifar10.txt    lines of "path label"
  DIR/images_classic/...                            what the paths are relative to

Images of cifar10 and cifar100 are in images_classic, those of imagenet200 and imagenet
(but textures) in images_largescale.

OOD sets whose list is absent are left out, and the output says so. ID training
images are those of main_train_BENCHMARK.txt, else of train_BENCHMARK.txt;
--images of them are used, as many of each class.

--checkpoint may be a folder of training runs s0, s1, ... as OpenOOD lays them out; --runs
chooses among them, or names files and folders by itself. Results are then means
with standard deviations over the runs.

--fsood adds full-spectrum results: covariate-shifted ID sets (corrupted, rendered, ...)
count as ID too. --fsood=imagenet_v2,imagenet_r names those to be used.

Sets whose neuron states "nac states" has kept are read from there, and the output says
so; results are the same to the last bit. --aps chooses settings by validation images
first: nac's as "nac search" does, those of other detectors from OpenOOD's sweeps.

Detectors are sorted by the mean of near and far AUROC, or by --sort.

--set sets any number of a detector, as knn.K=100,odin.noise=0.002; "nac detectors
--settings" lists them. Those that --aps chooses cannot be set beside it. What a run used
is in its output and in report.json.

The mean and std that images are normalised with belong to the checkpoint. The
default is the benchmark's; a checkpoint that was trained with another needs
--normalize or --mean and --std, or its accuracy will be low.

nac's settings are published for

  ` + recipeNames() + `

For another network give a YAML file to --settings, or --M, --O, --alpha, --state:

` + settingsExample,
		Example: `  nac bench cifar10 --checkpoint best.ckpt --data data
  nac bench cifar100 --checkpoint cifar100_resnet18_32x32_base_e100_lr0.1_default --data data
  nac bench imagenet --arch vit-b-16 --checkpoint vit_b_16-c867db91.pth --data data --fsood

  nac bench cifar10 --arch resnet20 --checkpoint resnet20.th --normalize imagenet \
      --layers avgpool,layer3,layer2,layer1 --data data --out results

  nac bench cifar10 --checkpoint best.ckpt --data data --aps
  nac bench cifar10 ... --detectors nac --layers avgpool --M 50 --O 30 --alpha 3.1
  nac bench cifar10 ... --alpha avgpool=100,layer3=1000 --on-error skip
  nac bench cifar10 ... --detectors knn,opengan --set knn.K=100,opengan.seed=1`,
		ValidArgs: benchmarkNames(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one benchmark: %s", list(benchmarkNames()))
			}
			return oneOf("benchmark", args[0], benchmarkNames())
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := lookupBenchmark(args[0])
			if err != nil {
				return err
			}
			if err := flags.check(); err != nil {
				return err
			}
			if err := flags.apsFlags.check(cmd, flags.detectors, &flags.settingsFlags); err != nil {
				return err
			}
			name = archName(name)
			if name != "" {
				if err := oneOf("--arch", name, arch.Names()); err != nil {
					return err
				}
			}
			models, err := trainingRuns(checkpoint, runs)
			if err != nil {
				return err
			}
			if name == "" && !isONNX(models[0].checkpoint) {
				name = b.Recipes[0].Arch
			}
			for _, m := range models {
				if err := checkArch(name, m.checkpoint); err != nil {
					return err
				}
			}
			if data == "" {
				return usagef("--data is missing: the folder that holds benchmark_imglist and images_classic")
			}
			b, tuned := b.For(name)
			if err := withCSID(&b, fsood); err != nil {
				return err
			}
			t, err := normalized(b, normalize, mean, std)
			if err != nil {
				return err
			}
			onError, err := parseOnError(skip)
			if err != nil {
				return err
			}
			j := job{
				jobFlags: &flags, benchmark: b, layout: openood.Layout{Dir: data},
				transform: t, onError: onError, runs: models,
				model: func(file string) (*arch.Model, error) { return openModel(name, file) },
			}
			j.notes = notes(b, &flags, tuned)
			return j.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addModelFlags(cmd, &name, &checkpoint)
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "`folder` of lists and images")
	f.StringVar(&normalize, "normalize", "", "take mean and std from this `preset`: cifar10, cifar100, imagenet, ...")
	f.Float32SliceVar(&mean, "mean", nil, "mean of red, green and blue in 0..1, as `0.485,0.456,0.406`")
	f.Float32SliceVar(&std, "std", nil, "standard deviation, as `0.229,0.224,0.225`")
	f.StringVar(&skip, "on-error", "stop", "an image that cannot be read: `stop`, or skip and report it")
	f.StringSliceVar(&runs, "runs", nil, "training runs to average: `names` in the folder of --checkpoint, or files and folders")
	f.StringVar(&fsood, "fsood", "", "also full-spectrum OOD detection, with all covariate-shifted ID `sets` or those named")
	f.Lookup("fsood").NoOptDefVal = "all"
	complete(cmd, "normalize", imageset.PresetNames)
	_ = cmd.MarkFlagDirname("data")
	flags.add(cmd)
	flags.cacheFlags.add(cmd, "`folder` of neuron states to read where it has them; off for none (default: nac-states/... below --data, if it fits)")
	flags.apsFlags.add(cmd)
	return cmd
}

// normalized returns the benchmark's transform with the checkpoint's mean and std.
func normalized(b openood.Benchmark, preset string, mean, std []float32) (imageset.Transform, error) {
	t, err := transformOf(b)
	if err != nil {
		return t, err
	}
	return normalize(t, preset, mean, std)
}

// normalize replaces a transform's mean and std by those given, if any.
func normalize(t imageset.Transform, preset string, mean, std []float32) (imageset.Transform, error) {
	if preset != "" {
		if mean != nil || std != nil {
			return t, usagef("--normalize %s already says mean and std: leave out --mean and --std", preset)
		}
		if err := oneOf("--normalize", preset, imageset.PresetNames()); err != nil {
			return t, err
		}
		p, err := imageset.Preset(preset)
		if err != nil {
			return t, err
		}
		t.Mean, t.Std = p.Mean, p.Std
	}
	if (mean == nil) != (std == nil) {
		return t, usagef("--mean and --std go together")
	}
	if mean != nil {
		if len(mean) != 3 || len(std) != 3 {
			return t, usagef("--mean and --std take three numbers each, for red, green and blue")
		}
		t.Mean, t.Std = [3]float32(mean), [3]float32(std)
	}
	if err := t.Validate(); err != nil {
		return t, usageError{err}
	}
	return t, nil
}

func parseOnError(s string) (imageset.OnError, error) {
	switch s {
	case "stop":
		return imageset.Stop, nil
	case "skip":
		return imageset.Skip, nil
	}
	return 0, oneOf("--on-error", s, []string{"stop", "skip"})
}

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
		data, normalize, skip string
		mean, std             []float32
	)
	cmd := &cobra.Command{
		Use:   "bench BENCHMARK --arch NAME --checkpoint FILE --data DIR",
		Short: "Run an OOD benchmark on a checkpoint",
		Long: `Runs a benchmark of OpenOOD v1.5: fits detectors on in-distribution (ID) training
images, scores the ID test images and the near-OOD and far-OOD sets, and prints
FPR@95TPR, AUROC, AUPR and ID accuracy. Benchmarks: ` + list(benchmarkNames()) + `.

--data is a folder laid out as OpenOOD lays it out:

  DIR/benchmark_imglist/cifar10/test_cifar10.txt    lines of "path label"
  DIR/images_classic/...                            what the paths are relative to

OOD sets whose list is absent are left out, and the output says so. ID training
images are those of main_train_BENCHMARK.txt, else of train_BENCHMARK.txt;
--images of them are used, as many of each class.

The mean and std that images are normalised with belong to the checkpoint. The
default is the benchmark's; a checkpoint that was trained with another needs
--normalize or --mean and --std, or its accuracy will be low.

nac's settings are the published ones for the benchmark, tuned for ResNet-18.
For another network give a YAML file to --settings, or --M, --O, --alpha, --state:

` + settingsExample,
		Example: `  nac bench cifar10 --arch resnet18_32x32 --checkpoint best.ckpt --data data

  nac bench cifar10 --arch resnet20 --checkpoint resnet20.th --normalize imagenet \
      --layers avgpool,layer3,layer2,layer1 --data data --out results

  nac bench cifar10 ... --detectors nac --layers avgpool --M 50 --O 30 --alpha 3.1
  nac bench cifar10 ... --alpha avgpool=100,layer3=1000 --on-error skip`,
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
			if err := checkArch(name, checkpoint); err != nil {
				return err
			}
			if checkpoint == "" {
				return usagef("--checkpoint is missing: the file with the network's weights")
			}
			if data == "" {
				return usagef("--data is missing: the folder that holds benchmark_imglist and images_classic")
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
				transform: t, onError: onError, checkpoint: checkpoint,
				model: func() (*arch.Model, error) { return openModel(name, checkpoint) },
			}
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
	complete(cmd, "normalize", imageset.PresetNames)
	_ = cmd.MarkFlagDirname("data")
	flags.add(cmd)
	return cmd
}

// normalized returns the benchmark's transform with the checkpoint's mean and std.
func normalized(b openood.Benchmark, preset string, mean, std []float32) (imageset.Transform, error) {
	t, err := transformOf(b)
	if err != nil {
		return t, err
	}
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

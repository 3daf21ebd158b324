package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"nac/openood"
)

func newSplitCommand() *cobra.Command {
	var (
		data    string
		images  int
		seed    uint32
		replace bool
	)
	cmd := &cobra.Command{
		Use:   "split BENCHMARK... --data DIR",
		Short: "Set training images aside for the overfitting check",
		Long: `Splits train_BENCHMARK.txt in DIR/benchmark_imglist/BENCHMARK into two lists beside
it: sub_train_BENCHMARK.txt, images set aside for the overfitting check, as many of each
class, and main_train_BENCHMARK.txt, the others, that detectors are fitted on. With the
same seed these are the images, in the same order, of the reference's split.

"nac bench" reads these lists if they are there. It can do without: then it sets
other training images aside by itself.`,
		Example: `  nac split cifar10 cifar100 imagenet200 imagenet --data data
  nac split cifar10 --data data --images 5000 --seed 2 --replace`,
		ValidArgs: benchmarkNames(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("name a benchmark: %s", list(benchmarkNames()))
			}
			for _, a := range args {
				if err := oneOf("benchmark", a, benchmarkNames()); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case data == "":
				return usagef("--data is missing: the folder that holds benchmark_imglist")
			case images < 1:
				return usagef("--images is %d; it must be above 0", images)
			}
			for _, name := range args {
				dir := openood.Layout{Dir: data}.ListsOf(name)
				s, err := openood.SplitTrain(dir, name, images, seed, replace)
				if errors.Is(err, openood.ErrOtherSplit) {
					return fmt.Errorf("%w; --replace writes over both", err)
				}
				if err != nil {
					return err
				}
				what := "written"
				if s.Kept {
					what = "there already, the same"
				}
				if err := printLines(cmd.OutOrStdout(),
					fmt.Sprintf("%s: %s images (%s)", s.SubFile, thousands(s.SubImages), what),
					fmt.Sprintf("%s: %s images (%s)", s.MainFile, thousands(s.MainImages), what)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "`folder` of lists and images")
	f.IntVar(&images, "images", 1000, "images to set aside, rounded down to as many of each class")
	f.Uint32Var(&seed, "seed", 1, "seed for the choice")
	f.BoolVar(&replace, "replace", false, "write over lists of another split")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

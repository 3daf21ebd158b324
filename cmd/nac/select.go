package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/coverage"
	"nac/dg"
	"nac/imageset"
	"nac/train"
)

// selectFlags are the flags of select.
type selectFlags struct {
	data                    []string
	arch, normalize, kernel string
	resize, batch, workers  int
	quiet                   bool
	coverage                coverageFlags
}

func newSelectCommand() *cobra.Command {
	var f selectFlags
	cmd := &cobra.Command{
		Use:   "select CHECKPOINT... --data DIR",
		Short: "Rank checkpoints by how much of their neurons images cover (NAC-ME)",
		Long: `Ranks checkpoints of one architecture by NAC-ME: the mean over neurons of the share
of bins that the images of the training domains cover. Of images with labels (--data is
a folder of class folders, sorted as in training) the correctly classified are counted,
and the accuracy is told; of others (a folder of images) all are. --data may be repeated,
a folder for each domain; domains must agree in their classes.`,
		Example: `  nac select run/step*.safetensors --arch resnet50 --data train
  nac select run/step*.safetensors --arch resnet50 --data PACS/photo --data PACS/cartoon`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("name at least one checkpoint")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	s := cmd.Flags()
	s.StringArrayVar(&f.data, "data", nil, "`folder` of images of the training domains; may be repeated")
	s.StringVar(&f.arch, "arch", "", "architecture, a `name` of \"nac arch\"")
	f.coverage.add(cmd)
	s.StringVar(&f.normalize, "normalize", "", "mean and std of this `preset` (default: by the network's input size)")
	s.IntVar(&f.resize, "resize", 0, "cut the centre out of images of this shorter side; 0 squeezes them, as nac dg train does")
	s.IntVar(&f.batch, "batch", 64, "images of a batch")
	s.IntVar(&f.workers, "workers", 0, "processors to use; 0 means all")
	kernelFlag(s, &f.kernel)
	s.BoolVar(&f.quiet, "quiet", false, "no progress")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

// judged is a checkpoint and what was found of it.
type judged struct {
	file     string
	coverage float64
	counted  int64
	accuracy float64
}

func (f *selectFlags) run(ctx context.Context, files []string, stdout, stderr io.Writer) error {
	switch {
	case len(f.data) == 0:
		return usagef("--data is missing: the folder of images of the training domains")
	case f.batch < 1 || f.batch > maxBatch:
		return usagef("--batch is %d; it must be 1 to %d", f.batch, maxBatch)
	case f.workers < 0 || f.workers > maxWorkers:
		return usagef("--workers is %d; it must be 0 (all processors) to %d", f.workers, maxWorkers)
	}
	if err := f.coverage.settings("any").Validate(); err != nil {
		return usageError{err}
	}
	images, err := f.images()
	if err != nil {
		return err
	}
	var all []judged
	for _, file := range files {
		r, err := f.judge(ctx, file, images)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, r)
		if !f.quiet {
			fmt.Fprintf(stderr, "%d of %d: %s: coverage %.4f\n", len(all), len(files), file, r.coverage)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].coverage > all[j].coverage })
	labelled := images.Classes != nil
	header := []string{"rank", "checkpoint", "coverage", "images counted"}
	if labelled {
		header = append(header, "accuracy")
	}
	t := newTable(header...)
	rightAligned(t, 1, 3, 4, 5)
	for i, r := range all {
		row := table.Row{i + 1, r.file, fmt.Sprintf("%.6f", r.coverage), thousands(int(r.counted))}
		if labelled {
			row = append(row, percent(r.accuracy))
		}
		t.AppendRow(row)
	}
	return printLines(stdout, t.Render())
}

// images lists those of all domains.
func (f *selectFlags) images() (all imageset.List, err error) {
	for i, dir := range f.data {
		l, err := imageset.ReadFolder(dir)
		if err != nil {
			return all, err
		}
		if i == 0 {
			all = l
			continue
		}
		if !slices.Equal(l.Classes, all.Classes) {
			return all, fmt.Errorf("%s has the classes %s, %s has %s; domains must agree in them", f.data[0], list(all.Classes), dir, list(l.Classes))
		}
		all.Items = append(all.Items, l.Items...)
	}
	return all, nil
}

func (f *selectFlags) judge(ctx context.Context, file string, images imageset.List) (r judged, err error) {
	m, err := openModel(archName(f.arch), file)
	if err != nil {
		return r, err
	}
	if m.InputSize[0] != 3 {
		return r, fmt.Errorf("%s takes images of %d channels; image files have 3", m.Name, m.InputSize[0])
	}
	if images.Classes != nil && len(images.Classes) != m.Classes {
		return r, fmt.Errorf("the network has %d classes, %s holds %d class folders", m.Classes, list(f.data), len(images.Classes))
	}
	name := f.normalize
	if name == "" {
		name = presetFor(m)
	}
	preset, err := imageset.Preset(name)
	if err != nil {
		return r, usageError{fmt.Errorf("--normalize: %w", err)}
	}
	layer := f.coverage.layer
	if layer == "" {
		layer = dg.CoverageLayer(m)
	}
	channels, err := m.Layer(layer)
	if err != nil {
		return r, err
	}
	counts, err := coverage.NewLayer(f.coverage.settings(layer).LayerSettings(), channels.Channels)
	if err != nil {
		return r, err
	}
	samples := &train.Files{List: images, Size: m.InputSize[1], Resize: f.resize, Mean: preset.Mean, Std: preset.Std}
	v, err := dg.Judge{Batch: f.batch, Workers: f.workers, Kernel: f.kernel}.Coverage(ctx, m, samples, counts, 0)
	return judged{file, counts.Summary().Coverage, counts.Samples(), v.Accuracy}, err
}

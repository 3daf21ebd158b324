package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"nac"
	"nac/states"
)

func newMergeCommand() *cobra.Command {
	var m mergeFlags
	cmd := &cobra.Command{
		Use:   "merge SHARD... -o RESULT",
		Short: "Put shards together, or add up detectors fitted on parts of the images",
		Long: `Puts together what commands with --shard i/n have left, in any order:

  of nac fit      folders; the result is the detector
  of nac states   caches; the result is a cache
  of nac score    files; the result is a table, CSV, JSON lines or Parquet

It is, byte for byte, what the command without --shard would have made. A shard that is
missing or not whole is named, and shards of different models, settings or images are
refused with the difference.

Detectors of one classifier with one transform and the same settings ("nac fit --like")
are added up: the result is what fitting on all their images would have given, calibrated on
all their calibration images.`,
		Example: `  nac merge shard0 shard1 -o detector.nac
  nac merge part-*.states -o photos.states
  nac merge scores.*.shard -o scores.csv
  nac merge a.nac b.nac -o detector.nac`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("name the shards, or at least two detectors")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if m.out == "" {
				return usagef("--out is missing: what to write to")
			}
			return m.run(cmd.Context(), args, cmd)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&m.out, "out", "o", "", "`file` for the result, a folder for states")
	f.StringVar(&m.model, "model", "", "`file` of the classifier, for shards of a fit, if it has moved")
	f.StringVar(&m.format, "format", "", "of scores: table, jsonl, csv or parquet (default: by the ending of --out, else table)")
	complete(cmd, "format", func() []string { return formatNames })
	_ = cmd.MarkFlagFilename("out")
	_ = cmd.MarkFlagFilename("model")
	return cmd
}

type mergeFlags struct{ out, model, format string }

// run does what the first of the shards asks for.
func (m *mergeFlags) run(ctx context.Context, args []string, cmd *cobra.Command) error {
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	info, err := os.Stat(args[0])
	if err != nil {
		return err
	}
	if info.IsDir() {
		model, err := nac.ShardModel(args[0])
		if err != nil {
			return err
		}
		if model == (nac.ModelInfo{}) {
			return m.states(ctx, args, cmd)
		}
		return m.fit(ctx, model, args, cmd)
	}
	if s, err := openScoreShard(args[0]); err == nil {
		s.file.Close()
		f := scoreFlags{format: m.format, out: m.out}
		format, err := f.formatName()
		if err != nil {
			return err
		}
		count := &tally{}
		if err := mergeScores(ctx, args, format, m.out, count); err != nil {
			return err
		}
		return count.report(stderr, false)
	} else if !errors.Is(err, errNoShard) {
		return err
	}
	if len(args) < 2 {
		return usagef("name at least two detectors")
	}
	sum, err := nac.Load(args[0], nil)
	if err != nil {
		return err
	}
	for _, file := range args[1:] {
		d, err := nac.Load(file, nil)
		if err != nil {
			return err
		}
		if err := sum.Merge(d); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if err := sum.Save(m.out); err != nil {
		return err
	}
	return printLines(stdout, append(describeDetector(sum.Info()), "Written to "+m.out+".")...)
}

func (m *mergeFlags) fit(ctx context.Context, info nac.ModelInfo, dirs []string, cmd *cobra.Command) error {
	model, err := openModelOf(info, dirs[0], m.model)
	if err != nil {
		return err
	}
	d, err := nac.FitShards(ctx, model, dirs)
	if err != nil {
		return err
	}
	if err := d.Save(m.out); err != nil {
		return err
	}
	return printLines(cmd.OutOrStdout(), append(describeDetector(d.Info()), "Written to "+m.out+".")...)
}

func (m *mergeFlags) states(ctx context.Context, dirs []string, cmd *cobra.Command) error {
	var caches []*states.Cache
	for _, dir := range dirs {
		c, err := states.Open(dir)
		if errors.Is(err, states.ErrNone) {
			return fmt.Errorf("%s holds no shard, neither of nac fit nor of nac states", dir)
		}
		if err != nil {
			return err
		}
		caches = append(caches, c)
	}
	stages := newStages(cmd.ErrOrStderr())
	defer stages.end()
	sum, err := states.Merge(ctx, m.out, caches, stages.advance)
	if err != nil {
		return err
	}
	return printCache(cmd.OutOrStdout(), sum)
}

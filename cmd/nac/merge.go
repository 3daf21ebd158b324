package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"nac"
)

func newMergeCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "merge DETECTOR... -o DETECTOR",
		Short: "Add up detectors that were fitted on parts of the images",
		Long: `Adds the coverage of detectors of one classifier with one transform and the same
settings ("nac fit --like"): the result is exactly what fitting on all their images
would have given, calibrated on all their calibration images.`,
		Example: "  nac merge a.nac b.nac -o detector.nac",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("name at least two detectors")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("--out is missing: the file to write the sum to")
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
			if err := sum.Save(out); err != nil {
				return err
			}
			return printLines(cmd.OutOrStdout(), append(describeDetector(sum.Info()), "Written to "+out+".")...)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`file` for the sum")
	_ = cmd.MarkFlagFilename("out")
	return cmd
}

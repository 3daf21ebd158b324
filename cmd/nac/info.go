package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nac"
)

func newInfoCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info DETECTOR",
		Short: "Say what a fitted detector is",
		Long: `Prints what "nac fit" has written: the classifier it belongs to, how images are
prepared, layers and settings, what it was fitted on, and its threshold.

The file is in safetensors format; in Python,
  safetensors.safe_open(file, "np").metadata()["info"] is what --json prints.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := nac.Load(args[0], nil)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				e.SetEscapeHTML(false)
				return e.Encode(d.Info())
			}
			return printLines(cmd.OutOrStdout(), describeDetector(d.Info())...)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "everything, as JSON")
	return cmd
}

// describeDetector says in a few lines what a detector is.
func describeDetector(i nac.Info) []string {
	m, fit, t := i.Model, i.Fit, i.Threshold
	lines := []string{
		fmt.Sprintf("classifier  %s, %s classes, images of %dx%dx%d, SHA-256 %.12s...", m.Name, thousands(m.Classes), m.Input[0], m.Input[1], m.Input[2], m.Hash),
		"images      " + describe(i.Transform) + normalizedBy(i),
		"detector    " + i.Detector,
	}
	for _, l := range i.Settings.Layers {
		lines = append(lines, fmt.Sprintf("  %-9s M=%d O=%d alpha=%.6g %v", l.Layer, l.M, l.O, l.Alpha, l.Func))
	}
	if len(i.Settings.LayerNames) > 0 {
		var params []string
		for _, name := range slices.Sorted(maps.Keys(i.Settings.Params)) {
			params = append(params, fmt.Sprintf("%s=%g", strings.TrimPrefix(name, i.Detector+"."), i.Settings.Params[name]))
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("  layers    %s  %s", list(i.Settings.LayerNames), strings.Join(params, " ")), " "))
	}
	for _, l := range i.Layers {
		lines = append(lines, fmt.Sprintf("  %-9s %d neurons; calibration images covered: median %.1f %%, lowest 5 %% below %.1f %%", l.Layer, l.Neurons, 100*l.Median, 100*l.Low))
	}
	if len(fit.Tried) > 0 {
		lines = append(lines, fmt.Sprintf("  chosen of %d settings by AUROC on OOD validation images, %s %%", len(fit.Tried), percent(fit.Tried[0].AUROC)))
	}
	fitted := fmt.Sprintf("fitted      on %s images of %s", thousands(fit.Images), strings.Join(fit.Sources, ", "))
	if fit.Skipped > 0 {
		fitted += fmt.Sprintf("; %s could not be read", thousands(fit.Skipped))
	}
	lines = append(lines, fitted)
	calibrated := fmt.Sprintf("calibrated  on %s others", thousands(t.Images))
	if fit.Labelled > 0 {
		calibrated += fmt.Sprintf(", of which the classifier gets %s %% right", percent(float64(fit.Right)/float64(fit.Labelled)))
	}
	of := "of ID images"
	if i.PerClass {
		of = fmt.Sprintf("of ID images of each predicted class (%d classes have thresholds of their own)", len(i.ClassThresholds))
	}
	lines = append(lines, calibrated,
		fmt.Sprintf("threshold   score below %.6g (95 %%: %.6g to %.6g) means OOD", t.Score, t.Low, t.High),
		fmt.Sprintf("            false alarms: at most %s %% %s on average; %s to %s %% with these calibration images", percent(i.Rate), of, percent(t.RateLow), percent(t.RateHigh)))
	if fit.Labelled >= 20 && 2*fit.Right < fit.Labelled {
		lines = append(lines, "WARNING: the classifier is wrong on most labelled images. Are mean and std, and the labels' numbers, the right ones?")
	}
	return lines
}

// normalizedBy says how mean and std were found.
func normalizedBy(i nac.Info) string {
	if len(i.Fit.Normalizations) == 0 {
		return ""
	}
	var tried []string
	chosen := ""
	for _, n := range i.Fit.Normalizations {
		if n.Mean == i.Transform.Mean && n.Std == i.Transform.Std {
			chosen = n.Name
			continue
		}
		tried = append(tried, n.Name)
	}
	return fmt.Sprintf(" (%s: fits better than %s)", chosen, list(tried))
}

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"nac/detector"
	"nac/openood"
)

// apsFlags have a benchmark choose settings before it runs.
type apsFlags struct {
	aps bool
	spaceFlags
}

func (a *apsFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.aps, "aps", false, "choose nac's settings by validation images first, as \"nac search\" does")
	a.spaceFlags.add(cmd)
}

// check finds flags that contradict each other.
func (a *apsFlags) check(cmd *cobra.Command, detectors []string) error {
	if err := a.spaceFlags.check(); err != nil {
		return err
	}
	flags := cmd.Flags()
	if !a.aps {
		for _, name := range []string{"space", "method", "subsets", "weights", "starts"} {
			if flags.Changed(name) {
				return usagef("--%s is about the search of --aps, which is not asked for", name)
			}
		}
		return nil
	}
	for _, name := range []string{"M", "O", "alpha", "state"} {
		if flags.Changed(name) {
			return usagef("--aps chooses --%s itself; --space says from what", name)
		}
	}
	if !slices.Contains(detectors, "nac") {
		return usagef("--aps chooses settings of nac, which is not among --detectors")
	}
	return nil
}

// tune searches for nac's settings and returns them with a note of how they were
// found.
func (j *job) tune(ctx context.Context, from source, data *openood.Data, progress openood.Progress) (detector.Settings, string, error) {
	settings, err := j.settings(j.benchmark)
	if err != nil {
		return settings, "", err
	}
	space, err := j.spaceFor(j.benchmark, from.model.Name, j.layers)
	if err != nil {
		return settings, "", err
	}
	f, _, err := searchData(ctx, from, j.benchmark, data, &j.cacheFlags, &j.spaceFlags, space, progress)
	if err != nil {
		return settings, "", err
	}
	settings.Layers = f.Settings(f.Best)
	if j.landscape == nil {
		j.landscape = f.landscape()
	}
	note := fmt.Sprintf("nac's settings were chosen by validation images, AUROC %s: %s", percent(f.Best.AUROC), f.summary())
	if a := f.Best.TrainAUROC; a != nil {
		note += fmt.Sprintf(" Sanity check: train AUROC %s, where 50 is right.", percent(*a))
	}
	return settings, note, nil
}

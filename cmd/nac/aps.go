package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nac/detector"
	"nac/openood"
	"nac/probe"
)

// apsFlags have a benchmark choose settings before it runs.
type apsFlags struct {
	aps bool
	spaceFlags
}

func (a *apsFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.aps, "aps", false, "choose settings by validation images first: nac's as \"nac search\" does, those of other detectors from OpenOOD's sweeps")
	a.spaceFlags.add(cmd)
}

// check finds flags that contradict each other.
func (a *apsFlags) check(cmd *cobra.Command, detectors []string, settings *settingsFlags) error {
	if err := a.spaceFlags.check(); err != nil {
		return err
	}
	flags := cmd.Flags()
	if !a.aps {
		for _, name := range spaceFlagNames {
			if flags.Changed(name) {
				return usagef("--%s is about the search of --aps, which is not asked for", name)
			}
		}
		return nil
	}
	for _, given := range settings.set {
		name, _, _ := strings.Cut(given, "=")
		if name = strings.TrimSpace(name); choosesParam(detectors, name) {
			return usagef("--aps chooses %s itself: leave it out of --set", name)
		}
	}
	if settings.file != "" {
		file, err := readSettings(settings.file)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(file.Params)) {
			if choosesParam(detectors, name) {
				return usagef("--aps chooses %s itself: leave it out of the params of %s", name, settings.file)
			}
		}
	}
	if slices.Contains(detectors, "nac") {
		for _, name := range []string{"M", "O", "alpha", "state"} {
			if flags.Changed(name) {
				return usagef("--aps chooses --%s itself; --space says from what", name)
			}
		}
		return nil
	}
	for _, name := range spaceFlagNames {
		if flags.Changed(name) {
			return usagef("--%s is about nac, which is not among --detectors", name)
		}
	}
	if len(swept(detectors)) == 0 {
		return usagef("--aps: none of --detectors has settings to choose; nac and %s have", list(swept(detector.Keys())))
	}
	return nil
}

var spaceFlagNames = []string{"space", "method", "subsets", "weights", "starts"}

// choosesParam tells whether the search chooses a setting, given as knn.K.
func choosesParam(detectors []string, name string) bool {
	key, param, _ := strings.Cut(name, ".")
	return slices.Contains(swept(detectors), key) &&
		slices.ContainsFunc(methodOf(key).Params, func(p detector.Param) bool { return p.Name == param && len(p.Sweep) > 0 })
}

// swept returns those of the detectors whose sweeps have more than one value.
func swept(keys []string) (some []string) {
	for _, m := range detector.Methods() {
		if slices.Contains(keys, m.Key) && slices.ContainsFunc(m.Params, func(p detector.Param) bool { return len(p.Sweep) > 1 }) {
			some = append(some, m.Key)
		}
	}
	return some
}

// tuneOthers searches the sweeps of detectors other than nac. It returns what it
// found, and a note on each.
func tuneOthers(ctx context.Context, keys []string, given detector.Settings, data *openood.Data, open func(probe.Needs) (openood.Probe, error), progress openood.Progress) ([]openood.Tuned, []string, error) {
	tuned, err := openood.Tune(ctx, data, open, keys, given, progress)
	if err != nil {
		return nil, nil, err
	}
	var said []string
	for _, t := range tuned {
		of := t.Settings.Params
		var chosen []string
		for _, method := range detector.Methods() {
			for _, p := range method.Params {
				if method.Key != t.Key || len(p.Sweep) == 0 {
					continue
				}
				v, changed := of[t.Key+"."+p.Name]
				if !changed {
					v = p.Default
				}
				chosen = append(chosen, fmt.Sprintf("%s %v", p.Name, v))
			}
		}
		works, why := 0, ""
		for _, trial := range t.Trials {
			if trial.Refused == "" {
				works++
			} else if why == "" {
				why = "; " + trial.Refused
			}
		}
		said = append(said, fmt.Sprintf("%s: %s by validation images, AUROC %s; %d of %d settings can be used%s.",
			t.Key, list(chosen), percent(t.AUROC), works, len(t.Trials), why))
	}
	return tuned, said, nil
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

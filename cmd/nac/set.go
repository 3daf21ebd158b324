package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"nac/detector"
)

// setFlag gives settings of detectors that are one number: Settings.Params.
type setFlag struct{ set []string }

func (s *setFlag) add(f *pflag.FlagSet) {
	f.StringSliceVar(&s.set, "set", nil, "`settings` of detectors by name, as knn.K=100,ash.percentile=80; see \"nac detectors --settings\"")
}

// params returns those of a settings file with those of the flag over them.
func (s *setFlag) params(file string, of map[string]float64) (map[string]float64, error) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if err := checkParam("--settings: "+file, name, of[name]); err != nil {
			return nil, err
		}
	}
	params, seen := maps.Clone(of), map[string]bool{}
	if params == nil && len(s.set) > 0 {
		params = map[string]float64{}
	}
	for _, given := range s.set {
		name, text, ok := strings.Cut(given, "=")
		name = strings.TrimSpace(name)
		if !ok {
			return nil, usagef("--set: %q is no setting; want DETECTOR.NAME=NUMBER, as knn.K=100", given)
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return nil, usagef("--set: %s: %q is not a number that fits", name, text)
		}
		if err := checkParam("--set", name, v); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, usagef("--set: %s is there twice", name)
		}
		params[name], seen[name] = v, true
	}
	return params, nil
}

// checkParam finds unknown names and values out of bounds.
func checkParam(where, name string, v float64) error {
	key, param, ok := strings.Cut(name, ".")
	if !ok {
		return usagef("%s: %q names no setting; want DETECTOR.NAME, as knn.K", where, name)
	}
	if err := oneOf(where, key, detector.Keys()); err != nil {
		return err
	}
	m := methodOf(key)
	i := slices.IndexFunc(m.Params, func(p detector.Param) bool { return p.Name == param })
	if i < 0 {
		if len(m.Params) == 0 {
			return usagef("%s: %s has no settings of this kind, and so no %q", where, key, param)
		}
		return oneOf(where+": "+key, param, paramNames(m))
	}
	if err := m.Params[i].Check(v); err != nil {
		return usagef("%s: %s: %w", where, key, err)
	}
	return nil
}

func methodOf(key string) detector.Method {
	all := detector.Methods()
	return all[slices.IndexFunc(all, func(m detector.Method) bool { return m.Key == key })]
}

func paramNames(m detector.Method) (names []string) {
	for _, p := range m.Params {
		names = append(names, p.Name)
	}
	return names
}

// used finds settings of detectors that are not run, alone or as parts of a fusion: they
// would go unseen.
func (s *setFlag) used(params map[string]float64, detectors, fusion []string) error {
	running := slices.Clone(detectors)
	if slices.Contains(detectors, "nac_fusion") {
		if len(fusion) == 0 {
			fusion = detector.FusionParts
		}
		running = append(running, fusion...)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if key, _, _ := strings.Cut(name, "."); !slices.Contains(running, key) {
			return usagef("%s is set, but %s is not among the detectors", name, key)
		}
	}
	return nil
}

// setNote says in results what was set.
func setNote(params map[string]float64) []string {
	if len(params) == 0 {
		return nil
	}
	var said []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		said = append(said, fmt.Sprintf("%s = %v", name, params[name]))
	}
	return []string{"Set by the user: " + strings.Join(said, ", ") + "."}
}

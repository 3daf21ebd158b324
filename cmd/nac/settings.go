package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v3"

	"nac/coverage"
	"nac/detector"
	"nac/openood"
)

// settingsFlags are the settings of detectors as given: a benchmark's published
// ones, changed by a file, changed by flags.
type settingsFlags struct {
	setFlag
	layers, fusion      []string
	file                string
	m, o, alpha, state  []string
	temperature         float64
	temperatureWasGiven func() bool
}

func (s *settingsFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&s.layers, "layers", nil, "`names` of the layers that nac and its kin read, see \"nac layers\" (default: the benchmark's)")
	f.StringVar(&s.file, "settings", "", "YAML `file` with detector settings")
	f.StringSliceVar(&s.m, "M", nil, "nac: thresholds per neuron for all layers, as `50`, or for some, as avgpool=50,layer3=500")
	f.StringSliceVar(&s.o, "O", nil, "nac: samples that make a bin fully covered, as `50`, likewise")
	f.StringSliceVar(&s.alpha, "alpha", nil, "nac: steepness of the sigmoid, as `100`, likewise")
	f.StringSliceVar(&s.state, "state", nil, "nac: state `function` such as \"sigmoid(o*g_kl)\", likewise")
	s.setFlag.add(f)
	f.StringSliceVar(&s.fusion, "fusion", nil, "nac_fusion: `names` of the detectors whose scores are added (default: "+list(detector.FusionParts)+")")
	f.Float64Var(&s.temperature, "temperature", 1, "ebo: temperature")
	s.temperatureWasGiven = func() bool { return f.Changed("temperature") }
}

// untouched tells whether the layers' settings are the benchmark's own.
func (s *settingsFlags) untouched() bool {
	return s.file == "" && s.m == nil && s.o == nil && s.alpha == nil && s.state == nil
}

// settingsFile is what --settings reads. Absent values keep what they are.
type settingsFile struct {
	Layers []struct {
		Layer string              `yaml:"layer"`
		M     *int                `yaml:"M"`
		O     *int                `yaml:"O"`
		Alpha *float64            `yaml:"alpha"`
		Func  *coverage.StateFunc `yaml:"func"`
		// Weight is the layer's share in the mean over layers.
		Weight *float64 `yaml:"weight"`
	} `yaml:"layers"`
	Temperature *float64 `yaml:"temperature"`
	// Params are settings by detector and name, as knn.K.
	Params map[string]float64 `yaml:"params"`
}

const settingsExample = `  layers:
    - {layer: avgpool, M: 50, O: 50, alpha: 100}
    - {layer: layer3, M: 500, O: 100, alpha: 1000, func: sigmoid(o*g_kl)}
  temperature: 1
  params: {knn.K: 100}`

// settings returns what the detectors are to be made with.
func (s *settingsFlags) settings(b openood.Benchmark) (detector.Settings, error) {
	var file settingsFile
	if s.file != "" {
		var err error
		if file, err = readSettings(s.file); err != nil {
			return detector.Settings{}, err
		}
	}
	layers := s.layers
	if layers == nil {
		for _, l := range file.Layers {
			layers = append(layers, l.Layer)
		}
	}
	if layers == nil {
		layers = b.LayerNames()
	}
	for i, l := range layers {
		if l == "" {
			return detector.Settings{}, usagef("--layers: an empty name")
		}
		if slices.Contains(layers[:i], l) {
			return detector.Settings{}, usagef("--layers: %s is there twice", l)
		}
	}
	for _, part := range s.fusion {
		if err := oneOf("--fusion", part, detector.Keys()); err != nil {
			return detector.Settings{}, err
		}
	}
	settings := detector.Settings{Layers: b.LayerSettings(layers), Fusion: s.fusion}
	var err error
	if settings.Params, err = s.params(s.file, file.Params); err != nil {
		return settings, err
	}
	at := func(layer string) (*coverage.LayerSettings, error) {
		i := slices.Index(layers, layer)
		if i < 0 {
			return nil, fmt.Errorf("settings for layer %q, which is not among the layers %s", layer, list(layers))
		}
		return &settings.Layers[i], nil
	}
	for _, l := range file.Layers {
		to, err := at(l.Layer)
		if err != nil {
			return settings, usagef("%s: %w", s.file, err)
		}
		replace(&to.M, l.M)
		replace(&to.O, l.O)
		replace(&to.Alpha, l.Alpha)
		replace(&to.Func, l.Func)
		replace(&to.Weight, l.Weight)
		// 0 would silently mean 1.
		if l.Weight != nil && !(*l.Weight > 0) {
			return settings, usagef("%s: weight of layer %s is %v; it must be above 0, or leave the layer out", s.file, l.Layer, *l.Weight)
		}
	}
	replace(&settings.Temperature, file.Temperature)
	if s.temperatureWasGiven() {
		settings.Temperature = s.temperature
	}
	// 0 would silently mean the default.
	if (s.temperatureWasGiven() || file.Temperature != nil) && !(settings.Temperature > 0) {
		return settings, usagef("temperature is %v; it must be above 0", settings.Temperature)
	}
	for _, f := range []struct {
		name   string
		values []string
		set    func(l *coverage.LayerSettings, value string) error
	}{
		{"M", s.m, func(l *coverage.LayerSettings, v string) (err error) { l.M, err = strconv.Atoi(v); return err }},
		{"O", s.o, func(l *coverage.LayerSettings, v string) (err error) { l.O, err = strconv.Atoi(v); return err }},
		{"alpha", s.alpha, func(l *coverage.LayerSettings, v string) (err error) {
			l.Alpha, err = strconv.ParseFloat(v, 64)
			return err
		}},
		{"state", s.state, func(l *coverage.LayerSettings, v string) (err error) {
			l.Func, err = coverage.ParseStateFunc(v)
			return err
		}},
	} {
		for _, v := range f.values {
			targets := layers
			if layer, value, ok := strings.Cut(v, "="); ok {
				targets, v = []string{layer}, value
			}
			for _, layer := range targets {
				l, err := at(layer)
				if err == nil {
					err = f.set(l, strings.TrimSpace(v))
				}
				if number := (*strconv.NumError)(nil); errors.As(err, &number) {
					err = fmt.Errorf("%q is not a number that fits", v)
				}
				if err != nil {
					return settings, usagef("--%s: %w", f.name, err)
				}
			}
		}
	}
	for _, l := range settings.Layers {
		if err := l.Validate(); err != nil {
			return settings, usageError{err}
		}
	}
	return settings, nil
}

func replace[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// readSettings refuses keys that it does not know: a misspelt one would go
// unseen into a table.
func readSettings(path string) (s settingsFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, usagef("--settings: %w", err)
	}
	defer f.Close()
	const limit = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return s, fmt.Errorf("--settings: %w", err)
	}
	if len(data) > limit {
		return s, usagef("--settings: %s is larger than 1 MiB; is it a settings file?", path)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, usagef("--settings: %s: %w", path, err)
	}
	seen := map[string]bool{}
	for _, l := range s.Layers {
		if l.Layer == "" || seen[l.Layer] {
			return s, usagef("--settings: %s: layer %q has no name or is there twice", path, l.Layer)
		}
		seen[l.Layer] = true
	}
	return s, nil
}

package search

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	yaml "go.yaml.in/yaml/v3"

	"nac/coverage"
)

// Values is a list that YAML may also write as a single value.
type Values[T any] []T

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *Values[T]) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]T)(l))
	}
	var one T
	if err := n.Decode(&one); err != nil {
		return err
	}
	*l = []T{one}
	return nil
}

// ReadSpace reads a space from a YAML file:
//
//	layers:
//	  - {layer: avgpool, O: [10, 50], M: 50, alpha: [10, 100]}
//	  - {layer: layer3, O: 100, M: [50, 500], alpha: 1000, func: [sigmoid(o*g_kl), o], weight: [1, 2], optional: true}
//
// or the sweep of one of the NAC reference's settings files (postprocessor, postprocessor_sweep).
// Keys that it does not know are refused.
func ReadSpace(path string) (Space, error) {
	data, err := readSmall(path)
	if err != nil {
		return Space{}, fmt.Errorf("search: %w", err)
	}
	s, err := parseSpace(data)
	if err == nil {
		s.Name = path
		err = s.Validate()
	}
	if err != nil {
		return Space{}, fmt.Errorf("search: %s: %w", path, err)
	}
	return s, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("%s is larger than 1 MiB; is it a settings file?", path)
	}
	return data, err
}

func parseSpace(data []byte) (s Space, err error) {
	var reference struct {
		Postprocessor struct {
			Sweep yaml.Node `yaml:"postprocessor_sweep"`
		}
	}
	if err := yaml.Unmarshal(data, &reference); err == nil && reference.Postprocessor.Sweep.Kind == yaml.MappingNode {
		return parseReference(&reference.Postprocessor.Sweep)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, err
	}
	return s, nil
}

// parseReference reads the form of the reference's files: lists by the name of the
// layer, whose order counts.
func parseReference(sweep *yaml.Node) (s Space, err error) {
	for i := 0; i+1 < len(sweep.Content); i += 2 {
		name, node := sweep.Content[i].Value, sweep.Content[i+1]
		var l struct {
			O      Values[int]                `yaml:"O"`
			M      Values[int]                `yaml:"M"`
			Alpha  Values[float64]            `yaml:"sig_alpha"`
			Method Values[coverage.StateFunc] `yaml:"method"`
		}
		// Nodes do not refuse keys; their text, decoded anew, does.
		text, err := yaml.Marshal(node)
		if err != nil {
			return s, err
		}
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&l); err != nil {
			return s, fmt.Errorf("layer %s: %w", name, err)
		}
		s.Layers = append(s.Layers, LayerSpace{Layer: name, O: l.O, M: l.M, Alpha: l.Alpha, Func: l.Method})
	}
	return s, nil
}

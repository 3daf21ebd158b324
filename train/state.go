package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"nac/internal/safetensors"
	"nac/weights"
)

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// SaveWeights writes a state dict under PyTorch's names, for "nac bench" or
// Python's safetensors.
func SaveWeights(path string, sd *weights.StateDict, metadata map[string]string) error {
	var tensors []safetensors.Tensor
	for _, name := range sd.Names() {
		t, _ := sd.Lookup(name)
		tensors = append(tensors, safetensors.Float32(name, t.Shape, t.Data))
	}
	return safetensors.Write(path, tensors, metadata)
}

// stateVersion is raised when the file changes.
const stateVersion = "1"

// State is all that a run needs to go on, bit for bit: tensors, and what else there
// is as JSON.
type State struct {
	Network   *weights.StateDict
	Optimizer []*Optimizer
	Averages  []*Average
	// Extra is any value that JSON can hold.
	Extra any
}

type stateHead struct {
	Steps []int           `json:"steps"` // of the optimizers
	Added []int           `json:"added"` // to the averages
	Extra json.RawMessage `json:"extra"`
}

// Save writes the state, whole or not at all.
func (s *State) Save(path string) error {
	head := stateHead{}
	var err error
	if head.Extra, err = json.Marshal(s.Extra); err != nil {
		return err
	}
	var tensors []safetensors.Tensor
	dict := func(prefix string, sd *weights.StateDict) {
		for _, name := range sd.Names() {
			t, _ := sd.Lookup(name)
			tensors = append(tensors, safetensors.Float32(prefix+name, t.Shape, t.Data))
		}
	}
	dict("network/", s.Network)
	for i, o := range s.Optimizer {
		head.Steps = append(head.Steps, o.steps)
		for k, v := range o.first {
			tensors = append(tensors, safetensors.Float32(fmt.Sprintf("optimizer%d/first/%d", i, k), []int{len(v)}, v))
		}
		for k, v := range o.second {
			tensors = append(tensors, safetensors.Float32(fmt.Sprintf("optimizer%d/second/%d", i, k), []int{len(v)}, v))
		}
	}
	for i, a := range s.Averages {
		head.Added = append(head.Added, a.n)
		dict(fmt.Sprintf("average%d/", i), a.sd)
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	return safetensors.Write(path, tensors, map[string]string{"nac": "training state", "version": stateVersion, "state": string(text)})
}

// Load reads what Save wrote into the same networks, optimizers and averages; Extra
// must be a pointer.
func (s *State) Load(path string) error {
	f, err := safetensors.Read(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...))
	}
	m := f.Metadata()
	if m["nac"] != "training state" {
		return fail("not a training state")
	}
	if m["version"] != stateVersion {
		return fail("training state of version %s; this program reads version %s", m["version"], stateVersion)
	}
	head := stateHead{}
	if err := json.Unmarshal([]byte(m["state"]), &head); err != nil {
		return fail("%w", err)
	}
	if len(head.Steps) != len(s.Optimizer) || len(head.Added) != len(s.Averages) {
		return fail("state of %d optimizers and %d averages, want %d and %d", len(head.Steps), len(head.Added), len(s.Optimizer), len(s.Averages))
	}
	if err := json.Unmarshal(head.Extra, s.Extra); err != nil {
		return fail("%w", err)
	}
	into := func(name string, to []float32) error {
		v, _, err := f.Float32s(name)
		if err != nil {
			return err
		}
		if len(v) != len(to) {
			return fail("%s has %d values, want %d", name, len(v), len(to))
		}
		copy(to, v)
		return nil
	}
	var errs []error
	for _, name := range s.Network.Names() {
		t, _ := s.Network.Lookup(name)
		errs = append(errs, into("network/"+name, t.Data))
	}
	for i, o := range s.Optimizer {
		o.steps = head.Steps[i]
		for k, v := range o.first {
			errs = append(errs, into(fmt.Sprintf("optimizer%d/first/%d", i, k), v))
		}
		for k, v := range o.second {
			errs = append(errs, into(fmt.Sprintf("optimizer%d/second/%d", i, k), v))
		}
	}
	for i, a := range s.Averages {
		a.n = head.Added[i]
		prefix := fmt.Sprintf("average%d/", i)
		for _, name := range f.Names() {
			if short, ok := strings.CutPrefix(name, prefix); ok {
				v, shape, err := f.Float32s(name)
				if err != nil {
					return err
				}
				a.sd.Set(short, weights.Tensor{Shape: shape, Data: slices.Clone(v)})
			}
		}
	}
	return errors.Join(errs...)
}

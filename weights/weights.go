// Package weights reads the named tensors of a network from checkpoint files:
// what torch.save writes (the zip format and the older one), plain pickles of
// tensors, and safetensors. It knows no network: names and shapes are compared
// with what an architecture wants by StateDict.Match.
//
// All values become float32, row-major. A pickle is data from a stranger: only
// tensors and plain containers are built, anything else is refused by its name,
// and no size is believed before it was compared with the bytes truly there.
package weights

import "slices"

// Tensor is one tensor, row-major. Shape is empty for a scalar.
type Tensor struct {
	Shape []int
	Data  []float32
}

// StateDict holds tensors by name, in the order in which they were set.
type StateDict struct {
	source  string
	names   []string
	tensors map[string]Tensor
}

// New returns an empty StateDict. source names the origin in errors, as a file's
// path does.
func New(source string) *StateDict {
	return &StateDict{source: source, tensors: make(map[string]Tensor)}
}

// Set stores t under name; a tensor of that name is replaced in its place.
// The data is not copied.
func (s *StateDict) Set(name string, t Tensor) {
	if _, ok := s.tensors[name]; !ok {
		s.names = append(s.names, name)
	}
	s.tensors[name] = t
}

// Source returns the name of the file, or whatever New or Decode was given.
func (s *StateDict) Source() string { return s.source }

// Names returns all names in order.
func (s *StateDict) Names() []string { return slices.Clone(s.names) }

// Lookup returns the tensor called name. Its slices are those stored, not copies.
func (s *StateDict) Lookup(name string) (Tensor, bool) {
	t, ok := s.tensors[name]
	return t, ok
}

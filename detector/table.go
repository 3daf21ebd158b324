package detector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"nac/coverage"
)

// Settings are the settings of all detectors; each reads its own.
type Settings struct {
	// Layers are nac's, one entry a layer. There is no default: it depends on
	// the network, see package openood's benchmarks.
	Layers []coverage.LayerSettings `json:"layers,omitempty"`
	// LayerNames are the layers that methods read which need to know no more of
	// them; absent, those of Layers.
	LayerNames []string `json:"layer_names,omitempty"`
	// Fusion are the keys of nac_fusion's parts; absent, FusionParts.
	Fusion []string `json:"fusion,omitempty"`
	// Temperature is ebo's; 0 means 1.
	Temperature float64 `json:"temperature,omitempty"`
	// Params are those of the other methods, by key and name, as "knn.k"; see
	// Method.Params. Absent ones have their defaults.
	Params map[string]float64 `json:"params,omitempty"`
}

func (s Settings) layerNames() []string {
	if len(s.LayerNames) > 0 {
		return s.LayerNames
	}
	var names []string
	for _, l := range s.Layers {
		names = append(names, l.Layer)
	}
	return names
}

// Method is an entry of the table of detectors.
type Method struct {
	Key   string // as given on the command line
	About string // what it does, in a few words
	Paper string // first author, venue and year
	// Params are its settings in Settings.Params.
	Params []Param
	make   func(params) (Detector, error)
}

// methods is the table, in the order in which it is shown.
var methods []Method

// register adds a method to the table; each method's file does so itself. NAC and
// what builds on it come first, the others by key.
func register(m Method) struct{} {
	ours := func(m Method) int {
		if strings.HasPrefix(m.Key, "nac") {
			return 0
		}
		return 1
	}
	i, twice := slices.BinarySearchFunc(methods, m, func(a, b Method) int {
		return cmp.Or(cmp.Compare(ours(a), ours(b)), cmp.Compare(a.Key, b.Key))
	})
	if twice {
		panic("detector: " + m.Key + " is registered twice")
	}
	methods = slices.Insert(methods, i, m)
	return struct{}{}
}

// Methods returns the table of detectors.
func Methods() []Method { return append([]Method(nil), methods...) }

// Keys returns the keys of all detectors.
func Keys() []string {
	keys := make([]string, len(methods))
	for i, m := range methods {
		keys[i] = m.Key
	}
	return keys
}

// New returns the detector of that key, not fitted yet. The error for an unknown
// key lists those there are.
func New(key string, s Settings) (Detector, error) {
	for _, m := range methods {
		if m.Key == key {
			return m.new(s)
		}
	}
	return nil, fmt.Errorf("detector: no detector %q; there are %s", key, strings.Join(Keys(), ", "))
}

func (m Method) new(s Settings) (Detector, error) {
	p, err := paramsOf(m.Key, s, m.Params)
	if err != nil {
		return nil, err
	}
	return m.make(p)
}

package coverage

import (
	"errors"
	"fmt"
	"math"
)

// Limits of the settings.
const (
	// MaxThresholds bounds M: the bin table keeps 16-bit bin numbers.
	MaxThresholds = 1 << 15
	// MaxMinActivations bounds O.
	MaxMinActivations = math.MaxInt32
)

// LayerSettings says how one layer's coverage is measured. The letters are the
// paper's.
type LayerSettings struct {
	Layer string    `json:"layer"` // the layer's name
	M     int       `json:"M"`     // thresholds per neuron, so M-1 bins; even, at least 4
	O     int       `json:"O"`     // samples in a bin that make it fully covered; at least 1
	Alpha float64   `json:"alpha"` // steepness of sigmoid and tanh; above 0
	Func  StateFunc `json:"func"`  // state function
	// Equal asks for M-1 equal bins from 0 to 1, NAC-ME's; see EqualThresholds.
	Equal bool `json:"equal,omitempty"`
	// Weight is the layer's share in the mean over layers; 0 means 1, as the
	// paper's plain mean has it.
	Weight float64 `json:"weight,omitempty"`
}

// weight is Weight with its default filled in.
func (s LayerSettings) weight() float64 {
	if s.Weight == 0 {
		return 1
	}
	return s.Weight
}

// Validate returns an error that names the layer and everything that is wrong
// with the settings, or nil.
func (s LayerSettings) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Layer == "" {
		bad("the layer has no name")
	}
	if s.Equal {
		if s.M < 2 || s.M > MaxThresholds {
			bad("M = %d thresholds between equal bins: want 2 to %d", s.M, MaxThresholds)
		}
	} else if err := validateM(s.M); err != nil {
		errs = append(errs, err)
	}
	if s.O < 1 {
		bad("O = %d: the number of samples that cover a bin must be at least 1", s.O)
	}
	if s.O > MaxMinActivations {
		bad("O = %d: at most %d", s.O, MaxMinActivations)
	}
	switch a := float32(s.Alpha); {
	case math.IsNaN(s.Alpha):
		bad("alpha is NaN")
	case s.Alpha <= 0:
		bad("alpha = %v: the steepness must be above 0", s.Alpha)
	case a == 0 || math.IsInf(float64(a), 0):
		bad("alpha = %v: out of the range of float32", s.Alpha)
	}
	if !(s.Weight >= 0) || math.IsInf(s.Weight, 0) {
		bad("weight = %v: it must be above 0", s.Weight)
	}
	if !s.Func.valid() {
		bad("no state function has number %d", int(s.Func))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("coverage: settings of layer %q: %w", s.Layer, errors.Join(errs...))
}

func validateM(m int) error {
	switch {
	case m < 2:
		return fmt.Errorf("threshold number M = %d: bins lie between two thresholds, so M < 2 leaves none", m)
	case m < 4:
		return fmt.Errorf("threshold number M = %d: fewer than 4 thresholds leave no bin inside [0, 1]", m)
	case m%2 != 0:
		return fmt.Errorf("threshold number M = %d is odd: the thresholds mirror each other about 0.5, so their number is even; use %d or %d", m, m-1, m+1)
	case m > MaxThresholds:
		return fmt.Errorf("threshold number M = %d: at most %d", m, MaxThresholds)
	}
	return nil
}

// difference names the first setting in which s and t differ, or returns "".
func (s LayerSettings) difference(t LayerSettings) string {
	switch {
	case s.Layer != t.Layer:
		return fmt.Sprintf("layer %q against %q", s.Layer, t.Layer)
	case s.M != t.M:
		return fmt.Sprintf("M = %d against %d", s.M, t.M)
	case s.O != t.O:
		return fmt.Sprintf("O = %d against %d", s.O, t.O)
	case s.Alpha != t.Alpha:
		return fmt.Sprintf("alpha = %v against %v", s.Alpha, t.Alpha)
	case s.Func != t.Func:
		return fmt.Sprintf("state function %v against %v", s.Func, t.Func)
	case s.Equal != t.Equal:
		return fmt.Sprintf("equal bins: %v against %v", s.Equal, t.Equal)
	case s.weight() != t.weight():
		return fmt.Sprintf("weight %v against %v", s.weight(), t.weight())
	}
	return ""
}

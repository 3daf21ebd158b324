package detector

import (
	"fmt"
	"math"
	"strings"
)

// Param is a setting of a method that is one number.
type Param struct {
	Name    string // as in Settings.Params, after the method's key and a dot
	About   string // what it is, in a few words
	Default float64
	// Min and Max are the least and the greatest value; Whole asks for an integer.
	Min, Max float64
	Whole    bool
	// Sweep lists the values that OpenOOD's automatic parameter search tries.
	Sweep []float64
	// Late tells that scoring alone reads it: one fit serves all its values.
	Late bool
}

// Check says what is wrong with a value.
func (p Param) Check(v float64) error {
	// Written so that NaN fails.
	if !(v >= p.Min && v <= p.Max) {
		return fmt.Errorf("%s is %v; it must be %v to %v", p.Name, v, p.Min, p.Max)
	}
	if p.Whole && v != math.Trunc(v) {
		return fmt.Errorf("%s is %v; it must be a whole number", p.Name, v)
	}
	return nil
}

// params are the settings of one method.
type params struct {
	key   string
	all   Settings // of all methods
	list  []Param
	value map[string]float64
}

// paramsOf takes a method's settings from those of all, with the defaults filled
// in, and checks them.
func paramsOf(key string, s Settings, list []Param) (params, error) {
	p := params{key: key, all: s, list: list, value: map[string]float64{}}
	for _, q := range list {
		v, given := s.Params[key+"."+q.Name]
		if !given {
			v = q.Default
		}
		if err := q.Check(v); err != nil {
			return p, fmt.Errorf("detector: %s: %w", key, err)
		}
		p.value[q.Name] = v
	}
	// A misspelt name would silently leave the default in place.
	for name := range s.Params {
		if after, mine := strings.CutPrefix(name, key+"."); mine {
			if _, known := p.value[after]; !known {
				return p, fmt.Errorf("detector: %s has no setting %q; it has %s", key, after, names(list))
			}
		}
	}
	return p, nil
}

func names(list []Param) string {
	if len(list) == 0 {
		return "none"
	}
	var all []string
	for _, q := range list {
		all = append(all, q.Name)
	}
	return strings.Join(all, ", ")
}

func (p params) float(name string) float64 { return p.value[name] }
func (p params) int(name string) int       { return int(p.value[name]) }

func (p params) settings() Settings {
	if len(p.list) == 0 {
		return Settings{}
	}
	s := Settings{Params: map[string]float64{}}
	for name, v := range p.value {
		s.Params[p.key+"."+name] = v
	}
	return s
}

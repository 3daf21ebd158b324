package detector

import (
	"maps"
	"slices"

	"nac/internal/safetensors"
)

// Sweep returns the settings that a parameter search compares for a method: s
// first, then s with every other combination of the values in its Params' sweeps.
func Sweep(key string, s Settings) []Settings {
	i := slices.IndexFunc(methods, func(m Method) bool { return m.Key == key })
	if i < 0 {
		return []Settings{s}
	}
	filled, err := paramsOf(key, s, methods[i].Params)
	if err != nil {
		return []Settings{s} // which New refuses, and says why
	}
	combined := []Settings{s}
	for _, p := range methods[i].Params {
		var next []Settings
		for _, c := range combined {
			for _, v := range p.Sweep {
				one := c
				one.Params = maps.Clone(c.Params)
				if one.Params == nil {
					one.Params = map[string]float64{}
				}
				one.Params[key+"."+p.Name] = v
				next = append(next, one)
			}
		}
		if len(next) > 0 {
			combined = next
		}
	}
	all := []Settings{s}
	for _, c := range combined {
		if p, err := paramsOf(key, c, methods[i].Params); err != nil || !maps.Equal(p.value, filled.value) {
			all = append(all, c)
		}
	}
	return all
}

// Variants are settings of a method that differ in nothing that fitting reads: one
// fitted Detector scores with each of them in turn.
type Variants struct {
	Detector Detector
	Settings []Settings
	params   []params
}

// SweepVariants makes the detectors that score with all of a method's Sweep, as
// few as there are different fits. Settings that the method refuses are left out,
// unless they are s itself.
func SweepVariants(key string, s Settings) ([]Variants, error) {
	if _, err := New(key, s); err != nil {
		return nil, err
	}
	m := methods[slices.IndexFunc(methods, func(m Method) bool { return m.Key == key })]
	var all []Variants
	for _, c := range Sweep(key, s) {
		p, err := paramsOf(key, c, m.Params)
		if err != nil {
			continue
		}
		d, err := m.make(p)
		if err != nil {
			continue
		}
		same := func(v Variants) bool {
			_, can := v.Detector.(retunable)
			return can && !slices.ContainsFunc(m.Params, func(q Param) bool {
				return !q.Late && v.params[0].value[q.Name] != p.value[q.Name]
			})
		}
		if i := slices.IndexFunc(all, same); i >= 0 {
			all[i].Settings, all[i].params = append(all[i].Settings, c), append(all[i].params, p)
			continue
		}
		all = append(all, Variants{d, []Settings{c}, []params{p}})
	}
	return all, nil
}

// Use makes the detector score with the settings of that index.
func (v Variants) Use(i int) {
	if d, ok := v.Detector.(retunable); ok {
		d.retune(v.params[i])
	}
}

type retunable interface{ retune(p params) }

func (f *fitting) retune(p params) { f.params = p }

// StateBytes is the size of what a fitted detector keeps: of its tensors, which
// are not copied where they can be large.
func StateBytes(d Detector) (int64, error) {
	if f, ok := d.(interface{ measure() (int64, error) }); ok {
		return f.measure()
	}
	tensors, err := d.tensors()
	return bytesOf(tensors), err
}

func bytesOf(tensors []safetensors.Tensor) (n int64) {
	for _, t := range tensors {
		n += int64(len(t.Data))
	}
	return n
}

func (f *fitting) measure() (int64, error) {
	if f.phase != ended {
		return 0, ErrUnfitted
	}
	s := &storage{saving: true, measuring: true}
	f.store(s)
	return s.bytes + bytesOf(s.tensors), s.err
}

func (d *fusion) measure() (sum int64, err error) {
	for _, p := range d.parts {
		n, err := StateBytes(p)
		if err != nil {
			return 0, d.errorf("%w", err)
		}
		sum += n
	}
	return sum + 16*int64(len(d.parts)), nil // mean and std
}

package search

import (
	"nac/coverage"
)

// Around returns a space about given settings, for networks that no sweep was
// published for: O from a fifth to twice, a few and many thresholds, alpha a
// factor of ten each way.
func Around(name string, settings []coverage.LayerSettings) Space {
	s := Space{Name: name}
	for _, l := range settings {
		s.Layers = append(s.Layers, LayerSpace{
			Layer: l.Layer,
			O:     []int{max(l.O/5, 1), l.O, 2 * l.O},
			M:     []int{50, 500},
			Alpha: []float64{l.Alpha / 10, l.Alpha, l.Alpha * 10},
			Func:  []coverage.StateFunc{l.Func},
		})
	}
	return s
}

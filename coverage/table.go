package coverage

import "math"

// table holds min(count, O) for every neuron and slot, 0 for slots that are no
// bin, in the narrowest integers that hold O: what Score reads at random should
// fit a cache. Exactly one of the slices is set.
type table struct {
	b8  []uint8
	b16 []uint16
	b32 []uint32
}

// capped returns the table, made anew if counts have changed.
func (l *Layer) capped() *table {
	if t := l.table.Load(); t != nil {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.table.Load(); t != nil {
		return t
	}
	t := &table{}
	switch o := l.settings.O; {
	case o <= math.MaxUint8:
		t.b8 = capCounts[uint8](l)
	case o <= math.MaxUint16:
		t.b16 = capCounts[uint16](l)
	default:
		t.b32 = capCounts[uint32](l)
	}
	l.table.Store(t)
	return t
}

func capCounts[T uint8 | uint16 | uint32](l *Layer) []T {
	t := make([]T, len(l.counts))
	stride, limit := l.look.stride(), uint32(l.settings.O)
	for s, b := range l.look.bins {
		if b < 0 {
			continue
		}
		for i := s; i < len(t); i += stride {
			t[i] = T(min(l.counts[i], limit))
		}
	}
	return t
}

func (t *table) sums(l *Layer, z, g []float32, n int, sums []uint64) {
	switch {
	case t.b8 != nil:
		l.blocks(z, g, n, 1, func(first, row int, at []uint32) {
			sums[row] += sumAt(t.b8[first*l.look.stride():], at)
		})
	case t.b16 != nil:
		l.blocks(z, g, n, 2, func(first, row int, at []uint32) {
			sums[row] += sumAt(t.b16[first*l.look.stride():], at)
		})
	default:
		l.blocks(z, g, n, 4, func(first, row int, at []uint32) {
			sums[row] += sumAt(t.b32[first*l.look.stride():], at)
		})
	}
}

func sumAt[T uint8 | uint16 | uint32](t []T, at []uint32) uint64 {
	var a, b, c, d uint64
	for len(at) >= 4 {
		a += uint64(t[at[0]])
		b += uint64(t[at[1]])
		c += uint64(t[at[2]])
		d += uint64(t[at[3]])
		at = at[4:]
	}
	for _, p := range at {
		a += uint64(t[p])
	}
	return a + b + c + d
}

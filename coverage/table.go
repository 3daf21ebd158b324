package coverage

import (
	"math"
	"sync"
)

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

func capCounts[T entry](l *Layer) []T {
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
		sumCapped(t.b8, l, z, g, n, l.blockWidth(n, 1), sums)
	case t.b16 != nil:
		sumCapped(t.b16, l, z, g, n, l.blockWidth(n, 2), sums)
	default:
		sumCapped(t.b32, l, z, g, n, l.blockWidth(n, 4), sums)
	}
}

// slotPool is room for slots, as many goroutines score at once.
var slotPool = sync.Pool{New: func() any { return new([]uint16) }}

func sumCapped[T entry](capped []T, l *Layer, z, g []float32, n, width int, sums []uint64) {
	x, y := l.settings.Func.factors(z, g)
	first := 0
	if n >= tallyRows {
		slots := slotPool.Get().(*[]uint16)
		if need := tallySlots(n, l.channels); len(*slots) < need {
			*slots = make([]uint16, need)
		}
		first = vectorTallySums(l.look, capped, x, y, l.channels, n, *slots, sums)
		slotPool.Put(slots)
	}
	for ; first < l.channels; first += width {
		end := min(first+width, l.channels)
		block := capped[first*l.look.stride() : end*l.look.stride()]
		for row := range n {
			from, to := row*l.channels+first, row*l.channels+end
			sums[row] += sumEntries(l.look, block, x[from:to], part(y, from, to), prefetchRows*l.channels)
		}
	}
}

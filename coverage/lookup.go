package coverage

import (
	"math"
	"slices"
)

const signBit = 1 << 31

// key orders the bits of float32 values as unsigned numbers: a < b means
// key(a) < key(b), -0 comes just before +0, and NaNs lie outside the infinities
// on either side.
func key(bits uint32) uint32 { return bits ^ (uint32(int32(bits)>>31) | signBit) }

// unkey inverts key.
func unkey(k uint32) float32 { return math.Float32frombits(k ^ (uint32(int32(^k)>>31) | signBit)) }

const (
	keyNegInf   = 0x007fffff // key of -Inf
	keyInf      = 0xff800000 // key of +Inf
	keyNever    = keyInf + 1 // reached by no number
	keySentinel = 1<<32 - 1  // reached by no number and one NaN
	maxCells    = 1 << 15
)

// pulledBack returns, for each threshold, the key of the smallest float32
// argument whose state is at least the threshold, or keyNever. States rise
// with the argument, so that key splits the arguments exactly.
func pulledBack(f StateFunc, alpha float32, th []float64) []uint32 {
	keys := make([]uint32, len(th))
	for i, t := range th {
		lo, hi := int64(keyNegInf), int64(keyNever) // the answer is in [lo, hi]
		for lo < hi {
			mid := (lo + hi) / 2
			if float64(f.ofArgument(alpha, unkey(uint32(mid)))) >= t {
				hi = mid
			} else {
				lo = mid + 1
			}
		}
		keys[i] = uint32(lo)
	}
	return keys
}

// lookup finds the slot of an argument: the number of its different pulled-back
// thresholds at or below it. Slots other than the first and the last stand for
// one bin each.
//
// A float32's magnitude bits, shifted, name a cell on a scale that is linear
// within each power of two. Each cell knows the slot of its smallest argument.
// Where no cell holds more than one threshold (nearly always), one comparison
// settles the rest.
type lookup struct {
	cells  []uint16 // those of arguments from +0 up, then from -0 down, and one unused
	half   int32    // cells per sign
	lo     int32    // shifted magnitude of cell 0, which extends down to 0
	shift  uint8    // magnitude bits below a cell
	single bool     // no cell holds two thresholds
	keys   []uint32 // different pulled-back thresholds, rising, and a sentinel
	bins   []int32  // bin of each slot, -1 for none
}

// stride is the number of slots to provide per neuron. The last is reached
// only by one NaN, whose key is the sentinel's.
func (t *lookup) stride() int { return len(t.bins) }

func newLookup(f StateFunc, alpha float64, thresholds []float64) *lookup {
	m := len(thresholds)
	all := pulledBack(f, float32(alpha), thresholds)
	t := &lookup{bins: []int32{-1}}
	for i, k := range all {
		// Thresholds that no float32 separates leave an empty bin; the
		// last of them begins the one that can be reached.
		if i+1 < len(all) && all[i+1] == k {
			continue
		}
		bin := int32(i)
		if i == m-1 || k == keyNever {
			bin = -1
		}
		t.keys = append(t.keys, k)
		t.bins = append(t.bins, bin)
	}
	t.keys = append(t.keys, keySentinel)
	t.bins = append(t.bins, -1)
	t.build()
	return t
}

// build chooses the coarsest cells that hold at most one threshold each, or
// the finest allowed.
func (t *lookup) build() {
	var pos, neg []uint32 // magnitudes of finite thresholds, rising
	for _, k := range t.keys {
		switch {
		case k >= signBit && k < keyInf:
			pos = append(pos, k&^signBit)
		case k < signBit && k > keyNegInf:
			neg = append(neg, ^k&^signBit)
		}
	}
	slices.Reverse(neg)
	for shift := uint8(22); ; shift-- {
		if next := t.cut(pos, neg, shift); next == nil || shift == 0 {
			break
		} else {
			*t = *next
		}
		if t.single {
			break
		}
	}
	if t.cells == nil { // thresholds too far apart for any table
		*t = *t.layOut(22, 0, 1)
	}
}

// cut lays cells of the given width over the thresholds, or returns nil if that
// takes too many.
func (t *lookup) cut(pos, neg []uint32, shift uint8) *lookup {
	// Cell 0 extends to zero, so it may swallow one threshold per sign: in
	// particular the one at or near 0, which would cost many powers of two.
	lo, hi := uint32(math.MaxInt32)>>shift, uint32(0)
	for _, m := range [][]uint32{pos, neg} {
		if len(m) > 1 {
			lo = min(lo, m[1]>>shift)
		}
		if len(m) > 0 {
			hi = max(hi, m[len(m)-1]>>shift)
		}
	}
	if lo > 0 {
		lo--
	}
	lo = min(lo, hi)
	half := hi - lo + 2 // the top cell is for what lies beyond, and NaN
	if 2*half > maxCells {
		return nil
	}
	return t.layOut(shift, int32(lo), int32(half))
}

func (t *lookup) layOut(shift uint8, lo, half int32) *lookup {
	n := &lookup{cells: make([]uint16, 2*half+1), half: half, lo: lo, shift: shift, single: true, keys: t.keys, bins: t.bins}
	thresholds := t.keys[:len(t.keys)-1]
	upTo := func(k uint32) int { // thresholds at or below k
		at, found := slices.BinarySearch(thresholds, k)
		if found {
			at++
		}
		return at
	}
	for c := range half {
		first, last := uint32(lo+c)<<shift, uint32(lo+c+1)<<shift-1
		if c == 0 {
			first = 0
		}
		if c == half-1 {
			last = math.MaxInt32
		}
		for _, s := range []struct {
			cell    int32
			low, up uint32 // smallest and largest key
		}{{c, first | signBit, last | signBit}, {half + c, ^(last | signBit), ^(first | signBit)}} {
			base := upTo(s.low)
			n.cells[s.cell] = uint16(base)
			if upTo(s.up)-base > 1 {
				n.single = false
			}
		}
	}
	return n
}

// slot returns the slot of one argument, given its bits.
func (t *lookup) slot(bits uint32) int32 {
	c := min(max(int32(bits&^signBit>>t.shift)-t.lo, 0), t.half-1)
	c += int32(bits) >> 31 & t.half
	s := int32(t.cells[c])
	k := key(bits)
	for s < int32(len(t.keys)-1) && k >= t.keys[s] {
		s++
	}
	return s
}

package coverage

import "math"

//go:generate sh -c "cd _gen && go run . -out ../bins_amd64.s"

// blockArgs is how many arguments portable code looks up at a time, into a
// buffer that stays in the first-level cache.
const blockArgs = 256

// entry is the type of a table's entries.
type entry interface{ uint8 | uint16 | uint32 }

// count adds one to the entry of each argument in a table that has stride
// entries per argument:
//
//	for i := range x { table[i*stride + slot(x[i]*y[i])]++ }
//
// The argument is float32(x*y), or x alone if y is nil. The caller will ask next
// for the arguments that lie ahead elements on; they may be fetched early.
func (t *lookup) count(table []uint32, x, y []float32, ahead int) {
	done := t.vectorCount(table, x, y, ahead)
	var buf [blockArgs]uint32
	for done < len(x) {
		at := t.slots(buf[:], x, y, &done)
		first := (done - len(at)) * t.stride()
		for _, p := range at {
			table[first+int(p)]++
		}
	}
}

// sumEntries adds up the entries of the arguments:
//
//	for i := range x { sum += table[i*stride + slot(x[i]*y[i])] }
func sumEntries[T entry](t *lookup, table []T, x, y []float32, ahead int) uint64 {
	done, sum := vectorSum(t, table, x, y, ahead)
	var buf [blockArgs]uint32
	for done < len(x) {
		at := t.slots(buf[:], x, y, &done)
		first := (done - len(at)) * t.stride()
		for _, p := range at {
			sum += uint64(table[first+int(p)])
		}
	}
	return sum
}

// slots looks up arguments from number *done on, as many as buf holds, and
// moves *done behind them. It returns i*stride + slot for the i-th of them.
func (t *lookup) slots(buf []uint32, x, y []float32, done *int) []uint32 {
	from := *done
	to := min(from+len(buf), len(x))
	*done = to
	at := buf[:to-from]
	if y != nil {
		y = y[from:to]
		for i, v := range x[from:to] {
			at[i] = math.Float32bits(float32(v * y[i]))
		}
	} else {
		for i, v := range x[from:to] {
			at[i] = math.Float32bits(v)
		}
	}
	stride := uint32(t.stride())
	if t.single {
		t.singleSlots(at, stride)
		return at
	}
	for i, b := range at {
		at[i] = uint32(i)*stride + uint32(t.slot(b))
	}
	return at
}

// singleSlots replaces the bits of each argument with i*stride + slot. It is
// lookup.slot without a branch, of which every third would be mispredicted.
func (t *lookup) singleSlots(at []uint32, stride uint32) {
	cells, keys := t.cells, t.keys
	lo, last, half, shift := t.lo, t.half-1, t.half, t.shift&31
	next := uint32(1)
	for i, b := range at {
		sign := int32(b) >> 31
		c := int32(b&^signBit>>shift) - lo
		c &^= c >> 31 // max(c, 0)
		over := last - c
		c += over & (over >> 31) // min(c, last)
		s := cells[c+sign&half]
		k := b ^ (uint32(sign) | signBit)
		// Less 1 if k < keys[s], against the 1 in next.
		at[i] = next + uint32(s) + uint32((int64(k)-int64(keys[s]))>>63)
		next += stride
	}
}

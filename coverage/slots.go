package coverage

import "math"

//go:generate sh -c "cd _gen && go run . -out ../slots_amd64.s"

// slots writes where each argument falls in a table of stride entries per
// argument:
//
//	for i := range dst { dst[i] = i*stride + t.slot(bits(x[i])) }
//
// The argument x is float32(z*g), or z alone if g is nil. z and g are as long
// as dst. i*stride fits 32 bits.
func (t *lookup) slots(dst []uint32, z, g []float32, stride uint32) {
	done := 0
	if t.single {
		done = t.vectorSlots(dst, z, g, stride)
	}
	if done == len(dst) {
		return
	}
	first := uint32(done) * stride
	dst, z = dst[done:], z[done:]
	if g != nil {
		for i, v := range g[done:] {
			dst[i] = math.Float32bits(float32(z[i] * v))
		}
	} else {
		for i, v := range z {
			dst[i] = math.Float32bits(v)
		}
	}
	if t.single {
		t.portableSlots(dst, first, stride)
		return
	}
	for i, b := range dst {
		dst[i] = first + uint32(i)*stride + uint32(t.slot(b))
	}
}

// portableSlots replaces the bits of each argument with its place. It is
// lookup.slot without a branch: about every third argument would be mispredicted.
func (t *lookup) portableSlots(dst []uint32, first, stride uint32) {
	cells, keys := t.cells, t.keys
	lo, last, half, shift := t.lo, t.half-1, t.half, t.shift&31
	at := first + 1
	for i, b := range dst {
		sign := int32(b) >> 31
		c := int32(b&^signBit>>shift) - lo
		c &^= c >> 31 // max(c, 0)
		over := last - c
		c += over & (over >> 31) // min(c, last)
		s := cells[c+sign&half]
		k := int32(b) ^ int32(uint32(sign)>>1)
		// Less 1 if k < keys[s], against the 1 in at.
		dst[i] = at + uint32(s) + uint32((int64(k)-int64(keys[s]))>>63)
		at += stride
	}
}

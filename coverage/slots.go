package coverage

import "math"

// products writes into dst[i] the table position i*stride + slot(z[i]*g[i]).
func (t *lookup) products(dst []uint32, z, g []float32, stride uint32) {
	if !t.single {
		pos := uint32(0)
		for i := range dst {
			dst[i] = pos + uint32(t.slot(math.Float32bits(float32(z[i]*g[i]))))
			pos += stride
		}
		return
	}
	cells, keys := t.cells, t.keys
	lo, last, half := t.lo, t.half-1, t.half
	shift := t.shift & 31
	z = z[:len(dst)]
	g = g[:len(dst)]
	pos := uint32(0)
	for i := range dst {
		bits := math.Float32bits(float32(z[i] * g[i]))
		sign := int32(bits) >> 31
		c := min(max(int32(bits&^signBit>>shift)-lo, 0), last) + sign&half
		s := cells[c]
		k := int32(bits) ^ int32(uint32(sign)>>1)
		// One more slot if k >= keys[s], without a branch.
		dst[i] = pos + uint32(s) + uint32(1+(int64(k)-int64(keys[s]))>>63)
		pos += stride
	}
}

// values is products for an argument that needs no product.
func (t *lookup) values(dst []uint32, x []float32, stride uint32) {
	if !t.single {
		pos := uint32(0)
		for i := range dst {
			dst[i] = pos + uint32(t.slot(math.Float32bits(x[i])))
			pos += stride
		}
		return
	}
	cells, keys := t.cells, t.keys
	lo, last, half := t.lo, t.half-1, t.half
	shift := t.shift & 31
	x = x[:len(dst)]
	pos := uint32(0)
	for i := range dst {
		bits := math.Float32bits(x[i])
		sign := int32(bits) >> 31
		c := min(max(int32(bits&^signBit>>shift)-lo, 0), last) + sign&half
		s := cells[c]
		k := int32(bits) ^ int32(uint32(sign)>>1)
		dst[i] = pos + uint32(s) + uint32(1+(int64(k)-int64(keys[s]))>>63)
		pos += stride
	}
}

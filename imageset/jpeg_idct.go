package imageset

import "encoding/binary"

// The inverse transform is that of Loeffler, Ligtenberg and Moschytz (ICASSP 1989)
// in 13-bit fixed point. Two rows of the factorisation's constants:
const (
	fix0298 = 2446  // 0.298631336
	fix0390 = 3196  // 0.390180644
	fix0541 = 4433  // 0.541196100
	fix0765 = 6270  // 0.765366865
	fix0899 = 7373  // 0.899976223
	fix1175 = 9633  // 1.175875602
	fix1501 = 12299 // 1.501321110
	fix1847 = 15137 // 1.847759065
	fix1961 = 16069 // 1.961570560
	fix2053 = 16819 // 2.053119869
	fix2562 = 20995 // 2.562915447
	fix3072 = 25172 // 3.072711026
)

// idct transforms the dequantised block b into 8 rows of samples at out, stride
// bytes apart. mask has a bit for every coefficient that may not be zero, but the
// first. Where a sum goes beyond 16 bits, which no proper file does, it wraps or
// saturates just where libjpeg-turbo's vector code does.
func idct(b *[64]int16, mask uint64, out []uint8, stride int) {
	if mask == 0 {
		// All samples are alike.
		v := int32(int16(b[0]<<2)) + 16
		x := uint64(sample(v>>5)) * 0x0101010101010101
		for y := range 8 {
			putRow(out[y*stride:], x)
		}
		return
	}
	var w [64]int32
	if mask>>8 == 0 {
		// Only the first row: all rows of the result are alike.
		for i := range 8 {
			w[i] = int32(int16(b[i] << 2))
		}
		x := rowSamples((*[8]int32)(w[:8]))
		for y := range 8 {
			putRow(out[y*stride:], x)
		}
		return
	}
	if vectors {
		_ = out[7*stride+7]
		idctAVX2(b, &out[0], stride)
		return
	}
	// Columns.
	low := mask>>32 == 0 // nothing in the lower half
	for i := range 8 {
		col := mask >> uint(i) & 0x0101010101010100
		if col == 0 {
			v := int32(b[i]) << 2
			if v != int32(int16(v)) {
				v = saturate(v)
			}
			if v != 0 {
				for y := 0; y < 64; y += 8 {
					w[(y+i)&63] = v
				}
			}
			continue
		}
		var t10, t11, t12, t13, t0, t1, t2, t3 int32
		in0, in1, in2, in3 := int32(b[i]), int32(b[i+8]), int32(b[i+16]), int32(b[i+24])
		if low {
			a, c := in2*fix0541, in2*(fix0541+fix0765)
			e := in0 << 13
			t10, t13, t11, t12 = e+c, e-c, e+a, e-a
			z5 := (in3 + in1) * fix1175
			z3, z4 := z5-in3*fix1961, z5-in1*fix0390
			z1, z2 := in1*-fix0899, in3*-fix2562
			t0, t1, t2, t3 = z1+z3, z2+z4, in3*fix3072+z2+z3, in1*fix1501+z1+z4
		} else {
			in4, in5, in6, in7 := int32(b[i+32]), int32(b[i+40]), int32(b[i+48]), int32(b[i+56])
			z1 := (in2 + in6) * fix0541
			a, c := z1-in6*fix1847, z1+in2*fix0765
			e, f := int32(int16(in0+in4))<<13, int32(int16(in0-in4))<<13
			t10, t13, t11, t12 = e+c, e-c, f+a, f-a
			z3, z4 := int32(int16(in7+in3)), int32(int16(in5+in1))
			z5 := (z3 + z4) * fix1175
			z3, z4 = z5-z3*fix1961, z5-z4*fix0390
			z1 = (in7 + in1) * -fix0899
			z2 := (in5 + in3) * -fix2562
			t0, t1, t2, t3 = in7*fix0298+z1+z3, in5*fix2053+z2+z4, in3*fix3072+z2+z3, in1*fix1501+z1+z4
		}
		const half = 1 << 10
		r0, r7 := (t10+t3+half)>>11, (t10-t3+half)>>11
		r1, r6 := (t11+t2+half)>>11, (t11-t2+half)>>11
		r2, r5 := (t12+t1+half)>>11, (t12-t1+half)>>11
		r3, r4 := (t13+t0+half)>>11, (t13-t0+half)>>11
		// One test for all: some value beyond 16 bits.
		if (magnitude(r0)|magnitude(r1)|magnitude(r2)|magnitude(r3)|magnitude(r4)|magnitude(r5)|magnitude(r6)|magnitude(r7))>>15 != 0 {
			r0, r1, r2, r3 = saturate(r0), saturate(r1), saturate(r2), saturate(r3)
			r4, r5, r6, r7 = saturate(r4), saturate(r5), saturate(r6), saturate(r7)
		}
		w[i], w[i+8], w[i+16], w[i+24], w[i+32], w[i+40], w[i+48], w[i+56] = r0, r1, r2, r3, r4, r5, r6, r7
	}
	if mask&0xfefefefefefefefe == 0 {
		// Only the first column: rows are even.
		for y := range 8 {
			putRow(out[y*stride:], uint64(sample((w[8*y]+16)>>5))*0x0101010101010101)
		}
		return
	}
	if mask&0xf0f0f0f0f0f0f0f0 == 0 {
		for y := range 8 {
			putRow(out[y*stride:], halfRowSamples((*[8]int32)(w[8*y:])))
		}
		return
	}
	for y := range 8 {
		putRow(out[y*stride:], rowSamples((*[8]int32)(w[8*y:])))
	}
}

// rowSamples transforms a row and packs its samples, the first lowest.
func rowSamples(w *[8]int32) uint64 {
	z1 := (w[2] + w[6]) * fix0541
	a, c := z1-w[6]*fix1847, z1+w[2]*fix0765
	e, f := int32(int16(w[0]+w[4]))<<13, int32(int16(w[0]-w[4]))<<13
	e += 1 << 17
	f += 1 << 17
	t10, t13, t11, t12 := e+c, e-c, f+a, f-a
	z3, z4 := int32(int16(w[7]+w[3])), int32(int16(w[5]+w[1]))
	z5 := (z3 + z4) * fix1175
	z3, z4 = z5-z3*fix1961, z5-z4*fix0390
	z1 = (w[7] + w[1]) * -fix0899
	z2 := (w[5] + w[3]) * -fix2562
	t0, t1 := w[7]*fix0298+z1+z3, w[5]*fix2053+z2+z4
	t2, t3 := w[3]*fix3072+z2+z3, w[1]*fix1501+z1+z4
	return pack(t10, t11, t12, t13, t0, t1, t2, t3)
}

// halfRowSamples is rowSamples for a row whose second half is zero.
func halfRowSamples(w *[8]int32) uint64 {
	a, c := w[2]*fix0541, w[2]*(fix0541+fix0765)
	e := w[0]<<13 + 1<<17
	t10, t13, t11, t12 := e+c, e-c, e+a, e-a
	z5 := (w[3] + w[1]) * fix1175
	z3, z4 := z5-w[3]*fix1961, z5-w[1]*fix0390
	z1, z2 := w[1]*-fix0899, w[3]*-fix2562
	return pack(t10, t11, t12, t13, z1+z3, z2+z4, w[3]*fix3072+z2+z3, w[1]*fix1501+z1+z4)
}

func pack(t10, t11, t12, t13, t0, t1, t2, t3 int32) uint64 {
	const level = 128
	r0, r7 := (t10+t3)>>18+level, (t10-t3)>>18+level
	r1, r6 := (t11+t2)>>18+level, (t11-t2)>>18+level
	r2, r5 := (t12+t1)>>18+level, (t12-t1)>>18+level
	r3, r4 := (t13+t0)>>18+level, (t13-t0)>>18+level
	// One test for all: some value that is no byte.
	if uint32(r0|r1|r2|r3|r4|r5|r6|r7) > 255 {
		return uint64(clamp(r0)) | uint64(clamp(r1))<<8 | uint64(clamp(r2))<<16 | uint64(clamp(r3))<<24 |
			uint64(clamp(r4))<<32 | uint64(clamp(r5))<<40 | uint64(clamp(r6))<<48 | uint64(clamp(r7))<<56
	}
	low := uint32(r0) | uint32(r1)<<8 | uint32(r2)<<16 | uint32(r3)<<24
	high := uint32(r4) | uint32(r5)<<8 | uint32(r6)<<16 | uint32(r7)<<24
	return uint64(low) | uint64(high)<<32
}

// sample shifts the level to 0..255 and clamps.
func sample(v int32) uint8 { return clamp(v + 128) }

// magnitude has no bit from the 15th on if and only if v fits 16 bits.
func magnitude(v int32) int32 { return v ^ v>>31 }

func saturate(v int32) int32 { return min(max(v, -1<<15), 1<<15-1) }

func putRow(out []uint8, x uint64) { binary.LittleEndian.PutUint64(out, x) }

package metric

import (
	"math"
	"slices"
)

const (
	radixBits = 11
	radixMin  = 512 // below this, comparing is faster
)

// sortFinite sorts finite values, rising. Scores that began as float32 have
// their low 29 bits clear, so half of the passes over the digits fall away; a
// parameter search ranks the same samples hundreds of times.
func sortFinite(v []float64) {
	if len(v) < radixMin {
		slices.Sort(v)
		return
	}
	const digits, mask = (64 + radixBits - 1) / radixBits, 1<<radixBits - 1
	var counts [digits][1 << radixBits]int32
	keys, spare := make([]uint64, len(v)), make([]uint64, len(v))
	for i, f := range v {
		// As unsigned numbers, the bits of negative values would fall.
		b := math.Float64bits(f)
		k := b ^ (uint64(int64(b)>>63) | 1<<63)
		keys[i] = k
		for d := range counts {
			counts[d][k>>(d*radixBits)&mask]++
		}
	}
	for d := range counts {
		shift := d * radixBits
		if counts[d][keys[0]>>shift&mask] == int32(len(v)) {
			continue
		}
		next := int32(0)
		for i, c := range counts[d] {
			counts[d][i] = next
			next += c
		}
		for _, k := range keys {
			at := &counts[d][k>>shift&mask]
			spare[*at] = k
			*at++
		}
		keys, spare = spare, keys
	}
	for i, k := range keys {
		v[i] = math.Float64frombits(k ^ (uint64(int64(^k)>>63) | 1<<63))
	}
}

// sortFinite32 is sortFinite for float32; spare is as long and is overwritten.
func sortFinite32(v, spare []float32) {
	if len(v) < radixMin {
		slices.Sort(v)
		return
	}
	const digits, mask = (32 + radixBits - 1) / radixBits, 1<<radixBits - 1
	var counts [digits][1 << radixBits]int32
	for _, f := range v {
		k := key32(f)
		for d := range counts {
			counts[d][k>>(d*radixBits)&mask]++
		}
	}
	from, to := v, spare
	for d := range counts {
		shift := d * radixBits
		if counts[d][key32(v[0])>>shift&mask] == int32(len(v)) {
			continue
		}
		next := int32(0)
		for i, c := range counts[d] {
			counts[d][i] = next
			next += c
		}
		for _, f := range from {
			at := &counts[d][key32(f)>>shift&mask]
			to[*at] = f
			*at++
		}
		from, to = to, from
	}
	if &from[0] != &v[0] {
		copy(v, from)
	}
}

// key32 orders float32 values as unsigned numbers.
func key32(f float32) uint32 {
	b := math.Float32bits(f)
	return b ^ (uint32(int32(b)>>31) | 1<<31)
}

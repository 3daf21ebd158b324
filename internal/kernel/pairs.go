package kernel

import (
	"math"
	"unsafe"
)

// BF16 is the name of the set that multiplies in bfloat16 where that is faster than
// float32, and adds in float32. It is nobody's best: products have 8 significant bits
// and not 24. It needs AVX512-BF16.
const BF16 = "bf16"

// PairArgs are the arguments of rounding Count float32 to bfloat16, to the nearest, ties
// to even. Count is a multiple of Lanes. Two neighbours, as a pair, take the place of
// one float32.
type PairArgs struct {
	In, Out *float32
	Count   int64
}

// Pairs reports whether the set has tiles of pairs of bfloat16.
func (s *Set) Pairs() bool { return s.pairs != nil }

// PairTile returns the widest tile of pairs whose width divides the number of channels.
// Its formula is that of TileArgs, but every value of In and Weights is a pair of bfloat16, and
// the product of two pairs is the sum of their values' products.
func (s *Set) PairTile(channels int) Tile { return widest(s.pairs, channels) }

// PairUp returns the kernel for PairArgs.
func (s *Set) PairUp() func(*PairArgs) { return s.pairUp }

// BFloat16 returns v rounded to bfloat16, to the nearest, ties to even.
func BFloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16 | 1<<6) // a NaN whose low bits alone tell must stay one
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Halves returns the bfloat16 of which pairs consist, the first of each pair first.
func Halves(pairs []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(pairs))), 2*len(pairs))
}

// Package kernel holds the innermost loops of the network engine: one contract,
// written in portable Go and in generated assembly for AVX2+FMA and AVX-512, and
// a chooser among them. It knows nothing of networks.
//
// Activations are rows of channels (NHWC): a pixel is a run of consecutive
// float32, and a tile of a convolution or a matrix product reads pixels at
// arbitrary byte offsets. Borders, strides and batches are therefore matters of
// the offsets alone, and nothing is copied before the arithmetic.
package kernel

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

//go:generate sh -c "cd _gen && go run . -isa avx2 -out ../tile_avx2_amd64.s && go run . -isa avx512 -out ../tile_avx512_amd64.s && go run . -isa bf16 -out ../tile_bf16_amd64.s && go run . -isa winograd -out ../winograd_avx2_amd64.s && go run . -isa winograd512 -out ../winograd_avx512_amd64.s && go run . -isa depthwise -out ../depthwise_avx2_amd64.s && go run . -isa pool -out ../pool_avx2_amd64.s && go run . -isa gram -out ../gram_avx2_amd64.s && go run . -isa transformer -out ../transformer_avx2_amd64.s && go run . -isa transformer512 -out ../transformer_avx512_amd64.s && go run . -isa train -out ../train_avx2_amd64.s && go run . -isa train512 -out ../train_avx512_amd64.s && go run . -isa layout -out ../layout_avx2_amd64.s"

// Rows is the number of output pixels that one tile computes.
const Rows = 6

// Lanes is what the number of channels of an activation is rounded up to, so
// that every instruction set reads and writes whole vectors.
const Lanes = 16

// Flags of TileArgs.
const (
	// ReLU clamps the result at zero; NaN stays NaN.
	ReLU = 1 << iota
	// Accumulate starts from what Out holds instead of from Bias.
	Accumulate
)

// TileArgs are the arguments of a tile kernel of width W: Count times Rows output
// pixels by W output channels of a convolution, a matrix product or their
// transposes. For each of Count consecutive entries of InOff and OutOff:
//
//	for i := range Rows { for j := range W {
//		acc := Bias[j]             // 0 if Bias is nil; Out[OutOff[i]+j] if Accumulate
//		for t := range Taps { for c := range Cin {
//			acc += In[InOff[i]+TapOff[t]+c] * Weights[(t*Cin+c)*W+j]
//		}}
//		acc += Res[OutOff[i]+j]    // if Res is not nil
//		acc = max(acc, 0)          // if ReLU
//		if !(Mask[OutOff[i]+j] > 0) { acc = 0 } // if Mask is not nil
//		Out[OutOff[i]+j] = acc
//	}}
//
// The offsets are in bytes. All rows are read before any is written only in so
// far as Accumulate goes, so Res must not overlap Out; two rows may name the same
// pixel, which is how a tile at the end of a batch is filled. Taps, Cin and Count
// are at least 1. The sum runs in the order written, whatever the instruction set,
// but assembly rounds once a multiplication and addition (FMA), portable Go
// may round twice.
type TileArgs struct {
	In      *float32
	Weights *float32
	Out     *float32
	Bias    *float32
	Res     *float32
	Mask    *float32
	InOff   *[Rows]int64 // Count of them
	OutOff  *[Rows]int64 // Count of them
	TapOff  *int64       // Taps of them
	Taps    int64
	Cin     int64
	Flags   int64
	Count   int64
	// Next to Last is what the next call reads; a kernel may fetch it into the second-level
	// cache meanwhile. Both are nil if that is not known.
	Next, Last *float32
}

// WidestTile is the most output channels of a tile.
const WidestTile = 64

// Tile is a tile kernel.
type Tile struct {
	// Width is the number of output channels it computes.
	Width int
	// Run computes Count tiles.
	Run func(*TileArgs)
}

// Set is the kernels of one instruction set.
type Set struct {
	name        string
	tiles       []Tile      // widest first
	winograd    [2]Winograd // of 2 and 4 outputs
	products    []Product   // widest first
	transformer *Transformer
	// pairs are tiles of bfloat16, if the set has any, and pairUp makes their operands.
	pairs  []Tile
	pairUp func(*PairArgs)
}

// Name is "avx512", "avx2", "portable" or "bf16".
func (s *Set) Name() string { return s.name }

// Tile returns the widest tile whose width divides the number of channels, a
// multiple of Lanes.
func (s *Set) Tile(channels int) Tile { return widest(s.tiles, channels) }

func widest(tiles []Tile, channels int) Tile {
	for _, t := range tiles {
		if channels%t.Width == 0 {
			return t
		}
	}
	panic(fmt.Sprintf("kernel: %d channels are not a multiple of %d", channels, Lanes))
}

// Tiles returns every tile of the set.
func (s *Set) Tiles() []Tile { return s.tiles }

// Available returns the sets that this machine can run and that compute in float32, the
// best first; the portable one is always among them.
func Available() []*Set { return append(machineSets(), portable) }

// Best returns the fastest set that this machine can run.
func Best() *Set { return Available()[0] }

// ByName returns the named set, of Available or [BF16]; the empty name means Best. It is an
// error if the machine cannot run it.
func ByName(name string) (*Set, error) {
	if name == "" {
		return Best(), nil
	}
	var names []string
	sets := Available()
	if machineBF16 != nil {
		sets = append(sets, machineBF16)
	}
	for _, s := range sets {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	return nil, fmt.Errorf("kernel: no instruction set %q here; this machine and build have %s", name, strings.Join(names, ", "))
}

// SecondLevelCache is the size of a core's second-level cache in bytes, or of a small one if
// that is not known.
func SecondLevelCache() int { return max(cpuid.CPU.Cache.L2, 512<<10) }

// Pad rounds a number of channels up to a multiple of Lanes.
func Pad(channels int) int { return (channels + Lanes - 1) / Lanes * Lanes }

// Aligned returns n zeroed floats that start at a multiple of 64 bytes, so that
// no vector crosses a cache line.
func Aligned(n int) []float32 {
	if n == 0 {
		return nil
	}
	s := make([]float32, n+Lanes)
	skip := 0
	if r := uintptr(unsafe.Pointer(&s[0])) % 64; r != 0 {
		skip = int(64-r) / 4
	}
	return s[skip : skip+n : skip+n]
}

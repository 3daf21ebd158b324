//go:build amd64 && !purego

package kernel

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

//go:noescape
func tile6x16AVX2(a *TileArgs)

//go:noescape
func tile6x16AVX512(a *TileArgs)

//go:noescape
func tile6x32AVX512(a *TileArgs)

//go:noescape
func tile6x64AVX512(a *TileArgs)

//go:noescape
func tile12x16AVX512(a *TileArgs)

//go:noescape
func tile12x32AVX512(a *TileArgs)

//go:noescape
func product6x16AVX2(a *ProductArgs)

//go:noescape
func product12x16AVX512(a *ProductArgs)

//go:noescape
func product12x32AVX512(a *ProductArgs)

//go:noescape
func product6x64AVX512(a *ProductArgs)

//go:noescape
func tile6x16BF16(a *TileArgs)

//go:noescape
func tile6x32BF16(a *TileArgs)

//go:noescape
func tile6x64BF16(a *TileArgs)

//go:noescape
func pairUpBF16(a *PairArgs)

//go:noescape
func winogradInputAVX2(a *WinogradInput)

//go:noescape
func winogradOutputAVX2(a *WinogradOutput)

//go:noescape
func winograd4InputAVX2(a *WinogradInput)

//go:noescape
func winograd4OutputAVX2(a *WinogradOutput)

//go:noescape
func winogradInputAVX512(a *WinogradInput)

//go:noescape
func winogradOutputAVX512(a *WinogradOutput)

//go:noescape
func winograd4InputAVX512(a *WinogradInput)

//go:noescape
func winograd4OutputAVX512(a *WinogradOutput)

var (
	avx2Winograd = [2]Winograd{
		{2, winogradInputAVX2, winogradOutputAVX2, winogradFiltersAVX2},
		{4, winograd4InputAVX2, winograd4OutputAVX2, winograd4FiltersAVX2},
	}

	avx512Winograd = [2]Winograd{
		{2, winogradInputAVX512, winogradOutputAVX512, winogradFiltersAVX2},
		{4, winograd4InputAVX512, winograd4OutputAVX512, winograd4FiltersAVX2},
	}

	avx2 = &Set{
		name: "avx2", tiles: []Tile{{16, tile6x16AVX2}}, winograd: avx2Winograd,
		products:    []Product{{16, 6, productRest, product6x16AVX2}},
		transformer: &avx2Transformer,
	}
	avx512 = &Set{
		name: "avx512", tiles: []Tile{{64, tile6x64AVX512}, {32, tall32AVX512}, {16, tall16AVX512}}, winograd: avx512Winograd,
		products:    []Product{{64, 6, productRest, product6x64AVX512}, {32, 12, productRest, product12x32AVX512}, {16, 12, productRest, product12x16AVX512}},
		transformer: &avx512Transformer,
	}
)

// productRest is the generator's restRows.
const productRest = 4

func machineSets() []*Set {
	var sets []*Set
	if cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.AVX512BW) {
		sets = append(sets, avx512)
	}
	if cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3) {
		sets = append(sets, avx2)
	}
	return sets
}

// machineBF16 is the set BF16 if this machine can run it, or nil.
var machineBF16 = bf16Set()

func bf16Set() *Set {
	if !cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.AVX512BW, cpuid.AVX512BF16) {
		return nil
	}
	s := *avx512
	s.name, s.pairUp = BF16, pairUpBF16
	s.pairs = []Tile{{64, tile6x64BF16}, {32, tile6x32BF16}, {16, tile6x16BF16}}
	return &s
}

// oddTile is the last of an odd number of tiles, which the kernels for two tiles at a time leave out.
func oddTile(a *TileArgs) TileArgs {
	b := *a
	b.InOff = &unsafe.Slice(a.InOff, a.Count)[a.Count-1]
	b.OutOff = &unsafe.Slice(a.OutOff, a.Count)[a.Count-1]
	b.Count = 1
	return b
}

func tall32AVX512(a *TileArgs) {
	if a.Count > 1 {
		tile12x32AVX512(a)
	}
	if a.Count%2 == 1 {
		b := oddTile(a)
		tile6x32AVX512(&b)
	}
}

func tall16AVX512(a *TileArgs) {
	if a.Count > 1 {
		tile12x16AVX512(a)
	}
	if a.Count%2 == 1 {
		b := oddTile(a)
		tile6x16AVX512(&b)
	}
}

//go:build amd64 && !purego

package kernel

//go:noescape
func outer6x16AVX2(a *OuterArgs)

//go:noescape
func outer6x16AVX512(a *OuterArgs)

//go:noescape
func outer6x32AVX512(a *OuterArgs)

//go:noescape
func outer6x64AVX512(a *OuterArgs)

//go:noescape
func combineAVX2(a *CombineArgs)

//go:noescape
func momentsAVX2(a *MomentsArgs)

//go:noescape
func winograd4GradientAVX2(a *WinogradInput)

var (
	avx2Outers   = []Outer{{16, outer6x16AVX2}}
	avx512Outers = []Outer{{64, outer6x64AVX512}, {32, outer6x32AVX512}, {16, outer6x16AVX512}}

	// These are bound by memory: wider vectors than AVX2's would gain little.
	machineCombine = combineAVX2
	machineMoments = momentsAVX2

	machineWinogradGradient = winograd4GradientAVX2
)

func machineOuters(s *Set) []Outer {
	if s == avx512 {
		return avx512Outers
	}
	return avx2Outers
}

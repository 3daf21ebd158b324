//go:build !amd64 || purego

package kernel

var (
	machineCombine = combine
	machineMoments = momentSums

	machineWinogradGradient = winogradGradient
)

func machineOuters(*Set) []Outer { return nil }

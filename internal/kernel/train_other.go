//go:build !amd64 || purego

package kernel

var (
	machineCombine = combine
	machineMoments = momentSums
)

func machineOuters(*Set) []Outer { return nil }

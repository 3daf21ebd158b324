//go:build amd64 && !purego

package kernel

//go:noescape
func gramSumsAVX2(a *GramArgs)

// It waits for the sum over a pixel's channels: wider vectors would gain little.
var machineGram = gramSumsAVX2

//go:build amd64 && !purego

package kernel

//go:noescape
func poolAVX2(a *PoolArgs)

// It is bound by memory: wider vectors would gain little.
var machinePool = poolAVX2

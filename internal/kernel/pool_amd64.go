//go:build amd64 && !purego

package kernel

//go:noescape
func poolAVX2(a *PoolArgs)

//go:noescape
func maximumAVX2(a *MaxArgs)

// They are bound by memory: wider vectors would gain little.
var machinePool, machineMax = poolAVX2, maximumAVX2

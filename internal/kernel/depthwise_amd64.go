//go:build amd64 && !purego

package kernel

// As a load comes with every multiplication, wider vectors than AVX2's would
// gain little.
//
//go:noescape
func depthwiseAVX2(a *DepthwiseArgs)

var machineDepthwise = depthwiseAVX2

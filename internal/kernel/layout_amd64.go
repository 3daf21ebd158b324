//go:build amd64 && !purego

package kernel

//go:noescape
func lanesAVX2(a *LanesArgs)

//go:noescape
func winogradFiltersAVX2(a *WinogradFilters)

//go:noescape
func winograd4FiltersAVX2(a *WinogradFilters)

// These are bound by memory: wider vectors would gain little.
var machineLanes = lanesAVX2

//go:build !amd64 || purego

package imageset

// vectors tells that the functions below may be called: never.
var vectors = false

func idctAVX2(*[64]int16, *uint8, int)                                               {}
func ycbcrAVX2(_, _, _, _ *uint8, _ int)                                             {}
func horizontalAVX2(_ *uint8, _ int, _ *uint8, _ int, _, _ *int, _ *int32, _, _ int) {}
func verticalAVX2(_, _ *uint8, _ int, _ *int32, _, _ int)                            {}

//go:build amd64 && !purego

package imageset

//go:generate sh -c "cd _gen && go run . -out ../vector_amd64.s"

import "github.com/klauspost/cpuid/v2"

// vectors tells that the functions below may be called.
var vectors = cpuid.CPU.Supports(cpuid.AVX2)

//go:noescape
func idctAVX2(b *[64]int16, out *uint8, stride int)

//go:noescape
func ycbcrAVX2(out, y, cb, cr *uint8, n int)

//go:noescape
func horizontalAVX2(out *uint8, stride int, in *uint8, inStride int, first, count *int, weight *int32, width, n int)

//go:noescape
func verticalAVX2(out, in *uint8, stride int, weights *int32, taps, n int)

//go:build amd64 && !purego

package kernel

//go:noescape
func geluAVX2(a *GELUArgs)

//go:noescape
func geluBackAVX2(a *GELUArgs)

//go:noescape
func softmaxAVX2(a *SoftmaxArgs)

//go:noescape
func softmaxBackAVX2(a *SoftmaxArgs)

//go:noescape
func layerNormAVX2(a *LayerNormArgs)

//go:noescape
func layerNormBackAVX2(a *LayerNormArgs)

//go:noescape
func transposeAVX2(a *TransposeArgs)

//go:noescape
func geluAVX512(a *GELUArgs)

//go:noescape
func geluBackAVX512(a *GELUArgs)

//go:noescape
func softmaxAVX512(a *SoftmaxArgs)

//go:noescape
func softmaxBackAVX512(a *SoftmaxArgs)

//go:noescape
func layerNormAVX512(a *LayerNormArgs)

//go:noescape
func layerNormBackAVX512(a *LayerNormArgs)

var (
	avx2Transformer = Transformer{
		GELU: geluAVX2, GELUBack: geluBackAVX2,
		Softmax: softmaxAVX2, SoftmaxBack: softmaxBackAVX2,
		LayerNorm: wholeVectors(layerNormAVX2, layerNorm), LayerNormBack: wholeVectors(layerNormBackAVX2, layerNormBack),
		Transpose: transposed,
	}

	avx512Transformer = Transformer{
		GELU: geluAVX512, GELUBack: geluBackAVX512,
		Softmax: softmaxAVX512, SoftmaxBack: softmaxBackAVX512,
		LayerNorm: wholeVectors(layerNormAVX512, layerNorm), LayerNormBack: wholeVectors(layerNormBackAVX512, layerNormBack),
		Transpose: transposed,
	}
)

// wholeVectors is norm, but portable for rows that are no whole vectors.
func wholeVectors(norm, portable func(*LayerNormArgs)) func(*LayerNormArgs) {
	return func(a *LayerNormArgs) {
		if a.Channels%Lanes != 0 {
			portable(a)
			return
		}
		norm(a)
	}
}

func transposed(a *TransposeArgs) {
	if a.Cols%8 != 0 {
		transpose(a)
		return
	}
	transposeAVX2(a)
}

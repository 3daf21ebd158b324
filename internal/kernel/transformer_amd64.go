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

// machineTransformer computes lengths that are no whole vectors portably.
var machineTransformer = &Transformer{
	GELU: geluAVX2, GELUBack: geluBackAVX2,
	Softmax: softmaxAVX2, SoftmaxBack: softmaxBackAVX2,
	LayerNorm: func(a *LayerNormArgs) {
		if a.Channels%Lanes != 0 {
			layerNorm(a)
			return
		}
		layerNormAVX2(a)
	},
	LayerNormBack: func(a *LayerNormArgs) {
		if a.Channels%Lanes != 0 {
			layerNormBack(a)
			return
		}
		layerNormBackAVX2(a)
	},
	Transpose: func(a *TransposeArgs) {
		if a.Cols%8 != 0 {
			transpose(a)
			return
		}
		transposeAVX2(a)
	},
}

package kernel

import "unsafe"

// Clip, a flag of DepthwiseArgs, clamps the result at Ceiling; NaN stays NaN.
const Clip = 4

// DepthwiseArgs are the arguments of a kernel that convolves every channel by
// itself, for Pixels output pixels in a row. For p in Pixels and c in Channels:
//
//	acc := Bias[c]                  // 0 if Bias is nil; Out[p*OutStep+c] if Accumulate
//	for t := range Taps {
//		acc += In[p*InStep+TapOff[t]+c] * Weights[t*Channels+c]
//	}
//	acc = max(acc, 0)               // if ReLU
//	acc = min(acc, Ceiling)         // if Clip
//	Out[p*OutStep+c] = acc
//
// With one tap Out may be In, pixel for pixel. TapOff, InStep and OutStep are in
// bytes. Channels is a multiple of Lanes; Taps
// and Pixels are at least 1.
type DepthwiseArgs struct {
	In       *float32
	Weights  *float32
	Out      *float32
	Bias     *float32
	TapOff   *int64 // Taps of them
	Taps     int64
	Channels int64
	Pixels   int64
	InStep   int64
	OutStep  int64
	Flags    int64
	Ceiling  float32
}

// Depthwise returns the set's kernel for depthwise convolutions.
func (s *Set) Depthwise() func(*DepthwiseArgs) {
	if s == portable {
		return depthwise
	}
	return machineDepthwise
}

func depthwise(a *DepthwiseArgs) {
	taps := unsafe.Slice(a.TapOff, a.Taps)
	channels := int(a.Channels)
	weights := unsafe.Slice(a.Weights, len(taps)*channels)
	row := func(p *float32, offset int64) []float32 {
		return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), offset)), channels)
	}
	var bias []float32
	if a.Bias != nil && a.Flags&Accumulate == 0 {
		bias = row(a.Bias, 0)
	}
	for p := range a.Pixels {
		in, out := row(a.In, p*a.InStep+taps[0]), row(a.Out, p*a.OutStep)
		for c, v := range in {
			acc := float32(0)
			if bias != nil {
				acc = bias[c]
			} else if a.Flags&Accumulate != 0 {
				acc = out[c]
			}
			out[c] = acc + v*weights[c]
		}
		for t, off := range taps[1:] {
			in, w := row(a.In, p*a.InStep+off), weights[(t+1)*channels:][:channels]
			for c, v := range in {
				out[c] += v * w[c]
			}
		}
		for c, v := range out {
			if a.Flags&ReLU != 0 && v < 0 {
				out[c] = 0
			}
			if a.Flags&Clip != 0 && v > a.Ceiling {
				out[c] = a.Ceiling
			}
		}
	}
}

package kernel

import "unsafe"

// OuterArgs are the arguments of a kernel of width W that sums outer products of
// pixels: the weight gradient of a convolution, six input channels or taps by W
// output channels at a time. For each of Count entries of InOff:
//
//	acc := 0
//	for r := range Runs { for p := range Pixels {
//		acc += In[RunIn[r]+InOff[i]+p*InStep] * Grad[RunGrad[r]+p*GradStep+j]
//	}}
//	Out[(n*Rows+i)*W+j] = acc    // += if Accumulate; n is the entry
//
// Offsets and steps are in bytes. Runs, Pixels and Count are at least 1. A run
// is a row of an image, so borders and strides are matters of the offsets alone.
type OuterArgs struct {
	In       *float32
	Grad     *float32
	Out      *float32
	InOff    *[Rows]int64 // Count of them
	RunIn    *int64       // Runs of them
	RunGrad  *int64       // Runs of them
	Runs     int64
	Pixels   int64
	InStep   int64
	GradStep int64
	Count    int64
	Flags    int64
}

// Outer is a kernel for OuterArgs.
type Outer struct {
	Width int
	Run   func(*OuterArgs)
}

// CombineArgs are the arguments of a weighted sum of activations, what a batch norm
// in training and its gradient come down to once the statistics are known. For p
// in Pixels and c in Channels:
//
//	acc := U[p*Step+c]*A[c] + D[c]
//	acc += V[p*Step+c] * B[c]        // if V is not nil
//	if !(Mask[p*Step+c] > 0) { acc = 0 } // if Mask is not nil
//	acc += Out[p*Step+c]             // if Accumulate
//	acc = max(acc, 0)                // if ReLU
//	Out[p*Step+c] = acc
//
// Step is in bytes. Channels is a multiple of Lanes. Out may be U or V.
type CombineArgs struct {
	U, V, Out, Mask *float32
	A, B, D         *float32
	Channels        int64
	Pixels          int64
	Step            int64
	Flags           int64
}

// MomentsArgs are the arguments of sums over pixels, channel by channel:
//
//	S[c] += U[p*UStep+c] - K[c]
//	T[c] += (U[p*UStep+c] - K[c]) * (V[p*VStep+c] - L[c])
//
// Steps are in bytes. Channels is a multiple of Lanes.
type MomentsArgs struct {
	U, V, S, T, K, L *float32
	Channels         int64
	Pixels           int64
	UStep, VStep     int64
}

// Outer returns the widest of the set's kernels for outer products whose width
// divides the number of channels, a multiple of Lanes.
func (s *Set) Outer(channels int) Outer {
	for _, o := range s.outers() {
		if channels%o.Width == 0 {
			return o
		}
	}
	panic("kernel: channels are not a multiple of Lanes")
}

func (s *Set) outers() []Outer {
	if s == portable {
		return []Outer{{portableWidth, outer6x16}}
	}
	return machineOuters(s)
}

// Combine returns the set's kernel for CombineArgs.
func (s *Set) Combine() func(*CombineArgs) {
	if s == portable {
		return combine
	}
	return machineCombine
}

// Moments returns the set's kernel for MomentsArgs.
func (s *Set) Moments() func(*MomentsArgs) {
	if s == portable {
		return momentSums
	}
	return machineMoments
}

func outer6x16(a *OuterArgs) {
	offsets := unsafe.Slice(a.InOff, a.Count)
	runIn, runGrad := unsafe.Slice(a.RunIn, a.Runs), unsafe.Slice(a.RunGrad, a.Runs)
	for n, off := range offsets {
		var acc [Rows][portableWidth]float32
		for r := range runIn {
			for p := range a.Pixels {
				g := (*[portableWidth]float32)(span(a.Grad, runGrad[r]+p*a.GradStep, portableWidth))
				base := runIn[r] + p*a.InStep
				for i := range acc {
					x := *(*float32)(unsafe.Add(unsafe.Pointer(a.In), base+off[i]))
					row := &acc[i]
					for j, v := range g {
						row[j] += x * v
					}
				}
			}
		}
		out := span(a.Out, int64(n)*4*Rows*portableWidth, Rows*portableWidth)
		for i := range acc {
			row := out[i*portableWidth:][:portableWidth]
			for j, v := range acc[i] {
				if a.Flags&Accumulate != 0 {
					v += row[j]
				}
				row[j] = v
			}
		}
	}
}

func combine(a *CombineArgs) {
	n := a.Channels
	ca, cd := span(a.A, 0, n), span(a.D, 0, n)
	var cb []float32
	if a.V != nil {
		cb = span(a.B, 0, n)
	}
	for p := range a.Pixels {
		u, out := span(a.U, p*a.Step, n), span(a.Out, p*a.Step, n)
		for c := range u {
			acc := u[c]*ca[c] + cd[c]
			if a.V != nil {
				acc += span(a.V, p*a.Step, n)[c] * cb[c]
			}
			if a.Mask != nil && !(span(a.Mask, p*a.Step, n)[c] > 0) {
				acc = 0
			}
			if a.Flags&Accumulate != 0 {
				acc += out[c]
			}
			if a.Flags&ReLU != 0 && acc < 0 {
				acc = 0
			}
			out[c] = acc
		}
	}
}

func momentSums(a *MomentsArgs) {
	n := a.Channels
	s, t, k, l := span(a.S, 0, n), span(a.T, 0, n), span(a.K, 0, n), span(a.L, 0, n)
	for p := range a.Pixels {
		u, v := span(a.U, p*a.UStep, n), span(a.V, p*a.VStep, n)
		for c := range u {
			d := u[c] - k[c]
			s[c] += d
			t[c] += d * (v[c] - l[c])
		}
	}
}

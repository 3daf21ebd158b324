package kernel

// GramArgs are the arguments of the row sums of a Gram matrix of powers of pixels,
// without the matrix. For p in Pixels and c in Channels:
//
//	Power[p][c] *= In[p][c]            // unless In is nil
//	s := sum of Power[p][c] over c     // in float64, rounded once to float32
//	Out[c] += s * Power[p][c]          // in the order of p
//
// Channels, a multiple of Lanes, is also the step from pixel to pixel. Pixels is
// at least 1.
type GramArgs struct {
	In, Power, Out   *float32
	Channels, Pixels int64
}

// Gram returns the set's kernel for GramArgs.
func (s *Set) Gram() func(*GramArgs) {
	if s == portable {
		return gramSums
	}
	return machineGram
}

// gramSums is GramArgs' formula in portable Go.
func gramSums(a *GramArgs) {
	n := a.Channels
	out := at(a.Out, 0, n)
	for p := range a.Pixels {
		power := at(a.Power, 4*p*n, n)
		if a.In != nil {
			for c, v := range at(a.In, 4*p*n, n) {
				power[c] *= v
			}
		}
		sum := 0.0
		for _, v := range power {
			sum += float64(v)
		}
		s := float32(sum)
		for c, v := range power {
			out[c] += s * v
		}
	}
}

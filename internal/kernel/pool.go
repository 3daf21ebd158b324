package kernel

// PoolArgs are the arguments of a sum over consecutive pixels, channel by channel:
//
//	Out[c] += sum of In[p][c] over p, in order
//	In[p][c] = 0 unless Mask[p][c] > 0        // afterwards, if there is a mask
//
// Channels, a multiple of Lanes, is also the step from pixel to pixel. Pixels is
// at least 1.
type PoolArgs struct {
	In, Out, Mask    *float32
	Channels, Pixels int64
}

// Pool returns the set's kernel for PoolArgs.
func (s *Set) Pool() func(*PoolArgs) {
	if s == portable {
		return pool
	}
	return machinePool
}

// pool is PoolArgs' formula in portable Go.
func pool(a *PoolArgs) {
	n := a.Channels * a.Pixels
	in, out := at(a.In, 0, n), at(a.Out, 0, a.Channels)
	for c := range out {
		sum := float32(0)
		for i := c; i < len(in); i += len(out) {
			sum += in[i]
		}
		out[c] += sum
	}
	if a.Mask == nil {
		return
	}
	for i, m := range at(a.Mask, 0, n) {
		if !(m > 0) {
			in[i] = 0
		}
	}
}

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

// MaxArgs are the arguments of max pooling of one window, channel by channel:
//
//	Out[c] = the greatest of In[y*Row+x*Channels+c], NaN if one is NaN
//
// for y < Rows and x < Pixels, both at least 1. Row is a stride in bytes, Channels is
// a multiple of Lanes.
type MaxArgs struct {
	In, Out  *float32
	Row      int64
	Channels int64
	Rows     int64
	Pixels   int64
}

// Max returns the set's kernel for MaxArgs.
func (s *Set) Max() func(*MaxArgs) {
	if s == portable {
		return maximum
	}
	return machineMax
}

// maximum is MaxArgs' formula in portable Go.
func maximum(a *MaxArgs) {
	out := at(a.Out, 0, a.Channels)
	copy(out, at(a.In, 0, a.Channels))
	for y := range a.Rows {
		in := at(a.In, y*a.Row, a.Pixels*a.Channels)
		for ; len(in) > 0; in = in[len(out):] {
			for c, v := range in[:len(out)] {
				if v > out[c] || v != v {
					out[c] = v
				}
			}
		}
	}
}

// Package mt19937 draws the random numbers of NumPy's RandomState and of PyTorch's
// CPU generator, so that a split or a data set by a seed is the same one here.
package mt19937

// Source is the 32-bit Mersenne Twister (Matsumoto and Nishimura, 1998), as
// numpy.random.RandomState and torch.manual_seed seed and read it.
type Source struct {
	state [mtN]uint32
	next  int
}

const (
	mtN = 624
	mtM = 397
)

// New returns a source of the seed.
func New(seed uint32) *Source {
	m := &Source{next: mtN}
	for i := range m.state {
		m.state[i] = seed
		seed = 1812433253*(seed^seed>>30) + uint32(i) + 1
	}
	return m
}

// Uint32 returns the next 32 bits.
func (m *Source) Uint32() uint32 {
	if m.next == mtN {
		m.twist()
	}
	y := m.state[m.next]
	m.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

func (m *Source) twist() {
	for i := range m.state {
		y := m.state[i]&0x80000000 | m.state[(i+1)%mtN]&0x7fffffff
		v := m.state[(i+mtM)%mtN] ^ y>>1
		if y&1 != 0 {
			v ^= 0x9908b0df
		}
		m.state[i] = v
	}
	m.next = 0
}

// UpTo returns a number from 0 to most, as RandomState draws it: bits under a
// mask, drawn again while above.
func (m *Source) UpTo(most uint32) uint32 {
	if most == 0 {
		return 0
	}
	mask := most
	for shift := 1; shift < 32; shift <<= 1 {
		mask |= mask >> shift
	}
	for {
		if v := m.Uint32() & mask; v <= most {
			return v
		}
	}
}

// Shuffle permutes v as RandomState.shuffle does.
func (m *Source) Shuffle(v []int) {
	for i := len(v) - 1; i > 0; i-- {
		j := m.UpTo(uint32(i))
		v[i], v[j] = v[j], v[i]
	}
}

// Float64 returns a number from 0 to below 1, as RandomState.random_sample does.
func (m *Source) Float64() float64 {
	high, low := m.Uint32()>>5, m.Uint32()>>6
	return (float64(high)*(1<<26) + float64(low)) / (1 << 53)
}

// TorchPerm returns a permutation of n numbers, as torch.randperm draws it.
func (m *Source) TorchPerm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := range n - 1 {
		j := i + int(m.Uint32()%uint32(n-i))
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// TorchFloat32 returns a number from 0 to below 1, as each of torch.rand's.
func (m *Source) TorchFloat32() float32 {
	return float32(m.Uint32()&(1<<24-1)) / (1 << 24)
}

package coverage

// mt19937 is the 32-bit Mersenne Twister (Matsumoto and Nishimura, 1998), as
// numpy.random.RandomState seeds and reads it.
type mt19937 struct {
	state [mtN]uint32
	next  int
}

const (
	mtN = 624
	mtM = 397
)

func newMT19937(seed uint32) *mt19937 {
	m := &mt19937{next: mtN}
	for i := range m.state {
		m.state[i] = seed
		seed = 1812433253*(seed^seed>>30) + uint32(i) + 1
	}
	return m
}

func (m *mt19937) uint32() uint32 {
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

func (m *mt19937) twist() {
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

// upTo returns a number from 0 to most, as RandomState draws it: bits under a
// mask, drawn again while above.
func (m *mt19937) upTo(most uint32) uint32 {
	if most == 0 {
		return 0
	}
	mask := most
	for shift := 1; shift < 32; shift <<= 1 {
		mask |= mask >> shift
	}
	for {
		if v := m.uint32() & mask; v <= most {
			return v
		}
	}
}

// shuffle permutes v as RandomState.shuffle does.
func (m *mt19937) shuffle(v []int) {
	for i := len(v) - 1; i > 0; i-- {
		j := m.upTo(uint32(i))
		v[i], v[j] = v[j], v[i]
	}
}

package coverage

const (
	// maxBlock is how many channels of one sample are looked up at a time, into
	// a buffer that stays in the first-level cache.
	maxBlock = 256
	// minBlock keeps reads of a sample's row at whole cache lines, and the cost
	// of starting a block small.
	minBlock = 64
	// blockBytes is how much of a histogram is worked on at a time when there
	// are many samples: a share of the second-level cache.
	blockBytes = 256 << 10
)

// blockWidth returns how many channels to work on at a time. Callers go
// through blocks of channels outside and samples inside, so that a histogram
// larger than the caches is gone through once, piece by piece.
func (l *Layer) blockWidth(n, entrySize int) int {
	if n == 1 {
		return maxBlock
	}
	return min(maxBlock, max(minBlock, blockBytes/(l.look.stride()*entrySize)&^(minBlock-1)))
}

// locate writes, for each of the len(at) channels of a sample from channel
// first, where its state falls in a table that begins at that channel.
func (l *Layer) locate(at []uint32, z, g []float32, row, first int) {
	from := row*l.channels + first
	to := from + len(at)
	switch f := l.settings.Func; {
	case !f.UsesGradient():
		l.look.slots(at, z[from:to], nil, uint32(l.look.stride()))
	case !f.UsesActivation():
		l.look.slots(at, g[from:to], nil, uint32(l.look.stride()))
	default:
		l.look.slots(at, z[from:to], g[from:to], uint32(l.look.stride()))
	}
}

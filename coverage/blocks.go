package coverage

const (
	// minBlock is the least number of channels worked on at a time, so that
	// starting a block costs little.
	minBlock = 256
	// blockBytes is how much of a histogram is worked on at a time when there
	// are many samples: what a second-level cache may hold.
	blockBytes = 512 << 10
)

// prefetchRows is how many samples ahead a block's arguments are fetched. In
// blocks narrower than a row, the processor does not foresee them itself.
const prefetchRows = 2

const (
	// From tallyRows samples on, states are counted in two steps, of at most tallyMost
	// samples and tallyWidth channels, whose slots stay in the second-level cache.
	tallyRows  = 16
	tallyMost  = 256
	tallyWidth = 256
)

// tallyGroup is how many slots lie from those of eight channels to those of the next:
// a line more than there are, so that they do not all want the same places in a cache.
func tallyGroup(rows int) int { return 8*rows + 32 }

// tallySlots is the room for the slots of n samples.
func tallySlots(n, channels int) int {
	return (min(tallyWidth, channels) + 7) / 8 * tallyGroup(min(tallyMost, n))
}

// blockWidth returns how many channels to work on at a time. Callers go
// through blocks of channels outside and samples inside, so that a histogram
// larger than the caches is gone through once, piece by piece.
func (l *Layer) blockWidth(n, entrySize int) int {
	width := max(minBlock, blockBytes/(l.look.stride()*entrySize)&^(minBlock-1))
	if n == 1 {
		width = l.channels
	}
	return min(width, l.channels)
}

// factors returns what the state function's argument is the product of; y is
// nil where it is x alone.
func (f StateFunc) factors(z, g []float32) (x, y []float32) {
	switch {
	case !f.UsesGradient():
		return z, nil
	case !f.UsesActivation():
		return g, nil
	}
	return z, g
}

// part returns v[from:to], or nil for nil.
func part(v []float32, from, to int) []float32 {
	if v == nil {
		return nil
	}
	return v[from:to]
}

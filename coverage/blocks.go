package coverage

const (
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

package coverage

const (
	// blockChannels is how many channels of one sample are looked up at a time,
	// into a buffer that stays in the first-level cache.
	blockChannels = 256
	// blockBytes is how much of a histogram is worked on at a time when there
	// are many samples: a share of the second-level cache.
	blockBytes = 128 << 10
	// minBlockChannels keeps reads of a sample's row at whole cache lines.
	minBlockChannels = 16
)

// blocks calls visit for every sample and every block of channels, with the
// number of the block's first channel, the sample, and for each channel of the
// block where its state falls: channel's number in the block times stride, plus
// slot. Blocks are the outer loop, so that a large histogram of entries of the
// given size is gone through once, piece by piece.
func (l *Layer) blocks(z, g []float32, n, entrySize int, visit func(first, row int, at []uint32)) {
	var buf [blockChannels]uint32
	stride := l.look.stride()
	width := blockChannels
	if n > 1 {
		width = min(width, max(minBlockChannels, blockBytes/(stride*entrySize)&^(minBlockChannels-1)))
	}
	f := l.settings.Func
	for first := 0; first < l.channels; first += width {
		at := buf[:min(width, l.channels-first)]
		for row := range n {
			from := row*l.channels + first
			to := from + len(at)
			switch {
			case !f.UsesGradient():
				l.look.values(at, z[from:to], uint32(stride))
			case !f.UsesActivation():
				l.look.values(at, g[from:to], uint32(stride))
			default:
				l.look.products(at, z[from:to], g[from:to], uint32(stride))
			}
			visit(first, row, at)
		}
	}
}

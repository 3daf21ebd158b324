package coverage

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// maxSamples bounds the samples of a layer, so that no 32-bit count can
// overflow and counts fit a file's signed integers.
const maxSamples = math.MaxInt32

// maxTable bounds a layer's histogram, channels times slots.
const maxTable = math.MaxInt32

// Layer holds the histograms of one layer's neurons.
//
// Add and Merge are not for concurrent use. Once nothing is added any more,
// Score and the other readers may be called from many goroutines at once.
type Layer struct {
	settings LayerSettings
	channels int
	samples  int64
	look     *lookup
	counts   []uint32 // [channel][slot]
	slots    []uint16 // for Add: see vectorTally

	mu    sync.Mutex
	table atomic.Pointer[table] // capped counts; nil after a change
}

// NewLayer returns an empty layer of the given number of neurons.
func NewLayer(settings LayerSettings, channels int) (*Layer, error) {
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	if channels < 1 {
		return nil, fmt.Errorf("coverage: layer %q: %d channels", settings.Layer, channels)
	}
	if channels > maxTable/(settings.M+2) {
		return nil, fmt.Errorf("coverage: layer %q: %d channels with M = %d are too many", settings.Layer, channels, settings.M)
	}
	look := newLookup(settings.Func, settings.Alpha, settings.thresholds())
	return &Layer{settings: settings, channels: channels, look: look, counts: make([]uint32, channels*look.stride())}, nil
}

// Settings returns what the layer was made with.
func (l *Layer) Settings() LayerSettings { return l.settings }

// Channels returns the number of neurons.
func (l *Layer) Channels() int { return l.channels }

// Samples returns how many samples were added.
func (l *Layer) Samples() int64 { return l.samples }

// Add counts n samples: z and g are n rows of one pooled activation and one
// pooled gradient per channel. A slice that the state function does not read
// may be nil. A state outside the bins, or NaN, counts nowhere.
func (l *Layer) Add(z, g []float32, n int) error {
	if err := l.check(z, g, n); err != nil {
		return err
	}
	if l.samples+int64(n) > maxSamples {
		return fmt.Errorf("coverage: layer %q: %d samples and %d more are above the limit of %d", l.settings.Layer, l.samples, n, maxSamples)
	}
	l.table.Store(nil)
	l.samples += int64(n)
	x, y := l.settings.Func.factors(z, g)
	first := 0
	if n >= tallyRows {
		if need := tallySlots(n, l.channels); len(l.slots) < need {
			l.slots = make([]uint16, need)
		}
		first = l.look.vectorTally(l.counts, x, y, l.channels, n, l.slots)
	}
	width := l.blockWidth(n, 4)
	for ; first < l.channels; first += width {
		end := min(first+width, l.channels)
		counts := l.counts[first*l.look.stride() : end*l.look.stride()]
		for row := range n {
			from, to := row*l.channels+first, row*l.channels+end
			l.look.count(counts, x[from:to], part(y, from, to), prefetchRows*l.channels)
		}
	}
	return nil
}

// Merge adds the counts of another layer with the same settings and number of
// neurons, which is not changed. Shards merged in any order equal one layer to
// which everything was added.
func (l *Layer) Merge(other *Layer) error {
	if err := l.mergeable(other); err != nil {
		return err
	}
	l.table.Store(nil)
	l.samples += other.samples
	for i, c := range other.counts {
		l.counts[i] += c
	}
	return nil
}

// WithMinActivations returns a copy of the layer with another O. Counts do not
// depend on O, so a search over it need not add the samples again.
func (l *Layer) WithMinActivations(o int) (*Layer, error) {
	s := l.settings
	s.O = o
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Layer{settings: s, channels: l.channels, samples: l.samples, look: l.look, counts: slices.Clone(l.counts)}, nil
}

// mergeable returns an error that names why other cannot be merged, or nil.
func (l *Layer) mergeable(other *Layer) error {
	if d := l.settings.difference(other.settings); d != "" {
		return fmt.Errorf("coverage: cannot merge layer %q: %s", l.settings.Layer, d)
	}
	if l.channels != other.channels {
		return fmt.Errorf("coverage: cannot merge layer %q: %d channels against %d", l.settings.Layer, l.channels, other.channels)
	}
	if l.samples+other.samples > maxSamples {
		return fmt.Errorf("coverage: cannot merge layer %q: %d samples and %d more are above the limit of %d", l.settings.Layer, l.samples, other.samples, maxSamples)
	}
	return nil
}

// Score writes the coverage score of each of n samples into dst, from 0 to 1,
// higher = more in-distribution: the mean over neurons of min(count/O, 1) of the
// bin that the neuron's state falls in, 0 for a state in no bin. The result is
// exact up to one rounding to float32, whatever the batch.
func (l *Layer) Score(z, g []float32, n int, dst []float32) error {
	if len(dst) != n {
		return fmt.Errorf("coverage: layer %q: room for %d scores of %d samples", l.settings.Layer, len(dst), n)
	}
	var small [64]uint64 // spares an allocation for the usual batch
	sums := small[:0]
	if n > len(small) {
		sums = make([]uint64, n)
	}
	sums = sums[:n]
	if err := l.sums(z, g, n, sums); err != nil {
		return err
	}
	whole := l.whole()
	for i, s := range sums {
		dst[i] = float32(float64(s) / whole)
	}
	return nil
}

// ScoreFloat64 is Score without the rounding to float32: what [Coverage.Score]
// takes the mean over layers of.
func (l *Layer) ScoreFloat64(z, g []float32, n int, dst []float64) error {
	if len(dst) != n {
		return fmt.Errorf("coverage: layer %q: room for %d scores of %d samples", l.settings.Layer, len(dst), n)
	}
	sums := make([]uint64, n)
	if err := l.sums(z, g, n, sums); err != nil {
		return err
	}
	whole := l.whole()
	for i, s := range sums {
		dst[i] = float64(s) / whole
	}
	return nil
}

// whole is the sum of capped counts that makes a score of 1.
func (l *Layer) whole() float64 { return float64(l.settings.O) * float64(l.channels) }

// sums adds up the capped counts, min(count, O), of each sample's bins.
func (l *Layer) sums(z, g []float32, n int, sums []uint64) error {
	if err := l.check(z, g, n); err != nil {
		return err
	}
	l.capped().sums(l, z, g, n, sums)
	return nil
}

// sumBins is sums of samples of which the bins are known.
func (l *Layer) sumBins(bins []int16, n int, sums []uint64) error {
	if len(bins) != n*l.channels {
		return fmt.Errorf("coverage: layer %q: %d bins of %d samples with %d channels", l.settings.Layer, len(bins), n, l.channels)
	}
	counts, width, limit := l.Counts(), l.settings.M-1, uint32(l.settings.O)
	for i, b := range bins {
		if int(b) >= width {
			return fmt.Errorf("coverage: layer %q: bin %d of %d", l.settings.Layer, b, width)
		}
		if b >= 0 {
			sums[i/l.channels] += uint64(min(counts[i%l.channels*width+int(b)], limit))
		}
	}
	return nil
}

// ScoreNeurons writes into dst, n rows of one value per channel, the coverage of
// the bin that each neuron's state falls in. A sample's score is the mean of its
// row; low values tell which neurons found it strange.
func (l *Layer) ScoreNeurons(z, g []float32, n int, dst []float32) error {
	if err := l.check(z, g, n); err != nil {
		return err
	}
	if len(dst) != n*l.channels {
		return fmt.Errorf("coverage: layer %q: room for %d values of %d samples with %d channels", l.settings.Layer, len(dst), n, l.channels)
	}
	limit := uint32(l.settings.O)
	l.each(z, g, n, func(i, channel, slot int) {
		dst[i] = 0
		if l.look.bins[slot] >= 0 {
			count := l.counts[channel*l.look.stride()+slot]
			dst[i] = float32(min(count, limit)) / float32(limit)
		}
	})
	return nil
}

// Bins writes into dst, n rows of one value per channel, the bin of each
// neuron's state, or -1 for a state in no bin.
func (l *Layer) Bins(z, g []float32, n int, dst []int32) error {
	if err := l.check(z, g, n); err != nil {
		return err
	}
	if len(dst) != n*l.channels {
		return fmt.Errorf("coverage: layer %q: room for %d bins of %d samples with %d channels", l.settings.Layer, len(dst), n, l.channels)
	}
	l.each(z, g, n, func(i, _, slot int) { dst[i] = l.look.bins[slot] })
	return nil
}

// each visits every state: its place among the states, its channel and its slot.
func (l *Layer) each(z, g []float32, n int, visit func(i, channel, slot int)) {
	x, y := l.settings.Func.factors(z, g)
	stride := l.look.stride()
	buf := make([]uint32, min(blockArgs, len(x)))
	for done := 0; done < len(x); {
		at := l.look.slots(buf, x, y, &done)
		first := done - len(at)
		for i, p := range at {
			visit(first+i, (first+i)%l.channels, int(p)-i*stride)
		}
	}
}

// Counts returns a copy of the histograms, [channel][bin] with M-1 bins.
func (l *Layer) Counts() []uint32 {
	bins, stride := l.settings.M-1, l.look.stride()
	out := make([]uint32, l.channels*bins)
	for c := range l.channels {
		for s, b := range l.look.bins {
			if b >= 0 {
				out[c*bins+int(b)] = l.counts[c*stride+s]
			}
		}
	}
	return out
}

// setCounts is the inverse of Counts. It fails if a bin that no state can reach
// has a count, or a neuron has more than samples.
func (l *Layer) setCounts(counts []int32, samples int64) error {
	bins, stride := l.settings.M-1, l.look.stride()
	slotOf := make([]int, bins)
	for s, b := range l.look.bins {
		if b >= 0 {
			slotOf[b] = s
		}
	}
	for c := range l.channels {
		var sum int64
		for b, v := range counts[c*bins : (c+1)*bins] {
			switch {
			case v < 0:
				return fmt.Errorf("channel %d, bin %d: count %d", c, b, v)
			case v > 0 && slotOf[b] == 0:
				return fmt.Errorf("channel %d: %d samples in bin %d, which no state reaches", c, v, b)
			case slotOf[b] != 0:
				l.counts[c*stride+slotOf[b]] = uint32(v)
			}
			sum += int64(v)
		}
		if sum > samples {
			return fmt.Errorf("channel %d: %d samples in its bins of %d in all", c, sum, samples)
		}
	}
	l.samples = samples
	l.table.Store(nil)
	return nil
}

// Summary tells how much of a layer's bins is covered.
type Summary struct {
	// Coverage is the NAC-ME number: the mean over neurons of the sum over
	// bins of min(count/O, 1), divided by M. The reference divides by M though
	// there are M-1 bins, so it never reaches 1.
	Coverage float64
	// PerBin is the mean over neurons of min(count/O, 1), per bin.
	PerBin []float64
}

// Summary computes the layer's summary.
func (l *Layer) Summary() Summary {
	per := make([]uint64, l.settings.M-1)
	stride, limit := l.look.stride(), uint32(l.settings.O)
	for c := range l.channels {
		for s, b := range l.look.bins {
			if b >= 0 {
				per[b] += uint64(min(l.counts[c*stride+s], limit))
			}
		}
	}
	out := Summary{PerBin: make([]float64, len(per))}
	var all uint64
	for b, v := range per {
		out.PerBin[b] = float64(v) / l.whole()
		all += v
	}
	out.Coverage = float64(all) / l.whole() / float64(l.settings.M)
	return out
}

func (l *Layer) check(z, g []float32, n int) error {
	f := l.settings.Func
	if n < 0 {
		return fmt.Errorf("coverage: layer %q: %d samples", l.settings.Layer, n)
	}
	want := n * l.channels
	if f.UsesActivation() && len(z) != want {
		return fmt.Errorf("coverage: layer %q: %d activations, %d samples with %d channels need %d", l.settings.Layer, len(z), n, l.channels, want)
	}
	if f.UsesGradient() && len(g) != want {
		return fmt.Errorf("coverage: layer %q: %d gradients, %d samples with %d channels need %d (state function %v)", l.settings.Layer, len(g), n, l.channels, want, f)
	}
	return nil
}

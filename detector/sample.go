package detector

import "math"

// sample chooses images from a stream whose length is not known: evenly at random
// and the same ones however the stream is batched. When more than most have been
// taken the caller halves it and drops those that it does not hold any more.
type sample struct {
	most, taken int
	seen        uint64
	limit       uint64 // images with a priority of at most this are taken
}

// newSample takes a share of the images at first.
func newSample(most int, share float64) sample {
	s := sample{most: most, limit: math.MaxUint64}
	if share < 1 {
		s.limit = uint64(share * math.MaxUint64)
	}
	return s
}

// next returns the priority of the stream's next image and whether it is taken.
func (s *sample) next() (priority uint64, take bool) {
	priority = splitMix64(s.seen)
	s.seen++
	if take = priority <= s.limit; take {
		s.taken++
	}
	return priority, take
}

// full tells whether too many are taken.
func (s *sample) full() bool { return s.taken > s.most }

// halve lowers the limit; the caller counts what holds still.
func (s *sample) halve() { s.limit, s.taken = s.limit/2, 0 }

// holds tells whether an image that was taken still is, and counts it.
func (s *sample) holds(priority uint64) bool {
	if priority > s.limit {
		return false
	}
	s.taken++
	return true
}

// splitMix64 is the output function of Steele et al., "Fast Splittable
// Pseudorandom Number Generators", OOPSLA 2014, for a counter.
func splitMix64(i uint64) uint64 {
	z := (i + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

package metric

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Sketch counts ID and OOD scores in narrow bins, so that sets of any size take little
// memory and parts merge by addition. Two scores in one bin differ by less than 2^-12 of
// their size. Its AUROC comes with bounds that hold always: pairs in one bin are the only
// ones whose order is not known.
type Sketch struct {
	// Counts of the bins that have any, ID and OOD, by the bin's number, which rises with
	// the score.
	Counts map[uint32]Tie
}

// sketchBits are dropped of a float64: what is left is sign, exponent and 12 bits.
const sketchBits = 64 - 24

// sketchBin numbers the bins so that they rise with the score; -0 is 0.
func sketchBin(score float64) uint32 { return uint32(OrderedBits(score) >> sketchBits) }

// OrderedBits returns the bits of a finite score as a number that rises with it; those of -0
// are those of 0.
func OrderedBits(score float64) uint64 {
	b := math.Float64bits(score + 0)
	if b>>63 != 0 {
		return ^b
	}
	return b | 1<<63
}

// Add counts a sample; a score that is not finite is an error.
func (s *Sketch) Add(score float64, isOOD bool) error {
	if math.IsNaN(score) || math.IsInf(score, 0) {
		return fmt.Errorf("metric: a score is %v", score)
	}
	if s.Counts == nil {
		s.Counts = map[uint32]Tie{}
	}
	bin := sketchBin(score)
	t := s.Counts[bin]
	if isOOD {
		t.OOD++
	} else {
		t.ID++
	}
	s.Counts[bin] = t
	return nil
}

// Merge adds another sketch's counts.
func (s *Sketch) Merge(o Sketch) {
	if s.Counts == nil {
		s.Counts = map[uint32]Tie{}
	}
	for bin, t := range o.Counts {
		have := s.Counts[bin]
		s.Counts[bin] = Tie{have.ID + t.ID, have.OOD + t.OOD}
	}
}

// AUROC returns bounds of the AUROC of [OOD], which lies between them; their middle is off
// by at most half their distance.
func (s *Sketch) AUROC() (low, high float64, err error) {
	var ids, oods, below, wins, unknown float64
	for _, bin := range slices.Sorted(maps.Keys(s.Counts)) {
		t := s.Counts[bin]
		id, ood := float64(t.ID), float64(t.OOD)
		wins += id * below
		unknown += id * ood
		below += ood
		ids, oods = ids+id, oods+ood
	}
	if ids == 0 || oods == 0 {
		return 0, 0, fmt.Errorf("metric: %v ID and %v OOD scores: %w", ids, oods, ErrEmpty)
	}
	// Rounding of the sums must not put a bound on the wrong side.
	const slack = 1e-12
	return max(0, wins/(ids*oods)-slack), min(1, (wins+unknown)/(ids*oods)+slack), nil
}

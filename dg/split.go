package dg

import (
	"crypto/md5"
	"fmt"
	"math/rand/v2"

	"nac/internal/mt19937"
	"nac/train"
)

// SeedHash makes a seed of two numbers, as DomainBed's seed_hash does.
func SeedHash(a, b int) uint32 {
	// The last 31 bits of the MD5 sum of a Python tuple's text.
	sum := md5.Sum(fmt.Appendf(nil, "(%d, %d)", a, b))
	return (uint32(sum[12])<<24 | uint32(sum[13])<<16 | uint32(sum[14])<<8 | uint32(sum[15])) & (1<<31 - 1)
}

// Split returns the indices of a domain's in-split and out-split. They depend on
// nothing but the domain's number and size, the share that is held out and the trial's
// seed, and are, in order, DomainBed's.
func Split(samples, domain, trial int, holdout float64) (in, out []int) {
	keys := make([]int, samples)
	for i := range keys {
		keys[i] = i
	}
	mt19937.New(SeedHash(trial, domain)).Shuffle(keys)
	n := int(float64(samples) * holdout)
	return keys[n:], keys[:n]
}

// subset is some samples of a set.
type subset struct {
	train.Samples
	indices []int
}

func (s *subset) Len() int        { return len(s.indices) }
func (s *subset) Label(i int) int { return s.Samples.Label(s.indices[i]) }

func (s *subset) Image(i int, r *rand.Rand, dst []float32) error {
	return s.Samples.Image(s.indices[i], r, dst)
}

// first returns at most n of the samples; 0 means all.
func (s *subset) first(n int) *subset {
	if n == 0 || n >= len(s.indices) {
		return s
	}
	return &subset{s.Samples, s.indices[:n]}
}

// byClass lists the samples of each class.
func (s *subset) byClass(classes int) [][]int {
	by := make([][]int, classes)
	for i := range s.indices {
		by[s.Label(i)] = append(by[s.Label(i)], i)
	}
	return by
}

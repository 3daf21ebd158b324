package detector

import (
	"math"
	"slices"
)

// nearest finds the K smallest of a stream of numbers without sorting it.
type nearest struct {
	k     int
	slack float64 // numbers above the K-th by no more than this are kept too
	limit float64 // what is above this is not needed
	keys  []float64
	at    []int32 // where they come from
	full  int     // how many to gather before pruning
	work  []float64
}

func newNearest(k int, slack float64) nearest {
	return nearest{k: k, slack: slack, limit: math.Inf(1), full: 2*k + 64}
}

// add takes in a number that is not above the limit.
func (s *nearest) add(key float64, at int) {
	s.keys, s.at = append(s.keys, key), append(s.at, int32(at))
	if len(s.keys) >= s.full {
		s.prune()
	}
}

// prune drops what is above the K-th and its slack, and returns the K-th.
func (s *nearest) prune() float64 {
	s.work = append(s.work[:0], s.keys...)
	kth := kthSmallest(s.work, s.k-1)
	s.limit = kth + s.slack
	n := 0
	for i, key := range s.keys {
		if key <= s.limit {
			s.keys[n], s.at[n] = key, s.at[i]
			n++
		}
	}
	s.keys, s.at = s.keys[:n], s.at[:n]
	s.full = 2*n + 64
	return kth
}

// kthSmallest returns what v[k] would be if v were sorted, in linear time; it
// reorders v (Hoare, "Algorithm 65: Find", CACM 1961).
func kthSmallest[T float32 | float64](v []T, k int) T {
	low, high := 0, len(v)-1
	for low < high {
		pivot := median(v[low], v[(low+high)/2], v[high])
		i, j := low, high
		for i <= j {
			for v[i] < pivot {
				i++
			}
			for v[j] > pivot {
				j--
			}
			if i <= j {
				v[i], v[j] = v[j], v[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			high = j
		case k >= i:
			low = i
		default:
			return v[k]
		}
	}
	return v[k]
}

func median[T float32 | float64](a, b, c T) T { return max(min(a, b), min(max(a, b), c)) }

// percentile is numpy's, with linear interpolation; it reorders v.
func percentile[T float32 | float64](v []T, percent float64) float64 {
	at := float64(len(v)-1) * percent / 100
	low := int(math.Floor(at))
	a := float64(kthSmallest(v, low))
	if low+1 >= len(v) {
		return a
	}
	// All behind low are at least a; the next is the least of them.
	b := float64(slices.Min(v[low+1:]))
	return a + (at-float64(low))*(b-a)
}

// mean is that of the K smallest.
func (s *nearest) mean() float64 {
	kth := s.prune()
	sum, n := 0.0, 0
	for _, key := range s.keys {
		if key < kth {
			sum += key
			n++
		}
	}
	return (sum + float64(s.k-n)*kth) / float64(s.k)
}

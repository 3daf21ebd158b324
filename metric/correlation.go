package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrConstant is wrapped by errors about a correlation with a variable that
// never changes, for which no correlation is defined.
var ErrConstant = errors.New("all values are equal")

// Pearson returns the linear correlation of x and y, from -1 to 1. It wants at
// least two finite pairs, and neither x nor y constant.
func Pearson(x, y []float64) (float64, error) {
	if err := checkPairs(x, y); err != nil {
		return 0, fmt.Errorf("metric: Pearson: %w", err)
	}
	return pearson(x, y), nil
}

// Spearman returns the rank correlation of x and y, from -1 to 1: the Pearson
// correlation of their ranks, ties sharing their mean rank. It wants what
// [Pearson] wants.
func Spearman(x, y []float64) (float64, error) {
	if err := checkPairs(x, y); err != nil {
		return 0, fmt.Errorf("metric: Spearman: %w", err)
	}
	return pearson(ranks(x), ranks(y)), nil
}

// Kendall returns Kendall's tau-b of x and y, from -1 to 1: concordant less
// discordant pairs, corrected for ties, in O(n log n) (Knight, 1966). It wants
// what [Pearson] wants.
func Kendall(x, y []float64) (float64, error) {
	if err := checkPairs(x, y); err != nil {
		return 0, fmt.Errorf("metric: Kendall: %w", err)
	}
	type pair struct{ x, y float64 }
	p := make([]pair, len(x))
	for i := range x {
		p[i] = pair{x[i], y[i]}
	}
	slices.SortFunc(p, func(a, b pair) int {
		if a.x != b.x {
			return order(a.x, b.x)
		}
		return order(a.y, b.y)
	})
	byX := make([]float64, len(p))
	byY := make([]float64, len(p))
	bothTied, runs := 0.0, 0.0
	for i, q := range p {
		byX[i], byY[i] = q.x, q.y
		if i > 0 && q == p[i-1] {
			runs++
			bothTied += runs
		} else {
			runs = 0
		}
	}
	tiedX := tiedPairs(byX)
	swaps := float64(sortCounting(byY, make([]float64, len(byY))))
	tiedY := tiedPairs(byY)
	n := float64(len(x))
	pairs := n * (n - 1) / 2
	// concordant + discordant = pairs - tiedX - tiedY + bothTied
	diff := pairs - tiedX - tiedY + bothTied - 2*swaps
	return clampUnit(diff / math.Sqrt(pairs-tiedX) / math.Sqrt(pairs-tiedY)), nil
}

func checkPairs(x, y []float64) error {
	if len(x) != len(y) {
		return fmt.Errorf("%d values against %d", len(x), len(y))
	}
	if len(x) < 2 {
		return fmt.Errorf("%d pairs, at least 2 needed: %w", len(x), ErrEmpty)
	}
	for k, v := range [][]float64{x, y} {
		name := "xy"[k : k+1]
		constant := true
		for i, f := range v {
			if math.IsNaN(f) || math.IsInf(f, 0) {
				return fmt.Errorf("%s[%d] is %v", name, i, f)
			}
			constant = constant && f == v[0]
		}
		if constant {
			return fmt.Errorf("%s: %w", name, ErrConstant)
		}
	}
	return nil
}

func pearson(x, y []float64) float64 {
	dx, dy := centred(x), centred(y)
	var sxy, sxx, syy float64
	for i := range dx {
		sxy += dx[i] * dy[i]
		sxx += dx[i] * dx[i]
		syy += dy[i] * dy[i]
	}
	return clampUnit(sxy / (math.Sqrt(sxx) * math.Sqrt(syy)))
}

// centred returns x less its mean, divided by the largest size so that squares
// neither overflow nor vanish.
func centred(x []float64) []float64 {
	scale := 0.0
	for _, v := range x {
		scale = max(scale, math.Abs(v))
	}
	mean := 0.0
	for _, v := range x {
		mean += v / scale / float64(len(x))
	}
	d := make([]float64, len(x))
	largest := 0.0
	for i, v := range x {
		d[i] = v/scale - mean
		largest = max(largest, math.Abs(d[i]))
	}
	for i := range d {
		d[i] /= largest
	}
	return d
}

func clampUnit(r float64) float64 { return max(-1, min(1, r)) }

// ranks gives each value its rank from 1, ties sharing their mean.
func ranks(x []float64) []float64 {
	at := make([]int, len(x))
	for i := range at {
		at[i] = i
	}
	slices.SortFunc(at, func(a, b int) int { return order(x[a], x[b]) })
	r := make([]float64, len(x))
	for i := 0; i < len(at); {
		j := i
		for j < len(at) && x[at[j]] == x[at[i]] {
			j++
		}
		for k := i; k < j; k++ {
			r[at[k]] = float64(i+1+j) / 2
		}
		i = j
	}
	return r
}

func order(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// tiedPairs counts pairs of equal values in a sorted list.
func tiedPairs(sorted []float64) float64 {
	total, run := 0.0, 0.0
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			run++
			total += run
		} else {
			run = 0
		}
	}
	return total
}

// sortCounting sorts v by merging and returns how many pairs stood in falling
// order.
func sortCounting(v, tmp []float64) int64 {
	if len(v) < 2 {
		return 0
	}
	h := len(v) / 2
	swaps := sortCounting(v[:h], tmp[:h]) + sortCounting(v[h:], tmp[h:])
	copy(tmp, v)
	i, j := 0, h
	for k := range v {
		if j == len(v) || (i < h && tmp[i] <= tmp[j]) {
			v[k] = tmp[i]
			i++
		} else {
			v[k] = tmp[j]
			j++
			swaps += int64(h - i)
		}
	}
	return swaps
}

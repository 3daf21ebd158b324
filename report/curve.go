package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A plot's coordinates, in units of its viewBox: a square of side units whose
// corner is at (left, top).
const (
	rocLeft, rocTop, rocSide = 34, 8, 240
	curvePoints              = 160 // at most, of a curve
)

// rocPath draws the ROC curve, with OOD as the positive class: to the right the
// share of ID images flagged, upwards the share of OOD images caught.
func rocPath(id, ood []float64) string {
	type point struct{ fp, tp int }
	in, out := slices.Sorted(slices.Values(id)), slices.Sorted(slices.Values(ood))
	points := []point{{}}
	for i, j := 0, 0; i < len(in) || j < len(out); {
		s := math.Inf(1)
		if i < len(in) {
			s = in[i]
		}
		if j < len(out) {
			s = min(s, out[j])
		}
		for ; i < len(in) && in[i] == s; i++ {
		}
		for ; j < len(out) && out[j] == s; j++ {
		}
		points = append(points, point{i, j})
	}
	var b strings.Builder
	at := func(p point) (x, y float64) {
		return rocLeft + rocSide*float64(p.fp)/float64(len(in)), rocTop + rocSide*(1-float64(p.tp)/float64(len(out)))
	}
	// A point is left out if it is near the last one drawn, measured along the curve.
	const step = 2.0 * rocSide / curvePoints
	lastX, lastY := at(points[0])
	fmt.Fprintf(&b, "M%.1f %.1f", lastX, lastY)
	for i, p := range points[1:] {
		x, y := at(p)
		if x-lastX+lastY-y >= step || i == len(points)-2 {
			fmt.Fprintf(&b, "L%.1f %.1f", x, y)
			lastX, lastY = x, y
		}
	}
	return b.String()
}

// A histogram's plot, in units of its viewBox.
const (
	histLeft, histTop, histWidth, histHeight = 8, 10, 304, 120
	histBins                                 = 64
)

// tick is a mark on an axis.
type tick struct {
	At    float64
	Label string
}

// histogram are the scores of the ID test images and of one OOD set.
type histogram struct {
	ID, OOD   string // outlines
	Ticks     []tick
	Threshold float64 // where 95 % of OOD images are caught
}

// scoreRange returns the range of the scores of several sets. A few images far away
// would press all others into one bin; cut tells that such were left out.
func scoreRange(sets ...[]float64) (low, high float64, cut bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, s := range sets {
		s = slices.Sorted(slices.Values(s))
		low, high = min(low, quantile(s, 0.002)), max(high, quantile(s, 0.998))
	}
	for _, s := range sets {
		cut = cut || slices.Min(s) < low || slices.Max(s) > high
	}
	if !(high > low) {
		low, high = low-0.5, high+0.5
	}
	return low, high, cut
}

func newHistogram(id, ood []float64, low, high float64) (h histogram) {
	in, out := slices.Sorted(slices.Values(id)), slices.Sorted(slices.Values(ood))
	x := func(s float64) float64 { return histLeft + histWidth*min(max((s-low)/(high-low), 0), 1) }
	a, b := shares(in, low, high), shares(out, low, high)
	top := max(slices.Max(a), slices.Max(b))
	outline := func(v []float64) string {
		var p strings.Builder
		fmt.Fprintf(&p, "M%d %d", histLeft, histTop+histHeight)
		for i, share := range v {
			y := histTop + histHeight*(1-share/top)
			fmt.Fprintf(&p, "L%.1f %.1fH%.1f", histLeft+histWidth*float64(i)/histBins, y, histLeft+histWidth*float64(i+1)/histBins)
		}
		fmt.Fprintf(&p, "V%dZ", histTop+histHeight)
		return p.String()
	}
	h.ID, h.OOD = outline(a), outline(b)
	h.Threshold = x(out[min(int(math.Ceil(0.95*float64(len(out)))), len(out))-1])
	for _, t := range niceTicks(low, high, 5) {
		h.Ticks = append(h.Ticks, tick{x(t), fmt.Sprintf("%.4g", t)})
	}
	return h
}

// shares returns the part of the scores in each bin.
func shares(scores []float64, low, high float64) []float64 {
	v := make([]float64, histBins)
	for _, s := range scores {
		i := int(float64(histBins) * (s - low) / (high - low))
		v[min(max(i, 0), histBins-1)] += 1 / float64(len(scores))
	}
	return v
}

// quantile of sorted values, the lower one of two.
func quantile(sorted []float64, q float64) float64 {
	return sorted[int(q*float64(len(sorted)-1))]
}

// niceTicks returns about n round numbers from low to high.
func niceTicks(low, high float64, n int) (ticks []float64) {
	raw := (high - low) / float64(n)
	scale := math.Pow(10, math.Floor(math.Log10(raw)))
	step := scale * 10
	for _, s := range []float64{1, 2, 5} {
		if s*scale >= raw {
			step = s * scale
			break
		}
	}
	for i := math.Ceil(low / step); i*step <= high; i++ {
		ticks = append(ticks, cmp.Or(i*step, 0)) // no -0
	}
	return ticks
}

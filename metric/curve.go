package metric

import "math"

// group counts the samples that share one score.
type group struct{ id, ood int }

// groupTies merges two rising lists into groups of equal score, rising: the
// order in which a threshold that flags ever more samples as OOD meets them.
func groupTies(in, out []float64) []group {
	var groups []group
	for i, j := 0, 0; i < len(in) || j < len(out); {
		s := math.Inf(1)
		if i < len(in) {
			s = in[i]
		}
		if j < len(out) {
			s = min(s, out[j])
		}
		var g group
		for ; i < len(in) && in[i] == s; i++ {
			g.id++
		}
		for ; j < len(out) && out[j] == s; j++ {
			g.ood++
		}
		groups = append(groups, g)
	}
	return groups
}

// fpr95 walks the ROC curve (false positives: ID flagged; true positives: OOD
// flagged) to the first kept point with 95 % of the OOD samples.
//
// A point is kept if it is the first, the last, or if the step to it differs
// from the step after it. scikit-learn drops the others because they do not
// change the drawn curve, but does so by counts, so a run of like steps hides
// every reading inside it.
func fpr95(groups []group, ids, oods int) float64 {
	fp, tp := 0, 0
	for i, g := range groups {
		fp += g.id
		tp += g.ood
		inner := i > 0 && i < len(groups)-1
		if inner && g == groups[i+1] {
			continue
		}
		// The curve is read in float64 rates, so that 19 of 20 counts as 0.95.
		if float64(tp)/float64(oods) >= 0.95 {
			return float64(fp) / float64(ids)
		}
	}
	return 1
}

// auprOut flags from the lowest score up, with OOD positive.
func auprOut(groups []group, oods int) float64 {
	var c prCurve
	for _, g := range groups {
		c.add(g.ood, g.id, oods)
	}
	return c.area
}

// auprIn accepts from the highest score down, with ID positive.
func auprIn(groups []group, ids int) float64 {
	var c prCurve
	for i := len(groups) - 1; i >= 0; i-- {
		c.add(groups[i].id, groups[i].ood, ids)
	}
	return c.area
}

// prCurve sums the trapezoids under a precision-recall curve from (recall 0,
// precision 1).
type prCurve struct {
	tp, fp    int
	recall    float64
	precision float64
	begun     bool
	area      float64
}

func (c *prCurve) add(positives, negatives, total int) {
	if !c.begun {
		c.begun, c.precision = true, 1
	}
	c.tp += positives
	c.fp += negatives
	recall := float64(c.tp) / float64(total)
	precision := float64(c.tp) / float64(c.tp+c.fp)
	c.area += (recall - c.recall) * (precision + c.precision) / 2
	c.recall, c.precision = recall, precision
}

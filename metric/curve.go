package metric

// group counts the samples that share one score.
type group struct{ id, ood int }

func (g group) minus(h group) group { return group{g.id - h.id, g.ood - h.ood} }

// nextTie returns how many samples of two rising lists are at or below the lowest
// score above the first at of them.
func nextTie[T float](in, out []T, at group) group {
	var s T
	switch {
	case at.id == len(in):
		s = out[at.ood]
	case at.ood == len(out):
		s = in[at.id]
	default:
		s = min(in[at.id], out[at.ood])
	}
	for at.id < len(in) && in[at.id] == s {
		at.id++
	}
	for at.ood < len(out) && out[at.ood] == s {
		at.ood++
	}
	return at
}

// groupTies merges two rising lists into groups of equal score, rising: the
// order in which a threshold that flags ever more samples as OOD meets them.
func groupTies(in, out []float64) []group {
	var groups []group
	for at := (group{}); at.id < len(in) || at.ood < len(out); {
		next := nextTie(in, out, at)
		groups = append(groups, next.minus(at))
		at = next
	}
	return groups
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

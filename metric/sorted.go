package metric

// float is a type of score.
type float interface{ float32 | float64 }

// SortFloat32 sorts finite scores, rising. spare is as long and is overwritten: a
// parameter search sorts vectors by the thousand and spares the allocation.
func SortFloat32(scores, spare []float32) {
	sortFinite32(scores, spare[:len(scores)])
}

// AUROCSorted is [AUROC] of finite scores that are sorted, rising. There must be
// some of both.
func AUROCSorted[T float](id, ood []T) float64 {
	// Pairs are counted in integers: twice the wins plus the ties.
	var twice uint64
	below, through := 0, 0 // OOD scores < and <= the ID score at hand
	for _, s := range id {
		for below < len(ood) && ood[below] < s {
			below++
		}
		through = max(through, below)
		for through < len(ood) && ood[through] <= s {
			through++
		}
		twice += uint64(below + through)
	}
	return float64(twice) / (2 * float64(len(id)) * float64(len(ood)))
}

// FPR95Sorted is the FPR95 of [OOD] for finite scores that are sorted, rising.
// There must be some of both.
//
// It walks the ROC curve (false positives: ID flagged; true positives: OOD flagged)
// to the first kept point with 95 % of the OOD samples. A point is kept if it is
// the first, the last, or if the step to it differs from the step after it.
// scikit-learn drops the others because they do not change the drawn curve, but
// does so by counts, so a run of like steps hides every reading inside it.
func FPR95Sorted[T float](id, ood []T) float64 {
	var before group // flagged before the point at hand
	at := nextTie(id, ood, before)
	for first := true; ; first = false {
		last := at.id == len(id) && at.ood == len(ood)
		next := at
		if !last {
			next = nextTie(id, ood, at)
		}
		// The curve is read in float64 rates, so that 19 of 20 counts as 0.95.
		kept := first || last || at.minus(before) != next.minus(at)
		if last || kept && float64(at.ood)/float64(len(ood)) >= 0.95 {
			return float64(at.id) / float64(len(id))
		}
		before, at = at, next
	}
}

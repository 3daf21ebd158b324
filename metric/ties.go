package metric

import "fmt"

// Tie is how many samples have one score.
type Tie struct{ ID, OOD int }

// OODOfTies is [OOD] of samples that were counted by score elsewhere, as a distributed
// sort does: the ties of all scores, rising. The results are those of OOD to the last
// bit.
func OODOfTies(ties []Tie) (Result, error) {
	groups := make([]group, len(ties))
	var all group
	for i, t := range ties {
		if t.ID < 0 || t.OOD < 0 || t.ID+t.OOD == 0 {
			return Result{}, fmt.Errorf("metric: a score of %d ID and %d OOD samples", t.ID, t.OOD)
		}
		groups[i] = group{t.ID, t.OOD}
		all.id, all.ood = all.id+t.ID, all.ood+t.OOD
	}
	switch {
	case all.id == 0:
		return Result{}, fmt.Errorf("metric: ID scores: %w", ErrEmpty)
	case all.ood == 0:
		return Result{}, fmt.Errorf("metric: OOD scores: %w", ErrEmpty)
	}
	return Result{
		FPR95:   fpr95(groups, all),
		AUROC:   auroc(groups, all),
		AUPRIn:  auprIn(groups, all.id),
		AUPROut: auprOut(groups, all.ood),
	}, nil
}

// auroc is AUROCSorted of groups.
func auroc(groups []group, all group) float64 {
	var twice uint64
	below := 0
	for _, g := range groups {
		twice += uint64(g.id) * uint64(2*below+g.ood)
		below += g.ood
	}
	return float64(twice) / (2 * float64(all.id) * float64(all.ood))
}

// fpr95 is FPR95Sorted of groups.
func fpr95(groups []group, all group) float64 {
	var at group
	for i, g := range groups {
		at.id, at.ood = at.id+g.id, at.ood+g.ood
		kept := i == 0 || i == len(groups)-1 || g != groups[i+1]
		if kept && float64(at.ood)/float64(all.ood) >= 0.95 {
			return float64(at.id) / float64(all.id)
		}
	}
	return 1 // not reached: the last group is kept and has all
}

// Package metric turns scores into the numbers of an out-of-distribution (OOD)
// table: FPR@95TPR, AUROC, AUPR-In, AUPR-Out, accuracy, and rank correlations.
//
// A score is higher the more in-distribution (ID) an input looks. Results are
// fractions from 0 to 1. The conventions are those of OpenOOD, which computes
// them with scikit-learn; see [Conventions] and [OOD].
package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Conventions says in one paragraph what the columns of a table mean. Print it
// with every table: published tables differ in exactly these points.
const Conventions = "Score: higher = more ID. FPR@95: share of ID samples flagged as OOD when 95 % of the OOD samples are caught (OOD is the positive class). " +
	"AUROC: probability that an ID sample scores above an OOD sample. AUPR-In: ID is the positive class. AUPR-Out: OOD is the positive class."

// ErrEmpty is wrapped by errors about a set without samples.
var ErrEmpty = errors.New("no samples")

// Result holds what an OOD data set is judged by, as fractions from 0 to 1.
type Result struct {
	FPR95   float64 // share of ID flagged when at least 95 % of OOD are caught
	AUROC   float64 // area under the ROC curve; 0.5 is chance
	AUPRIn  float64 // area under precision-recall, ID positive
	AUPROut float64 // area under precision-recall, OOD positive
}

// OOD compares the scores of ID samples with those of OOD samples, as OpenOOD
// does with scikit-learn:
//
//   - OOD is the positive class and is ranked by falling -score. FPR@95TPR is
//     read at the first point of the ROC curve whose true positive rate is at
//     least 0.95, without interpolation.
//   - Points of the ROC curve between equal steps are dropped before that
//     reading (scikit-learn's drop_intermediate, its default). Without ties
//     this changes nothing; with ties it can raise FPR@95TPR.
//   - AUPR is the trapezoid under the precision-recall curve, which begins at
//     recall 0 and precision 1; it is not the average precision.
//   - AUPRIn has ID as the positive class and AUPROut has OOD, as in OpenOOD;
//     the fork of OpenOOD that introduced NAC exchanges the two names.
//
// Both sets must have samples (else an error wraps [ErrEmpty]) and every score
// must be finite. The inputs are not changed.
func OOD(id, ood []float64) (Result, error) {
	in, out, err := sorted(id, ood)
	if err != nil {
		return Result{}, err
	}
	groups := groupTies(in, out)
	return Result{
		FPR95:   FPR95Sorted(in, out),
		AUROC:   AUROCSorted(in, out),
		AUPRIn:  auprIn(groups, len(in)),
		AUPROut: auprOut(groups, len(out)),
	}, nil
}

// AUROC returns only the area under the ROC curve of [OOD]: the probability
// that a random ID sample scores above a random OOD sample, ties counting half.
// It is exact up to one rounding. The inputs are not changed.
func AUROC(id, ood []float64) (float64, error) {
	in, out, err := sorted(id, ood)
	if err != nil {
		return 0, err
	}
	return AUROCSorted(in, out), nil
}

// Accuracy returns the share of predictions equal to their label. It is NaN
// when there are none or the lengths differ.
func Accuracy(pred, label []int) float64 {
	if len(pred) != len(label) || len(pred) == 0 {
		return math.NaN()
	}
	right := 0
	for i, p := range pred {
		if p == label[i] {
			right++
		}
	}
	return float64(right) / float64(len(pred))
}

// Mean returns the plain mean of each number, as the near-OOD and far-OOD rows
// of a table are made. The mean of nothing is NaN.
func Mean(results []Result) Result {
	var m Result
	for _, r := range results {
		m.FPR95 += r.FPR95
		m.AUROC += r.AUROC
		m.AUPRIn += r.AUPRIn
		m.AUPROut += r.AUPROut
	}
	n := float64(len(results))
	return Result{m.FPR95 / n, m.AUROC / n, m.AUPRIn / n, m.AUPROut / n}
}

// sorted returns rising copies, or says which score is unusable.
func sorted(id, ood []float64) (in, out []float64, err error) {
	if in, err = sortedSet("ID", id); err != nil {
		return nil, nil, err
	}
	if out, err = sortedSet("OOD", ood); err != nil {
		return nil, nil, err
	}
	return in, out, nil
}

func sortedSet(name string, scores []float64) ([]float64, error) {
	if len(scores) == 0 {
		return nil, fmt.Errorf("metric: %s scores: %w", name, ErrEmpty)
	}
	for i, s := range scores {
		if math.IsNaN(s) {
			return nil, fmt.Errorf("metric: %s score %d of %d is NaN", name, i, len(scores))
		}
		if math.IsInf(s, 0) {
			return nil, fmt.Errorf("metric: %s score %d of %d is infinite", name, i, len(scores))
		}
	}
	c := slices.Clone(scores)
	sortFinite(c)
	return c, nil
}

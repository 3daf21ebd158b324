package dg

import (
	"fmt"
	"math"
	"sort"

	"nac/metric"
)

// Criterion gives a checkpoint the number by which it is chosen.
type criterion func(r Record) float64

func byCoverage(r Record) float64   { return r.Coverage }
func byValidation(r Record) float64 { return r.TrainOut }
func byOracle(r Record) float64     { return r.TestOut }
func byTest(r Record) float64       { return r.TestIn }

// best is the first of the records with the largest number.
func best(records []Record, by criterion) int {
	b := 0
	for i, r := range records {
		if by(r) > by(records[b]) {
			b = i
		}
	}
	return b
}

// Choice is what a way to choose comes to in one run: the accuracy on the in-split of
// the unseen domain of the checkpoint that it chooses.
type Choice struct {
	// Oracle chooses by the unseen domain's out-split, Last does not choose, Validation
	// goes by the training domains' out-splits and Coverage by NAC-ME.
	Oracle     float64 `json:"oracle"`
	Last       float64 `json:"last"`
	Validation float64 `json:"training-domain validation"`
	Coverage   float64 `json:"coverage"`
	// SWAD is the accuracy of the averaged weights; NaN if none were.
	SWAD Float `json:"SWAD"`
	// Best is the best there was.
	Best float64 `json:"best"`
	// Chosen are the steps, by oracle, validation and coverage.
	Chosen [3]int `json:"steps"`
	// Rank correlations with that accuracy over checkpoints, as the reference computes
	// them; NaN with fewer than two checkpoints.
	CoverageRC Correlation `json:"coverage_rc"`
	ValRC      Correlation `json:"val_rc"`
	OracleRC   Correlation `json:"oracle_rc"`
	// Checkpoints is how many there were.
	Checkpoints int `json:"checkpoints"`
}

// Correlation is how two numbers go together over checkpoints. One that is not defined,
// as of a constant, is NaN.
type Correlation struct {
	// Reference is Spearman's coefficient as the reference computes it: tied numbers
	// get the ranks of their order.
	Reference Float `json:"rc"`
	Spearman  Float `json:"spearman"`
	Pearson   Float `json:"pearson"`
	Kendall   Float `json:"kendall"`
}

// Float is a number that JSON has as null when it is none.
type Float float64

// MarshalJSON writes null for NaN.
func (f Float) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return fmt.Appendf(nil, "%v", float64(f)), nil
}

// UnmarshalJSON reads null as NaN.
func (f *Float) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*f = Float(math.NaN())
		return nil
	}
	_, err := fmt.Sscan(string(text), (*float64)(f))
	return err
}

// Select chooses among the checkpoints of a run.
func Select(records []Record) (Choice, error) {
	if len(records) == 0 {
		return Choice{}, fmt.Errorf("dg: no checkpoint to choose from")
	}
	oracle, validation, coverage := best(records, byOracle), best(records, byValidation), best(records, byCoverage)
	swad := Float(math.NaN())
	if a := records[len(records)-1].SWAD; a != nil {
		swad = Float(a.TestIn)
	}
	return Choice{
		SWAD: swad, Oracle: records[oracle].TestIn, Last: records[len(records)-1].TestIn,
		Validation: records[validation].TestIn, Coverage: records[coverage].TestIn,
		Best:       records[best(records, byTest)].TestIn,
		Chosen:     [3]int{records[oracle].Step, records[validation].Step, records[coverage].Step},
		CoverageRC: correlate(records, byCoverage), ValRC: correlate(records, byValidation), OracleRC: correlate(records, byOracle),
		Checkpoints: len(records),
	}, nil
}

func correlate(records []Record, by criterion) Correlation {
	var x, y []float64
	for _, r := range records {
		x, y = append(x, by(r)), append(y, r.TestIn)
	}
	return Correlate(x, y)
}

// Correlate returns all coefficients of x and y.
func Correlate(x, y []float64) Correlation {
	of := func(f func(x, y []float64) (float64, error)) Float {
		v, err := f(x, y)
		if err != nil {
			return Float(math.NaN())
		}
		return Float(v)
	}
	return Correlation{Reference: Float(rankCorrelation(x, y)), Spearman: of(metric.Spearman), Pearson: of(metric.Pearson), Kendall: of(metric.Kendall)}
}

// rankCorrelation is 1 - 6 sum(d^2) / (n (n^2-1)) with d the differences of ranks, of
// which tied numbers have different ones, in their order.
func rankCorrelation(x, y []float64) float64 {
	n := float64(len(x))
	if n < 2 {
		return math.NaN()
	}
	a, b := order(x), order(y)
	sum := 0.0
	for i := range a {
		d := float64(a[i] - b[i])
		sum += d * d
	}
	return 1 - 6*sum/(n*(n*n-1))
}

// order returns the rank of each number.
func order(v []float64) []int {
	at := make([]int, len(v))
	for i := range at {
		at[i] = i
	}
	sort.SliceStable(at, func(i, j int) bool { return v[at[i]] < v[at[j]] })
	rank := make([]int, len(v))
	for r, i := range at {
		rank[i] = r
	}
	return rank
}

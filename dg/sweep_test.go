package dg

import (
	"math"
	"testing"
)

// sweepRecords are seven checkpoints.
func sweepRecords() (records []Record) {
	coverage := []float64{0.0093, 0.021, 0.033, 0.031, 0.048, 0.052, 0.0521}
	validation := []float64{0.58, 0.71, 0.825, 0.825, 0.84, 0.835, 0.85}
	oracle := []float64{0.43, 0.31, 0.14, 0.12, 0.10, 0.12, 0.11}
	test := []float64{0.41, 0.33, 0.12, 0.15, 0.11, 0.12, 0.10}
	for i := range test {
		records = append(records, Record{Step: 10 * i, Coverage: coverage[i], TrainOut: validation[i], TestOut: oracle[i], TestIn: test[i]})
	}
	return records
}

// Coefficients against scipy's: spearmanr, pearsonr and kendalltau; the reference's is
// pearsonr of numpy's stable ranks.
func TestSelectLikeSciPy(t *testing.T) {
	c, err := Select(sweepRecords())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		got  Correlation
		want Correlation
	}{
		{"coverage", c.CoverageRC, Correlation{-0.8928571428571428, -0.9369749612033814, -0.8970009152161148, -0.8783100656536799}},
		{"validation", c.ValRC, Correlation{-0.8928571428571428, -0.9727272727272728, -0.9782158720044335, -0.95}},
		{"oracle", c.OracleRC, Correlation{0.8214285714285715, 0.8818181818181818, 0.9884591335245096, 0.75}},
	} {
		for i, pair := range [][2]Float{{x.got.Reference, x.want.Reference}, {x.got.Spearman, x.want.Spearman}, {x.got.Pearson, x.want.Pearson}, {x.got.Kendall, x.want.Kendall}} {
			if !(math.Abs(float64(pair[0]-pair[1])) < 1e-12) {
				t.Errorf("%s: coefficient %d is %v, want %v", x.name, i, pair[0], pair[1])
			}
		}
	}
	if c.Oracle != 0.41 || c.Last != 0.10 || c.Validation != 0.10 || c.Coverage != 0.10 || c.Best != 0.41 || c.Chosen != [3]int{0, 60, 60} {
		t.Errorf("chosen: %+v", c)
	}
}

// A row is the mean over a domain's seeds, the average the mean of such means: domains
// with more seeds weigh no more. A correlation that is not defined counts nowhere.
func TestSummarize(t *testing.T) {
	nan := Float(math.NaN())
	outcome := func(algorithm, domain string, coverage float64, rc Float) Outcome {
		return Outcome{Algorithm: algorithm, Domain: domain, Choice: Choice{Coverage: coverage, CoverageRC: Correlation{Reference: rc, Pearson: nan}}}
	}
	rows := Summarize([]Outcome{
		outcome("ERM", "a", 0.25, 0.5), outcome("IRM", "a", 1, 1), outcome("ERM", "b", 1, -1), outcome("ERM", "a", 0.75, nan),
	})
	const coverage, rc, pearson = 3, 4, 7
	for i, want := range []struct {
		algorithm, domain string
		runs              int
		coverage, std, rc float64
	}{
		{"ERM", "a", 2, 0.5, math.Sqrt(0.125), 0.5},
		{"ERM", "b", 1, 1, 0, -1},
		{"ERM", Average, 3, 0.75, math.Sqrt(0.125), -0.25},
		{"IRM", "a", 1, 1, 0, 1},
		{"IRM", Average, 1, 1, 0, 1},
	} {
		r := rows[i]
		if r.Algorithm != want.algorithm || r.Domain != want.domain || r.Runs != want.runs || r.Means[coverage].Value != want.coverage ||
			math.Abs(r.Means[coverage].Std-want.std) > 1e-15 || r.Means[rc].Value != want.rc || !math.IsNaN(r.Means[pearson].Value) {
			t.Errorf("row %d is %+v, want %+v", i, r, want)
		}
	}
	if len(rows) != 5 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestFinished(t *testing.T) {
	c := &Config{Steps: 60, CheckpointEvery: 10}
	records := sweepRecords()
	for i := range records {
		records[i].Config = c
	}
	if !Finished(records) || Finished(records[:6]) || Finished(nil) || Finished(sweepRecords()) {
		t.Error("a run is taken for finished that is not, or the other way round")
	}
}

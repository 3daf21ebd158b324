package dg

import (
	"math"
	"slices"
)

// Outcome is what came of one run of a sweep.
type Outcome struct {
	Algorithm, Domain string
	Seed              uint64
	Records           []Record
	Choice
}

// Column is a figure of a Choice, a fraction or a correlation.
type Column struct {
	Name string
	Of   func(Choice) float64
}

// Columns are the figures of a sweep's table: accuracies on the unseen domain of what
// each way to choose comes to; then the rank correlations with that accuracy, as the
// reference computes them; then Pearson's r and Kendall's tau-b; last the accuracy of
// SWAD's mean.
func Columns() []Column {
	return []Column{
		{"oracle", func(c Choice) float64 { return c.Oracle }},
		{"last", func(c Choice) float64 { return c.Last }},
		{"validation", func(c Choice) float64 { return c.Validation }},
		{"coverage", func(c Choice) float64 { return c.Coverage }},
		{"coverage_rc", func(c Choice) float64 { return float64(c.CoverageRC.Reference) }},
		{"val_rc", func(c Choice) float64 { return float64(c.ValRC.Reference) }},
		{"oracle_rc", func(c Choice) float64 { return float64(c.OracleRC.Reference) }},
		{"coverage_r", func(c Choice) float64 { return float64(c.CoverageRC.Pearson) }},
		{"coverage_tau", func(c Choice) float64 { return float64(c.CoverageRC.Kendall) }},
		{"val_r", func(c Choice) float64 { return float64(c.ValRC.Pearson) }},
		{"val_tau", func(c Choice) float64 { return float64(c.ValRC.Kendall) }},
		{"SWAD", func(c Choice) float64 { return float64(c.SWAD) }},
	}
}

// Mean is a mean of numbers and their sample standard deviation, 0 for one number.
// Numbers that are not defined, as the correlation with a constant, are left out; N is
// how many were not. Of none both are NaN.
type Mean struct {
	Value, Std float64
	N          int
}

func meanOf(values []float64) Mean {
	values = slices.DeleteFunc(values, math.IsNaN)
	m := Mean{Value: math.NaN(), Std: math.NaN(), N: len(values)}
	if m.N == 0 {
		return m
	}
	sum, squares := 0.0, 0.0
	for _, v := range values {
		sum += v
	}
	m.Value, m.Std = sum/float64(m.N), 0
	for _, v := range values {
		squares += (v - m.Value) * (v - m.Value)
	}
	if m.N > 1 {
		m.Std = math.Sqrt(squares / float64(m.N-1))
	}
	return m
}

// Average is the Domain of the row that averages an algorithm's domains.
const Average = "average"

// Row is a line of a sweep's table.
type Row struct {
	Algorithm, Domain string
	// Runs is how many there are: seeds, or seeds of all domains.
	Runs int
	// Means are over seeds, in the order of Columns; in the row of the average over the
	// domains' means.
	Means []Mean
}

// Summarize makes the table of a sweep: for each algorithm the means over seeds for
// each domain, then their average over domains. Algorithms and domains come in the
// order of the outcomes.
func Summarize(outcomes []Outcome) (rows []Row) {
	var algorithms []string
	for _, o := range outcomes {
		if !slices.Contains(algorithms, o.Algorithm) {
			algorithms = append(algorithms, o.Algorithm)
		}
	}
	for _, a := range algorithms {
		var domains []string
		of := map[string][]Choice{}
		average := Row{Algorithm: a, Domain: Average}
		for _, o := range outcomes {
			if o.Algorithm != a {
				continue
			}
			if of[o.Domain] == nil {
				domains = append(domains, o.Domain)
			}
			of[o.Domain] = append(of[o.Domain], o.Choice)
			average.Runs++
		}
		means := make([][]float64, len(Columns()))
		for _, d := range domains {
			row := Row{Algorithm: a, Domain: d, Runs: len(of[d])}
			for k, column := range Columns() {
				var values []float64
				for _, c := range of[d] {
					values = append(values, column.Of(c))
				}
				m := meanOf(values)
				row.Means = append(row.Means, m)
				means[k] = append(means[k], m.Value)
			}
			rows = append(rows, row)
		}
		for _, m := range means {
			average.Means = append(average.Means, meanOf(m))
		}
		rows = append(rows, average)
	}
	return rows
}

// Finished tells whether the records are those of a whole run.
func Finished(records []Record) bool {
	if len(records) == 0 {
		return false
	}
	last := records[len(records)-1]
	return last.Config != nil && last.Step == last.Config.Rounded()-1
}

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"nac/metric"
	"nac/openood"
)

// ranking is a value of --sort: what has the larger number comes first.
type ranking struct {
	name, text string
	of         func(m *openood.MethodResult) float64
}

var rankings = []ranking{
	{"auroc", "Sorted by the mean of near and far AUROC", func(m *openood.MethodResult) float64 { return meanOf(m, auroc) }},
	{"near", "Sorted by near AUROC", func(m *openood.MethodResult) float64 { return valueOr(m.NearMean, auroc) }},
	{"far", "Sorted by far AUROC", func(m *openood.MethodResult) float64 { return valueOr(m.FarMean, auroc) }},
	{"fpr95", "Sorted by the mean of near and far FPR@95", func(m *openood.MethodResult) float64 {
		return -meanOf(m, func(r metric.Result) float64 { return r.FPR95 })
	}},
	{"time", "Sorted by time", func(m *openood.MethodResult) float64 { return -m.Cost.FitSeconds - m.Cost.ScoreSeconds }},
	{"memory", "Sorted by state memory", func(m *openood.MethodResult) float64 { return -float64(m.Cost.StateBytes) }},
	{"given", "In the order given", nil},
}

func rankingNames() (names []string) {
	for _, r := range rankings {
		names = append(names, r.name)
	}
	return names
}

func rankingOf(name string) ranking {
	return rankings[max(0, slices.IndexFunc(rankings, func(r ranking) bool { return r.name == name }))]
}

func auroc(r metric.Result) float64 { return r.AUROC }

func valueOr(r *metric.Result, of func(metric.Result) float64) float64 {
	if r == nil {
		return math.Inf(-1)
	}
	return of(*r)
}

// meanOf is the mean of near-OOD and far-OOD, as far as there are any.
func meanOf(m *openood.MethodResult, of func(metric.Result) float64) float64 {
	sum, n := 0.0, 0.0
	for _, r := range []*metric.Result{m.NearMean, m.FarMean} {
		if r != nil {
			sum, n = sum+of(*r), n+1
		}
	}
	return sum / n
}

// ranked are the indices of the report's methods, the best first.
func ranked(r *openood.Report, by string) []int {
	order := make([]int, len(r.Methods))
	for i := range order {
		order[i] = i
	}
	if of := rankingOf(by).of; of != nil {
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(of(&r.Methods[b]), of(&r.Methods[a])) })
	}
	return order
}

// rankingTable has one row a detector: near and far-OOD, the AUROC of each set, time
// and memory; with std, standard deviations of the means over training runs.
func rankingTable(r, std *openood.Report, by string, bold bool) string {
	type column struct {
		name   string
		value  func(m *openood.MethodResult) float64
		spread bool
		lower  bool
	}
	var columns []column
	for _, c := range []struct {
		name string
		mean func(m *openood.MethodResult) *metric.Result
		rows func(m *openood.MethodResult) []openood.Row
	}{
		{"near", func(m *openood.MethodResult) *metric.Result { return m.NearMean }, func(m *openood.MethodResult) []openood.Row { return m.Near }},
		{"far", func(m *openood.MethodResult) *metric.Result { return m.FarMean }, func(m *openood.MethodResult) []openood.Row { return m.Far }},
	} {
		if c.mean(&r.Methods[0]) == nil {
			continue
		}
		columns = append(columns,
			column{c.name + "\nAUROC", func(m *openood.MethodResult) float64 { return c.mean(m).AUROC }, true, false},
			column{c.name + "\nFPR@95", func(m *openood.MethodResult) float64 { return c.mean(m).FPR95 }, true, true})
		for i, row := range c.rows(&r.Methods[0]) {
			columns = append(columns, column{row.Set + "\nAUROC", func(m *openood.MethodResult) float64 { return c.rows(m)[i].Result.AUROC }, false, false})
		}
	}
	header := []string{"detector"}
	for _, c := range columns {
		header = append(header, c.name)
	}
	header = append(header, "fit\nseconds", "score\nseconds", "state\nmemory")
	t := newTable(header...)
	var numbers []int
	for i := range len(header) - 1 {
		numbers = append(numbers, i+2)
	}
	rightAligned(t, numbers...)
	for _, d := range ranked(r, by) {
		m := &r.Methods[d]
		row := table.Row{m.Key}
		for _, c := range columns {
			v := c.value(m)
			cell := percent(v)
			if std != nil && c.spread {
				cell += " ± " + percent(c.value(&std.Methods[d]))
			}
			if bold && !slices.ContainsFunc(r.Methods, func(o openood.MethodResult) bool {
				if c.lower {
					return c.value(&o) < v
				}
				return c.value(&o) > v
			}) {
				cell = text.Bold.Sprint(cell)
			}
			row = append(row, cell)
		}
		t.AppendRow(append(row, fixed(m.Cost.FitSeconds), fixed(m.Cost.ScoreSeconds), bytesText(m.Cost.StateBytes)))
	}
	return t.Render()
}

// bytesText is a size in the unit that suits it.
func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// mostBySet is the number of detectors from which the table by set, of a row each
// for every set, no longer helps.
const mostBySet = 8

// resultText is the ranking and, unless there are many detectors, the table by set.
func resultText(r, std *openood.Report, by string, bold bool) []string {
	if len(r.Methods) < 2 {
		return []string{resultTable(r, std, bold)}
	}
	lines := []string{rankingTable(r, std, by, bold)}
	lines = append(lines, rankingOf(by).text+". Fit and score: seconds over all images, without the network. State memory: what a fitted detector keeps.")
	if len(r.Methods) > mostBySet {
		return append(lines, "FPR@95 and AUPR of each set: table.csv of --out.")
	}
	return append(lines, "", resultTable(r, std, bold))
}

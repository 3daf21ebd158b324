package openood

import "nac/metric"

// Group is one OOD set, or the mean of several, with its result by each detector.
type Group struct {
	Kind    string // near or far
	Set     string // mean for a mean
	Images  int    // 0 for a mean
	Results []metric.Result
	// FullSpectrum tells that covariate-shifted ID images count as ID.
	FullSpectrum bool
}

// IsMean tells a mean from a set.
func (g Group) IsMean() bool { return g.Images == 0 }

// Groups turns the results, which are sorted by detector, round: near-OOD sets and
// their mean, far-OOD sets and their mean, then the same for full-spectrum
// results if there are any.
func (r *Report) Groups() (all []Group) {
	if len(r.Methods) == 0 {
		return nil
	}
	kinds := []string{"near", "far", "near", "far"} // as tables has them
	for k, first := range r.Methods[0].tables() {
		if *first.mean == nil {
			continue
		}
		at := len(all)
		for _, row := range *first.rows {
			all = append(all, Group{Kind: kinds[k], Set: row.Set, Images: row.Images, FullSpectrum: k >= 2})
		}
		all = append(all, Group{Kind: kinds[k], Set: "mean", FullSpectrum: k >= 2})
		for i := range r.Methods {
			t := r.Methods[i].tables()[k]
			for j, row := range *t.rows {
				all[at+j].Results = append(all[at+j].Results, row.Result)
			}
			last := &all[len(all)-1]
			last.Results = append(last.Results, **t.mean)
		}
	}
	return all
}

// Measure is a column of a table.
type Measure struct {
	Name, Column string // for people; for files
	Of           func(metric.Result) float64
	Lower        bool // lower is better
}

// Measures are the columns of OpenOOD's tables.
func Measures() []Measure {
	return []Measure{
		{"FPR@95", "fpr95_percent", func(r metric.Result) float64 { return r.FPR95 }, true},
		{"AUROC", "auroc_percent", func(r metric.Result) float64 { return r.AUROC }, false},
		{"AUPR-In", "aupr_in_percent", func(r metric.Result) float64 { return r.AUPRIn }, false},
		{"AUPR-Out", "aupr_out_percent", func(r metric.Result) float64 { return r.AUPROut }, false},
	}
}

// Best returns the best of a measure's values.
func (m Measure) Best(results []metric.Result) float64 {
	b := m.Of(results[0])
	for _, r := range results[1:] {
		if m.Lower {
			b = min(b, m.Of(r))
		} else {
			b = max(b, m.Of(r))
		}
	}
	return b
}

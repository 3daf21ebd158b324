package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"nac/openood"
)

// conventions are printed with every table, as these things are often the other
// way round elsewhere.
var conventions = []string{
	"Scores: higher = more in-distribution (ID). All figures in percent.",
	"FPR@95: OOD is the positive class, as OpenOOD computes it: the share of ID images flagged when 95 % of OOD is caught.",
	"AUPR-In: ID is positive. AUPR-Out: OOD is positive (the NAC reference swaps these two, OpenOOD does not).",
	"near, far: plain means over their sets.",
}

func newTable(header ...string) table.Writer {
	t := table.NewWriter()
	style := table.StyleLight
	style.Format.Header = text.FormatDefault
	style.Options = table.Options{SeparateHeader: true, SeparateRows: false}
	t.SetStyle(style)
	row := table.Row{}
	for _, h := range header {
		row = append(row, h)
	}
	t.AppendHeader(row)
	return t
}

// rightAligned are the columns, counted from 1, that hold numbers.
func rightAligned(t table.Writer, columns ...int) {
	var c []table.ColumnConfig
	for _, i := range columns {
		c = append(c, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(c)
}

// measures are the columns of a table.
var measures = openood.Measures()

// kind names a group of sets in tables.
func kind(g openood.Group) string {
	if g.FullSpectrum {
		return "fsood " + g.Kind
	}
	return g.Kind
}

// resultTable prints results; with std, which are their standard deviations over
// training runs.
func resultTable(r, std *openood.Report, bold bool) string {
	header := []string{"set", "images", "detector"}
	for _, m := range measures {
		header = append(header, m.Name)
	}
	t := newTable(header...)
	rightAligned(t, 2, 4, 5, 6, 7)
	var spread []openood.Group
	if std != nil {
		spread = std.Groups()
	}
	for i, g := range r.Groups() {
		if i > 0 {
			t.AppendSeparator()
		}
		for d, res := range g.Results {
			row := table.Row{"", "", r.Methods[d].Key}
			if d == 0 {
				row[0] = kind(g) + " " + g.Set
				if g.Images > 0 {
					row[1] = thousands(g.Images)
				}
			}
			for _, m := range measures {
				cell := percent(m.Of(res))
				if spread != nil {
					cell += " ± " + percent(m.Of(spread[i].Results[d]))
				}
				if bold && len(g.Results) > 1 && m.Best(g.Results) == m.Of(res) {
					cell = text.Bold.Sprint(cell)
				}
				row = append(row, cell)
			}
			t.AppendRow(row)
		}
	}
	return t.Render()
}

// printReport writes everything that a run found out.
func printReport(w io.Writer, r *openood.Report, sort string) error {
	bold := isTerminal(w) && os.Getenv("NO_COLOR") == ""
	a := r.Accuracy
	lines := append(resultText(r, nil, sort, bold),
		fmt.Sprintf("%s, %s. ID accuracy %s %% of %s test images; %s %% of all %s with validation.",
			r.Benchmark, r.Network, percent(a.Test), thousands(a.TestImages), percent(a.All()), thousands(a.TestImages+a.ValImages)),
	)
	lines = append(lines, shiftedText(a, openood.Accuracy{})...)
	lines = append(lines, conventions...)
	lines = append(lines, r.Notes...)
	lines = append(lines, "", fmt.Sprintf("Fitted on %s training images.%s", thousands(r.TrainImages), settingsText(r)))
	lines = append(lines, overfitText(r)...)
	lines = append(lines, incompleteText(r)...)
	lines = append(lines, skippedText(r)...)
	lines = append(lines, "", "Cost in seconds; \"wait\" is the network waiting for decoded images:", costTable(r))
	lines = append(lines, detectorCost(r)...)
	return printLines(w, lines...)
}

// printSummary writes the means over several training runs.
func printSummary(w io.Writer, runs []trainingRun, reports []*openood.Report, mean, std *openood.Report, sort string) error {
	a := mean.Accuracy
	lines := append(resultText(mean, std, sort, isTerminal(w) && os.Getenv("NO_COLOR") == ""),
		fmt.Sprintf("%s, %s. Mean ± standard deviation over %d training runs. ID accuracy %s ± %s %% of %s test images.",
			mean.Benchmark, mean.Network, len(runs), percent(a.Test), percent(std.Accuracy.Test), thousands(a.TestImages)),
	)
	lines = append(lines, shiftedText(a, std.Accuracy)...)
	lines = append(lines, conventions...)
	lines = append(lines, mean.Notes...)
	lines = append(lines, "", fmt.Sprintf("Fitted on %s training images.%s", thousands(mean.TrainImages), settingsText(mean)))
	for i, r := range reports {
		lines = append(lines, fmt.Sprintf("%s: %s, ID accuracy %s %%.", runs[i].name, runs[i].checkpoint, percent(r.Accuracy.Test)))
		lines = append(lines, overfitText(r)...)
		lines = append(lines, skippedText(r)...)
	}
	return printLines(w, append(lines, incompleteText(mean)...)...)
}

// shiftedText tells the accuracy on covariate-shifted ID sets, if there are any.
func shiftedText(a, std openood.Accuracy) []string {
	if len(a.CSID) == 0 {
		return nil
	}
	var parts []string
	for _, s := range a.CSID {
		parts = append(parts, fmt.Sprintf("%s %s %% of %s", s.Set, percent(s.Accuracy), thousands(s.Images)))
	}
	all := percent(a.FullSpectrum)
	if len(std.CSID) > 0 {
		all += " ± " + percent(std.FullSpectrum)
	}
	return []string{"Covariate-shifted ID: accuracy " + list(parts) + "; " + all + " % with the ID test set. In rows \"fsood\" these sets count as ID."}
}

// incompleteText tells which sets are not those of OpenOOD.
func incompleteText(r *openood.Report) (lines []string) {
	if len(r.Absent) > 0 {
		lines = append(lines, "Left out, as their lists are absent: "+list(r.Absent)+". Means are over the other sets.")
	}
	var partial []string
	for _, p := range r.Partial {
		partial = append(partial, fmt.Sprintf("%s %s of %s", p.Set, thousands(p.Images), thousands(p.Of)))
	}
	if len(partial) > 0 {
		lines = append(lines, "Not as many images as OpenOOD's, so figures do not compare with published ones: "+list(partial)+".")
	}
	return lines
}

func settingsText(r *openood.Report) string {
	var b strings.Builder
	for _, m := range r.Methods {
		for _, l := range m.Settings.Layers {
			fmt.Fprintf(&b, "\n  %s %s: M=%d O=%d alpha=%.6g %v", m.Key, l.Layer, l.M, l.O, l.Alpha, l.Func)
			if l.Weight != 0 && l.Weight != 1 {
				fmt.Fprintf(&b, " weight=%v", l.Weight)
			}
		}
		if len(m.Settings.Params) > 0 {
			fmt.Fprintf(&b, "\n  %s:", m.Key)
			for _, name := range slices.Sorted(maps.Keys(m.Settings.Params)) {
				fmt.Fprintf(&b, " %s=%v", strings.TrimPrefix(name, m.Key+"."), m.Settings.Params[name])
			}
		}
		if t := m.Settings.Temperature; t != 0 {
			fmt.Fprintf(&b, "\n  %s: temperature %v", m.Key, t)
		}
	}
	return b.String()
}

func overfitText(r *openood.Report) []string {
	var all, warned []string
	for _, m := range r.Methods {
		if m.Overfit == nil {
			return []string{"Overfitting check: none, as there are no training images besides those fitted on."}
		}
		all = append(all, fmt.Sprintf("%s %s", m.Key, percent(m.Overfit.AUROC)))
		if m.Overfit.Warn {
			warned = append(warned, m.Key)
		}
	}
	lines := []string{fmt.Sprintf("Overfitting check, AUROC of training images not fitted on against validation images; 50 is right, by chance ±%s: %s.",
		percent(3*r.Methods[0].Overfit.StandardError), list(all))}
	if len(warned) > 0 {
		lines = append(lines, "WARNING: "+list(warned)+" told ID training images from ID validation images. The training images are of another make"+
			" (compression, size), or the network has learnt them by heart; figures against OOD sets may measure just that.")
	}
	return lines
}

func skippedText(r *openood.Report) []string {
	if len(r.Skipped) == 0 {
		return nil
	}
	const most = 10
	lines := []string{fmt.Sprintf("%s images were skipped:", thousands(len(r.Skipped)))}
	for i, s := range r.Skipped {
		if i == most {
			lines = append(lines, fmt.Sprintf("  ... and %d more, listed in report.json of --out", len(r.Skipped)-most))
			break
		}
		lines = append(lines, "  "+oneLine(s))
	}
	return lines
}

func costTable(r *openood.Report) string {
	t := newTable("stage", "images", "wait", "network", "detectors", "all", "images/s")
	rightAligned(t, 2, 3, 4, 5, 6, 7)
	var sum openood.Stage
	row := func(s openood.Stage) {
		t.AppendRow(table.Row{s.Set, thousands(s.Images), fixed(s.WaitSeconds), fixed(s.NetworkSeconds), fixed(s.DetectorSeconds),
			fixed(s.Seconds), thousands(int(float64(s.Images) / s.Seconds))})
	}
	for _, s := range r.Stages {
		row(s)
		sum.Images += s.Images
		sum.WaitSeconds += s.WaitSeconds
		sum.NetworkSeconds += s.NetworkSeconds
		sum.DetectorSeconds += s.DetectorSeconds
		sum.Seconds += s.Seconds
	}
	sum.Set = "all"
	t.AppendSeparator()
	row(sum)
	return t.Render()
}

func fixed(s float64) string { return fmt.Sprintf("%.2f", s) }

// detectorCost tells what the ranking does where there is none.
func detectorCost(r *openood.Report) (lines []string) {
	if len(r.Methods) > 1 {
		return nil
	}
	m := r.Methods[0]
	return []string{fmt.Sprintf("%s: fit %s s, score %s s, keeps %s.", m.Key, fixed(m.Cost.FitSeconds), fixed(m.Cost.ScoreSeconds), bytesText(m.Cost.StateBytes))}
}

package report

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"nac/detector"
	"nac/internal/format"
	"nac/metric"
	"nac/openood"
)

func thousands(n int) string   { return format.Thousands(n) }
func percent(f float64) string { return format.Percent(f) }

// view is what the template reads.
type view struct {
	Page
	R          *openood.Report // the first
	Title      string
	Made       string
	Tiles      []tile
	Tables     []measureTable
	Full       []measureTable
	Series     []series
	Others     int // detectors without a curve
	ROC        []rocPlot
	Histograms []detectorHistograms
	Landscape  *landscapeView
	Main       string // the detector of the figures that show one
	Confusing  []confusing
	Settings   []settingRow
	Overfit    []overfitRow
	Stages     []openood.Stage
	Total      openood.Stage
	RunRows    []runRow
}

// tile is a number at the head of the page.
type tile struct{ Name, Value, About string }

// series is a detector in figures: its colour and dash pattern by number.
type series struct {
	Key   string
	Class int
}

// curves is how many detectors have a curve.
const curves = 6

type measureTable struct {
	openood.Measure
	Groups  []columnGroup
	Columns []column
	Rows    []tableRow
	Checked bool
}

type columnGroup struct {
	Name    string
	Columns int
}

type column struct {
	Name   string
	Images int
	Mean   bool
}

type tableRow struct {
	Key   string
	Cells []cell
}

type cell struct {
	Value, Std string
	Best, Mean bool
}

type rocPlot struct {
	Set, Group string
	Images     int
	Lines      []rocLine
}

type rocLine struct {
	series
	Path         string
	AUROC, FPR95 float64
}

type detectorHistograms struct {
	Key   string
	Plots []histogramPlot
	Cut   bool // rare scores beyond the edges are counted in the outer bins
}

type histogramPlot struct {
	Set, Group string
	Result     metric.Result
	histogram
}

type settingRow struct{ Detector, Layer, Setting string }

type overfitRow struct {
	Key         string
	AUROC, Bars float64
	Warn        bool
}

type runRow struct {
	Name, Checkpoint string
	Accuracy         float64
	Near, Far        *metric.Result
}

// oodSet is an OOD set with its scores.
type oodSet struct {
	Name, Group string
	scores      *openood.SetScores
}

const timeFormat = "2 January 2006, 15:04 MST"

func newView(p Page) (*view, error) {
	if len(p.Reports) == 0 || p.Reports[0] == nil || len(p.Reports[0].Methods) == 0 {
		return nil, errors.New("no results")
	}
	if (p.Mean == nil) != (p.Std == nil) || p.Mean != nil && len(p.Runs) != len(p.Reports) {
		return nil, errors.New("several training runs need their names, mean and standard deviation")
	}
	r := p.Reports[0]
	v := &view{Page: p, R: r, Title: r.Benchmark + ", " + r.Network, Stages: r.Stages}
	if !p.Made.IsZero() {
		v.Made = p.Made.Format(timeFormat)
	}
	for _, m := range r.Methods {
		if v.Main == "" || m.Key == "nac" {
			v.Main = m.Key
		}
	}
	mean, std := p.Mean, p.Std
	if mean == nil {
		mean = r
	}
	v.tables(mean, std)
	v.tiles(mean, std)
	v.runs()
	if err := v.figures(); err != nil {
		return nil, err
	}
	var err error
	if v.Landscape, err = newLandscape(p.Search); err != nil {
		return nil, err
	}
	v.facts()
	return v, nil
}

func (v *view) tables(mean, std *openood.Report) {
	groups := mean.Groups()
	var spread []openood.Group
	if std != nil {
		spread = std.Groups()
	}
	for _, m := range openood.Measures() {
		plain, full := measureTable{Measure: m, Checked: m.Name == "AUROC"}, measureTable{Measure: m, Checked: m.Name == "AUROC"}
		for _, method := range mean.Methods {
			plain.Rows = append(plain.Rows, tableRow{Key: method.Key})
			full.Rows = append(full.Rows, tableRow{Key: method.Key})
		}
		for i, g := range groups {
			t := &plain
			if g.FullSpectrum {
				t = &full
			}
			name := g.Kind + "-OOD"
			if n := len(t.Groups); n == 0 || t.Groups[n-1].Name != name {
				t.Groups = append(t.Groups, columnGroup{Name: name})
			}
			t.Groups[len(t.Groups)-1].Columns++
			t.Columns = append(t.Columns, column{g.Set, g.Images, g.IsMean()})
			best := m.Best(g.Results)
			for d, result := range g.Results {
				c := cell{Value: percent(m.Of(result)), Mean: g.IsMean(), Best: len(g.Results) > 1 && m.Of(result) == best}
				if spread != nil {
					c.Std = percent(m.Of(spread[i].Results[d]))
				}
				t.Rows[d].Cells = append(t.Rows[d].Cells, c)
			}
		}
		v.Tables = append(v.Tables, plain)
		if len(full.Columns) > 0 {
			v.Full = append(v.Full, full)
		}
	}
}

func (v *view) tiles(mean, std *openood.Report) {
	with := func(value, deviation float64) string {
		if std == nil {
			return percent(value) + " %"
		}
		return percent(value) + " ± " + percent(deviation) + " %"
	}
	a := mean.Accuracy
	var deviation openood.Accuracy
	if std != nil {
		deviation = std.Accuracy
	}
	v.Tiles = append(v.Tiles, tile{"ID accuracy", with(a.Test, deviation.Test), thousands(a.TestImages) + " test images"})
	for i, m := range mean.Methods {
		if m.Key != v.Main {
			continue
		}
		for _, g := range []struct {
			name string
			of   func(openood.MethodResult) *metric.Result
			sets int
		}{
			{"near-OOD AUROC", func(m openood.MethodResult) *metric.Result { return m.NearMean }, len(m.Near)},
			{"far-OOD AUROC", func(m openood.MethodResult) *metric.Result { return m.FarMean }, len(m.Far)},
		} {
			if g.of(m) == nil {
				continue
			}
			d := 0.0
			if std != nil {
				d = g.of(std.Methods[i]).AUROC
			}
			about := fmt.Sprintf("%s, mean of %d sets", m.Key, g.sets)
			if g.sets == 1 {
				about = m.Key + ", one set"
			}
			v.Tiles = append(v.Tiles, tile{g.name, with(g.of(m).AUROC, d), about})
		}
	}
	seconds := 0.0
	images := 0
	for _, r := range v.Reports {
		for _, s := range r.Stages {
			seconds += s.Seconds
			images += s.Images
		}
	}
	if images > 0 {
		v.Tiles = append(v.Tiles, tile{"time", format.Seconds(seconds), thousands(images) + " images"})
	}
}

func (v *view) runs() {
	for i, name := range v.Runs {
		r := v.Reports[i]
		row := runRow{Name: name, Checkpoint: r.Checkpoint, Accuracy: r.Accuracy.Test}
		for _, m := range r.Methods {
			if m.Key == v.Main {
				row.Near, row.Far = m.NearMean, m.FarMean
			}
		}
		v.RunRows = append(v.RunRows, row)
	}
}

// figures draws what needs the scores of the images.
func (v *view) figures() error {
	test := setScores(v.R, "test")
	if test == nil {
		return nil
	}
	var sets []oodSet
	for _, g := range v.R.Groups() {
		if g.IsMean() || g.FullSpectrum {
			continue
		}
		s := setScores(v.R, g.Set)
		if s == nil {
			return fmt.Errorf("no scores of set %s", g.Set)
		}
		sets = append(sets, oodSet{g.Set, g.Kind, s})
	}
	for _, m := range v.R.Methods {
		for _, s := range append([]oodSet{{Name: "test", scores: test}}, sets...) {
			if n := len(scoresOf(s.scores, m.Key)); n == 0 || n != len(s.scores.Paths) {
				return fmt.Errorf("set %s has %d scores of %s for %d images", s.Name, n, m.Key, len(s.scores.Paths))
			}
		}
	}
	v.chooseSeries()
	for k, s := range sets {
		plot := rocPlot{Set: s.Name, Group: s.Group + "-OOD", Images: len(s.scores.Paths)}
		for _, d := range v.Series {
			result := v.resultOf(d.Key, k)
			plot.Lines = append(plot.Lines, rocLine{d, rocPath(scoresOf(test, d.Key), scoresOf(s.scores, d.Key)), result.AUROC, result.FPR95})
		}
		v.ROC = append(v.ROC, plot)
	}
	for _, d := range v.Series {
		h := detectorHistograms{Key: d.Key}
		id := scoresOf(test, d.Key)
		all := [][]float64{id}
		for _, s := range sets {
			all = append(all, scoresOf(s.scores, d.Key))
		}
		var low, high float64
		low, high, h.Cut = scoreRange(all...)
		for k, s := range sets {
			h.Plots = append(h.Plots, histogramPlot{s.Name, s.Group + "-OOD", v.resultOf(d.Key, k), newHistogram(id, all[k+1], low, high)})
		}
		v.Histograms = append(v.Histograms, h)
	}
	v.Confusing = mostConfusing(v.Page, v.Main, test, sets)
	return nil
}

// chooseSeries takes the main detector, MSP, against which others are measured,
// and those with the best AUROC.
func (v *view) chooseSeries() {
	keys := make([]string, 0, len(v.R.Methods))
	mean := map[string]float64{}
	for _, m := range v.R.Methods {
		keys = append(keys, m.Key)
		for _, row := range slices.Concat(m.Near, m.Far) {
			mean[m.Key] += row.Result.AUROC
		}
	}
	few := len(keys) <= curves
	rank := func(key string) float64 {
		switch {
		case key == v.Main:
			return math.Inf(1)
		case few:
			return 0 // as they are
		case key == "msp":
			return math.MaxFloat64
		}
		return mean[key]
	}
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(rank(b), rank(a)) })
	if !few {
		v.Others = len(keys) - curves
		keys = keys[:curves]
	}
	for i, k := range keys {
		v.Series = append(v.Series, series{k, i})
	}
}

// resultOf returns a detector's result on the k-th OOD set.
func (v *view) resultOf(key string, k int) metric.Result {
	i := slices.IndexFunc(v.R.Methods, func(m openood.MethodResult) bool { return m.Key == key })
	m := v.R.Methods[i]
	return slices.Concat(m.Near, m.Far)[k].Result
}

func setScores(r *openood.Report, set string) *openood.SetScores {
	for _, s := range r.Scores {
		if s.Set == set {
			return s
		}
	}
	return nil
}

func scoresOf(s *openood.SetScores, key string) []float64 {
	for _, m := range s.Scores {
		if m.Key == key {
			return m.Values
		}
	}
	return nil
}

// className is a label's name, else its number.
func className(names []string, label int) string {
	if label >= 0 && label < len(names) {
		return names[label]
	}
	return fmt.Sprintf("class %d", label)
}

func (v *view) facts() {
	for _, m := range v.R.Methods {
		v.Settings = append(v.Settings, settingRows(m.Key, m.Settings)...)
		if o := m.Overfit; o != nil {
			v.Overfit = append(v.Overfit, overfitRow{m.Key, o.AUROC, 3 * o.StandardError, o.Warn})
		}
	}
	v.Total.Set = "all"
	for _, s := range v.Stages {
		v.Total.Images += s.Images
		v.Total.WaitSeconds += s.WaitSeconds
		v.Total.NetworkSeconds += s.NetworkSeconds
		v.Total.DetectorSeconds += s.DetectorSeconds
		v.Total.Seconds += s.Seconds
	}
}

func settingRows(key string, s detector.Settings) (rows []settingRow) {
	for _, l := range s.Layers {
		text := fmt.Sprintf("M=%d, O=%d, alpha=%.6g, %v", l.M, l.O, l.Alpha, l.Func)
		if l.Weight != 0 && l.Weight != 1 {
			text += fmt.Sprintf(", weight %.6g", l.Weight)
		}
		rows = append(rows, settingRow{key, l.Layer, text})
	}
	if s.Temperature != 0 {
		rows = append(rows, settingRow{key, "", fmt.Sprintf("temperature %v", s.Temperature)})
	}
	var names []string
	for name := range s.Params {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rows = append(rows, settingRow{key, "", fmt.Sprintf("%s = %v", name, s.Params[name])})
	}
	return rows
}

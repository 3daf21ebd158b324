package report

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// SearchPage is the report of a parameter search alone.
type SearchPage struct {
	// Of is what was searched, a benchmark or a cache, and Network what looked at it.
	Of, Network string
	Search      *Landscape
	// Summary says in a sentence what was done. Warning, if not empty, says why the result
	// may be misleading.
	Summary, Warning string
	// Machine describes the computer and the program, and Facts the job, as name and
	// value.
	Machine, Facts [][2]string
	// Made is when; the zero time is not shown.
	Made time.Time
}

// topCombinations is how many of the best a page lists.
const topCombinations = 25

type searchView struct {
	SearchPage
	Title, When string
	Tiles       []tile
	Landscape   *landscapeView
	Top         []Point // the best first
}

// Write writes the page.
func (p SearchPage) Write(w io.Writer) error {
	v := searchView{SearchPage: p, Title: "Parameter search, " + p.Of}
	var err error
	if v.Landscape, err = newLandscape(p.Search); err == nil && v.Landscape == nil {
		err = errors.New("no combinations")
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if !p.Made.IsZero() {
		v.When = p.Made.Format(timeFormat)
	}
	best := v.Landscape.Best
	v.Tiles = []tile{
		{"AUROC", percent(best.AUROC), "ID against OOD validation images, %"},
		{"FPR@95", percent(best.FPR95), "lower is better, %"},
	}
	if best.TrainAUROC != nil {
		v.Tiles = append(v.Tiles, tile{"train AUROC", percent(*best.TrainAUROC), "sanity check; 50 is right"})
	}
	v.Top = slices.Clone(p.Search.Points)
	slices.SortStableFunc(v.Top, func(a, b Point) int { return cmp.Compare(b.AUROC, a.AUROC) })
	v.Top = v.Top[:min(topCombinations, len(v.Top))]
	b := bufio.NewWriter(w)
	if err := page().ExecuteTemplate(b, "search.html", v); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return b.Flush()
}

// Package report makes the result of a benchmark a page to be looked at: one HTML
// file with tables, ROC curves, score histograms, maps of what NAC covers, the
// landscape of a parameter search and the images that confuse the detector most.
// It is self-contained: it loads nothing, runs no script and prints well.
package report

import (
	"bufio"
	"embed"
	"fmt"
	"html/template"
	"io"
	"sync"
	"time"

	"nac/imageset"
	"nac/openood"
)

// Page is what a report is made of. Only Reports is needed.
type Page struct {
	// Reports are the results, one a training run, with their scores. Figures are of
	// the first.
	Reports []*openood.Report
	// Runs names the training runs if there are several; Mean and Std are then as
	// openood.Average makes them.
	Runs      []string
	Mean, Std *openood.Report
	// Coverage are maps of what NAC covers in each layer; see Maps.
	Coverage []Map
	// Search is the landscape of a parameter search.
	Search *Landscape
	// Classes names the labels 0, 1, ..., as far as they have names.
	Classes []string
	// Open reads an image that a report names, for thumbnails; nil for none.
	Open func(path string) (*imageset.Image, error)
	// Machine describes the computer and the program, and Facts the job, as name and
	// value.
	Machine, Facts [][2]string
	// Made is when; the zero time is not shown.
	Made time.Time
}

//go:embed page.html search.html sweep.html style.css
var files embed.FS

// page is parsed when it is first written: other commands should not wait for it.
var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page.html").Funcs(template.FuncMap{
		"thousands": thousands,
		"fixed":     func(x float64) string { return fmt.Sprintf("%.2f", x) },
		"percent":   percent,
		"share":     func(x float64) string { return fmt.Sprintf("%.0f\u00a0%%", 100*x) },
		"score":     func(x float64) string { return fmt.Sprintf("%#.4g", x) },
		"alpha":     func(x float64) string { return fmt.Sprintf("%.6g", x) },
		"rocX":      func(fpr float64) float64 { return rocLeft + rocSide*fpr },
		"inc":       func(n int) int { return n + 1 },
		"bins":      func(m int) int { return m - 1 },
		"int":       func(n int64) int { return int(n) },
		"deref":     func(x *float64) float64 { return *x },
		"dict": func(pairs ...any) map[string]any {
			m := map[string]any{}
			for i := 0; i+1 < len(pairs); i += 2 {
				m[pairs[i].(string)] = pairs[i+1]
			}
			return m
		},
		"style": func() (template.CSS, error) {
			css, err := files.ReadFile("style.css")
			return template.CSS(css), err
		},
	}).ParseFS(files, "page.html", "search.html"))
})

// Write writes the page.
func (p Page) Write(w io.Writer) error {
	v, err := newView(p)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	b := bufio.NewWriter(w)
	if err := page().Execute(b, v); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return b.Flush()
}

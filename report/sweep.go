package report

import (
	"bufio"
	"fmt"
	"html/template"
	"io"
	"math"
	"sync"
	"time"

	"nac/dg"
)

// Sweep is the page of a sweep of domain generalisation: its table, and every
// checkpoint's coverage and validation accuracy against its accuracy on the unseen
// domain.
type Sweep struct {
	Dataset, Arch string
	Outcomes      []dg.Outcome
	Rows          []dg.Row
	// Missing says which runs failed, and why.
	Missing []string
	Machine [][2]string
	Made    time.Time
}

// scatter is a plot of checkpoints.
type scatter struct {
	Name, About  string
	Dots         []dot
	XTicks       []tick
	YTicks       []tick
	Label, Title string // of the x axis, and for those who do not see
}

type dot struct {
	X, Y  float64
	Class int
	Title string
}

type scatterGroup struct {
	Algorithm string
	Plots     []scatter
}

// A scatter plot's square, in units of its viewBox.
const scatterLeft, scatterTop, scatterSide = 40, 8, 230

// newScatter draws x against the accuracy on the unseen domain. Seeds have colours.
func newScatter(name, label string, outcomes []dg.Outcome, x func(dg.Record) float64, rc func(dg.Choice) dg.Correlation) scatter {
	s := scatter{Name: name, Label: label}
	lowX, highX, lowY, highY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	sum, n := 0.0, 0
	for _, o := range outcomes {
		if v := float64(rc(o.Choice).Reference); !math.IsNaN(v) {
			sum += v
			n++
		}
		for _, r := range o.Records {
			lowX, highX = min(lowX, x(r)), max(highX, x(r))
			lowY, highY = min(lowY, r.TestIn), max(highY, r.TestIn)
		}
	}
	s.About = "rank correlation –"
	if n > 0 {
		s.About = fmt.Sprintf("mean rank correlation %s %%", percent(sum/float64(n)))
	}
	s.Title = fmt.Sprintf("%s: %s against accuracy on the unseen domain; %s", name, label, s.About)
	widen := func(low, high float64) (float64, float64) {
		margin := 0.04 * (high - low)
		if !(margin > 0) {
			margin = 0.005
		}
		return low - margin, high + margin
	}
	lowX, highX = widen(lowX, highX)
	lowY, highY = widen(lowY, highY)
	atX := func(v float64) float64 { return scatterLeft + scatterSide*(v-lowX)/(highX-lowX) }
	atY := func(v float64) float64 { return scatterTop + scatterSide*(1-(v-lowY)/(highY-lowY)) }
	for _, t := range niceTicks(lowX, highX, 4) {
		s.XTicks = append(s.XTicks, tick{atX(t), fmt.Sprintf("%.4g", t)})
	}
	for _, t := range niceTicks(lowY, highY, 5) {
		s.YTicks = append(s.YTicks, tick{atY(t), fmt.Sprintf("%.4g", 100*t)})
	}
	for _, o := range outcomes {
		for _, r := range o.Records {
			s.Dots = append(s.Dots, dot{
				atX(x(r)), atY(r.TestIn), int(o.Seed % curves),
				fmt.Sprintf("seed %d, step %s: %s %.4g, unseen domain %s %%", o.Seed, thousands(r.Step), label, x(r), percent(r.TestIn)),
			})
		}
	}
	return s
}

func (s Sweep) groups() (groups []scatterGroup) {
	for _, row := range s.Rows {
		if row.Domain == dg.Average {
			continue
		}
		if n := len(groups); n == 0 || groups[n-1].Algorithm != row.Algorithm {
			groups = append(groups, scatterGroup{Algorithm: row.Algorithm})
		}
		var of []dg.Outcome
		for _, o := range s.Outcomes {
			if o.Algorithm == row.Algorithm && o.Domain == row.Domain {
				of = append(of, o)
			}
		}
		g := &groups[len(groups)-1]
		g.Plots = append(g.Plots,
			newScatter(row.Domain, "coverage", of, func(r dg.Record) float64 { return r.Coverage }, func(c dg.Choice) dg.Correlation { return c.CoverageRC }),
			newScatter(row.Domain, "validation accuracy", of, func(r dg.Record) float64 { return r.TrainOut }, func(c dg.Choice) dg.Correlation { return c.ValRC }))
	}
	return groups
}

// sweepView is what the template reads.
type sweepView struct {
	Sweep
	Columns []dg.Column
	Groups  []scatterGroup
}

var sweepTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("sweep.html").Funcs(template.FuncMap{
		"percent": percent,
		"average": func(domain string) bool { return domain == dg.Average },
		"style": func() (template.CSS, error) {
			css, err := files.ReadFile("style.css")
			return template.CSS(css), err
		},
	}).ParseFS(files, "sweep.html"))
})

// Write writes the page.
func (s Sweep) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	if err := sweepTemplate().Execute(b, sweepView{s, dg.Columns(), s.groups()}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return b.Flush()
}

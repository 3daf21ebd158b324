package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"nac/openood"
)

// isTerminal tells whether somebody looks at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress writes a line after each set; on a terminal a bar runs before it,
// elsewhere a long set says now and then how far it is.
type progress struct {
	w     io.Writer
	bars  bool
	every time.Duration // between the lines of a long set

	bar           *progressbar.ProgressBar
	set           string
	images, done  int
	begin, latest time.Time
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, bars: isTerminal(w), every: 30 * time.Second}
}

func (p *progress) Estimated(e openood.Estimate) {
	fmt.Fprintf(p.w, "estimate: %s images at %s/s, %s; memory about %s\n",
		thousands(e.Images), thousands(int(e.ImagesPerSecond)), seconds(e.Seconds), megabytes(e.MemoryBytes))
}

func (p *progress) Begin(set string, images int) {
	p.set, p.images, p.done = set, images, 0
	p.begin = time.Now()
	p.latest = p.begin
	if p.bars {
		p.bar = progressbar.NewOptions(images,
			progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(fmt.Sprintf("%-12s", set)),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("images"),
			progressbar.OptionSetWidth(24), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
}

func (p *progress) Advance(images int) {
	p.done += images
	switch {
	case p.bars:
		_ = p.bar.Add(images)
	case time.Since(p.latest) >= p.every:
		p.latest = time.Now()
		fmt.Fprintf(p.w, "%-12s %s images\n", p.set, p.count())
	}
}

func (p *progress) End() {
	if p.bars {
		_ = p.bar.Clear()
	}
	took := time.Since(p.begin)
	fmt.Fprintf(p.w, "%-12s %s images, %s\n", p.set, p.count(), seconds(took.Seconds()))
}

// count says how many images are done; their number may be unknown, -1.
func (p *progress) count() string {
	if p.images < 0 || p.done == p.images {
		return thousands(p.done)
	}
	return thousands(p.done) + " of " + thousands(p.images)
}

// stages turns calls of nac.Fit's progress into those of progress.
type stages struct {
	*progress
	stage string
}

func newStages(w io.Writer) *stages { return &stages{progress: newProgress(w)} }

func (s *stages) advance(stage string, done, total int) {
	if done == 0 {
		s.end()
		s.stage = stage
		s.Begin(stage, total)
	}
	s.Advance(done - s.done)
}

func (s *stages) end() {
	if s.stage != "" {
		s.End()
		s.stage = ""
	}
}

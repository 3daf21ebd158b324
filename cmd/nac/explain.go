package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nac"
	"nac/imageset"
	"nac/internal/atomicfile"
	"nac/report"
)

// explainer writes explanations to a folder.
type explainer struct {
	detector *nac.Detector
	fsys     fs.FS
	dir      string
}

func newExplainer(d *nac.Detector, fsys fs.FS, dir string) (*explainer, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("--explain: %w", err)
	}
	return &explainer{d, fsys, dir}, nil
}

// file explains the n-th image of a run.
func (x *explainer) file(ctx context.Context, path string, n int) error {
	img, err := imageset.DecodeFS(x.fsys, path)
	if err != nil {
		return err
	}
	return x.image(ctx, img, path, n)
}

// image writes DIR/000001-name.png, .json and .txt.
func (x *explainer) image(ctx context.Context, img *imageset.Image, path string, n int) error {
	e, err := x.detector.Explain(ctx, img)
	if err != nil {
		return err
	}
	name := filepath.Base(filepath.ToSlash(path))
	name = filepath.Join(x.dir, fmt.Sprintf("%06d-%.100s", n, strings.TrimSuffix(name, filepath.Ext(name))))
	var maps []report.Heat
	for _, l := range e.Layers {
		if l.Map != nil {
			maps = append(maps, report.Heat{Height: l.Height, Width: l.Width, Values: l.Map})
		}
	}
	err = atomicfile.Write(name+".png", func(w io.Writer) error { return png.Encode(w, report.Beside(e.Input, maps)) })
	if err != nil {
		return err
	}
	err = atomicfile.Write(name+".json", func(w io.Writer) error {
		j := json.NewEncoder(w)
		j.SetEscapeHTML(false)
		return j.Encode(struct {
			Path string `json:"path"`
			*nac.Explanation
		}{path, e})
	})
	if err != nil {
		return err
	}
	return atomicfile.Write(name+".txt", func(w io.Writer) error { return printLines(w, describeExplanation(path, e)...) })
}

func describeExplanation(path string, e *nac.Explanation) []string {
	verdict := verdictID
	if e.OOD {
		verdict = verdictOOD
	}
	class := func(n int, name string) string {
		if name == "" {
			return fmt.Sprintf("class %d", n)
		}
		return name
	}
	lines := []string{
		path,
		fmt.Sprintf("%s: score %.4f, p-value %.4f, taken for %s with probability %.3f", verdict, e.Score, e.PValue, class(e.Class, e.ClassName), e.Probability),
		"",
		"layer            covered  ID images: median, lowest 5 %   neurons uncovered    the least covered",
	}
	for _, l := range e.Layers {
		var least []string
		for _, n := range l.Least[:min(len(l.Least), 5)] {
			least = append(least, fmt.Sprintf("%d (%.0f %%)", n.Index, 100*n.Covered))
		}
		note := ""
		if l.Covered <= l.Low {
			note = "  <- strange"
		}
		lines = append(lines, fmt.Sprintf("%-16s %6.1f%%  %17.1f%% %12.1f%% %13d of %-6d %s%s",
			l.Layer, 100*l.Covered, 100*l.Median, 100*l.Low, l.Uncovered, l.Neurons, strings.Join(least, ", "), note))
	}
	var drawn []string
	for _, l := range e.Layers {
		if l.Map != nil {
			drawn = append(drawn, l.Layer)
		}
	}
	if len(drawn) > 0 {
		lines = append(lines, "", "picture: the input, then where "+list(drawn)+" is active and uncovered (yellow)")
	}
	if len(e.Nearest) > 0 {
		lines = append(lines, "", "ID images most like it in their neurons' states, and how many bins a neuron is apart:")
		for _, n := range e.Nearest {
			lines = append(lines, fmt.Sprintf("%8.3f  %s, %s", n.Distance, n.Path, class(n.Class, n.ClassName)))
		}
	}
	return lines
}

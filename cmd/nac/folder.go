package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"nac/internal/atomicfile"
	"nac/openood"
)

// prepareFolder makes the output folder and its folder of scores and tries to
// write to both, so that an unwritable one is found before hours of work.
func prepareFolder(dir string) error {
	scores := filepath.Join(dir, "scores")
	if err := os.MkdirAll(scores, 0o777); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, d := range []string{dir, scores} {
		f, err := os.CreateTemp(d, ".nac-*.tmp")
		if err != nil {
			return fmt.Errorf("--out: cannot write to the folder: %w", err)
		}
		f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return nil
}

// writeFolder writes the scores of every image, the table, and last the report:
// where that is, all is.
func writeFolder(ctx context.Context, dir string, r *openood.Report) error {
	for _, s := range r.Scores {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := writeCSV(filepath.Join(dir, "scores", s.Set+".csv"), func(w *csv.Writer) error { return scoreRows(w, s) })
		if err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if err := writeCSV(filepath.Join(dir, "table.csv"), func(w *csv.Writer) error { return tableRows(w, r) }); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	err := atomicfile.Write(filepath.Join(dir, "report.json"), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(struct {
			Version string `json:"version"`
			*openood.Report
		}{version(), r})
	})
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

func writeCSV(path string, rows func(*csv.Writer) error) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		c := csv.NewWriter(w)
		if err := rows(c); err != nil {
			return err
		}
		c.Flush()
		return c.Error()
	})
}

// scoreRows writes a line for each image of a set, in list order.
func scoreRows(w *csv.Writer, s *openood.SetScores) error {
	row := []string{"path", "label", "prediction"}
	for _, m := range s.Scores {
		row = append(row, m.Key)
	}
	if err := w.Write(row); err != nil {
		return err
	}
	for i, p := range s.Paths {
		row = append(row[:0], p, strconv.Itoa(s.Labels[i]), strconv.Itoa(s.Predictions[i]))
		for _, m := range s.Scores {
			row = append(row, strconv.FormatFloat(m.Values[i], 'g', -1, 64))
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	return nil
}

// tableRows writes the table of results with a line for each detector and set.
func tableRows(w *csv.Writer, r *openood.Report) error {
	row := []string{"detector", "group", "set", "images"}
	for _, m := range measures {
		row = append(row, m.column)
	}
	if err := w.Write(row); err != nil {
		return err
	}
	for d, method := range r.Methods {
		for _, g := range groups(r) {
			row = append(row[:0], method.Key, g.kind, g.set, "")
			if g.images > 0 {
				row[3] = strconv.Itoa(g.images)
			}
			for _, m := range measures {
				row = append(row, strconv.FormatFloat(100*m.of(g.results[d]), 'f', 4, 64))
			}
			if err := w.Write(row); err != nil {
				return err
			}
		}
	}
	return nil
}

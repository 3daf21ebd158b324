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

// prepareFile finds a --report that cannot be written before hours of work.
func prepareFile(flag, path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %s is no file", flag, path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".nac-*.tmp")
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	f.Close()
	return os.Remove(f.Name())
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
	if err := writeCSV(filepath.Join(dir, "table.csv"), func(w *csv.Writer) error { return tableRows(w, r, nil) }); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return writeJSON(filepath.Join(dir, "report.json"), struct {
		Version string `json:"version"`
		*openood.Report
	}{version(), r})
}

// writeSummary writes the means and standard deviations over training runs.
func writeSummary(dir string, runs []trainingRun, mean, std *openood.Report) error {
	if err := writeCSV(filepath.Join(dir, "table.csv"), func(w *csv.Writer) error { return tableRows(w, mean, std) }); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	type results struct {
		Accuracy openood.Accuracy       `json:"id_accuracy"`
		Methods  []openood.MethodResult `json:"methods"`
	}
	checkpoints := make([]string, len(runs))
	for i, r := range runs {
		checkpoints[i] = r.checkpoint
	}
	return writeJSON(filepath.Join(dir, "summary.json"), struct {
		Version     string   `json:"version"`
		Benchmark   string   `json:"benchmark"`
		Network     string   `json:"network"`
		Checkpoints []string `json:"checkpoints"`
		Mean        results  `json:"mean"`
		Std         results  `json:"std"`
	}{version(), mean.Benchmark, mean.Network, checkpoints, results{mean.Accuracy, mean.Methods}, results{std.Accuracy, std.Methods}})
}

// writeOpenOOD writes each detector's table as OpenOOD's evaluation scripts do:
// ood/KEY.csv, and fsood/KEY.csv for full-spectrum results, in percent, with
// "± deviation" if there are several training runs.
func writeOpenOOD(dir string, r, std *openood.Report) error {
	for _, folder := range []string{"ood", "fsood"} {
		full := folder == "fsood"
		if full && (len(r.Methods) == 0 || r.Methods[0].FullSpectrum == nil) {
			continue
		}
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o777); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		for d, m := range r.Methods {
			if err := writeCSV(filepath.Join(dir, folder, m.Key+".csv"), func(w *csv.Writer) error {
				return openOODRows(w, r, std, d, full)
			}); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
		}
	}
	return nil
}

// openOODRows writes one detector's table in OpenOOD's form.
func openOODRows(w *csv.Writer, r, std *openood.Report, method int, full bool) error {
	var spread []openood.Group
	accuracy, deviation := r.Accuracy.Test, 0.0
	if full {
		accuracy = r.Accuracy.FullSpectrum
	}
	if std != nil {
		spread, deviation = std.Groups(), std.Accuracy.Test
		if full {
			deviation = std.Accuracy.FullSpectrum
		}
	}
	cell := func(v, dev float64) string {
		if std == nil {
			return percent(v)
		}
		return percent(v) + " ± " + percent(dev)
	}
	if err := w.Write([]string{"", "FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC"}); err != nil {
		return err
	}
	for i, g := range r.Groups() {
		if g.FullSpectrum != full {
			continue
		}
		name := g.Set
		if g.IsMean() {
			name = g.Kind + "ood"
		}
		row := []string{name}
		for _, m := range measures {
			dev := 0.0
			if std != nil {
				dev = m.Of(spread[i].Results[method])
			}
			row = append(row, cell(m.Of(g.Results[method]), dev))
		}
		if err := w.Write(append(row, cell(accuracy, deviation))); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(path string, v any) error {
	err := atomicfile.Write(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
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

// tableRows writes the table of results with a line for each detector and set,
// and with columns of standard deviations if there are any.
func tableRows(w *csv.Writer, r, std *openood.Report) error {
	row := []string{"detector", "group", "set", "images"}
	for _, m := range measures {
		row = append(row, m.Column)
	}
	var spread []openood.Group
	if std != nil {
		spread = std.Groups()
		for _, m := range measures {
			row = append(row, m.Column+"_std")
		}
	}
	if err := w.Write(row); err != nil {
		return err
	}
	for d, method := range r.Methods {
		for i, g := range r.Groups() {
			row = append(row[:0], method.Key, kind(g), g.Set, "")
			if g.Images > 0 {
				row[3] = strconv.Itoa(g.Images)
			}
			for _, m := range measures {
				row = append(row, strconv.FormatFloat(100*m.Of(g.Results[d]), 'f', 4, 64))
			}
			if std != nil {
				for _, m := range measures {
					row = append(row, strconv.FormatFloat(100*m.Of(spread[i].Results[d]), 'f', 4, 64))
				}
			}
			if err := w.Write(row); err != nil {
				return err
			}
		}
	}
	return nil
}

package main

import (
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nac/internal/kernel"
	"nac/metric"
	"nac/openood"
)

// The quickstart's table and scores are those of PyTorch.
func TestQuickstartAgainstPyTorch(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network over 4,800 images")
	}
	if kernel.Best().Name() == "portable" {
		t.Skip("the portable kernels take minutes for this; TestBench runs them on fewer images")
	}
	want, err := readPyTorch()
	if err != nil {
		t.Fatal(err)
	}
	listOf := fashionLists()
	for _, c := range []struct {
		name string
		args []string
		of   map[string]string // detector to its name in PyTorch's numbers
	}{
		{"default", nil, map[string]string{"nac": "nac", "msp": "msp", "mls": "mls", "ebo": "ebo"}},
		{"one layer", []string{"--detectors", "nac", "--layers", "avgpool"}, map[string]string{"nac": "nac[avgpool]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			code, stdout, stderr := call(t, append([]string{"quickstart", "--out", dir}, c.args...)...)
			if code != exitOK {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			for _, line := range conventions {
				if !strings.Contains(stdout, line) {
					t.Errorf("the table comes without %q", line)
				}
			}
			r := readReport(t, dir)
			if len(r.Methods) != len(c.of) {
				t.Fatalf("%d detectors, want %d", len(r.Methods), len(c.of))
			}
			if a := r.Accuracy; a.Test != want.Accuracy["test_fashion"] || a.Val != want.Accuracy["val_fashion"] || a.Test < 0.88 {
				t.Errorf("ID accuracy %v, want %v", a, want.Accuracy)
			}
			for _, m := range r.Methods {
				name := c.of[m.Key]
				if d := math.Abs(m.Overfit.AUROC - (1 - want.SubTrain[name])); d > figureMargin {
					t.Errorf("%s: overfitting check %v, want %v", name, m.Overfit.AUROC, 1-want.SubTrain[name])
				}
				for _, row := range append(m.Near, m.Far...) {
					w := want.Results[name][listOf[row.Set]]
					compare(t, name+" "+row.Set, row.Result, metric.Result{FPR95: w.FPR95, AUROC: w.AUROC, AUPRIn: w.AUPRIn, AUPROut: w.AUPROut})
				}
				images, off := 0, 0
				for set, list := range listOf {
					got := readScores(t, dir, set, m.Key)
					for i, w := range want.Scores[name][list] {
						images++
						if !scoreWithin("", got[i], w) {
							off++
						}
						if !scoreWithin(m.Key, got[i], w) {
							t.Errorf("%s: score of image %d of %s is %v, want %v", name, i, list, got[i], w)
						}
					}
				}
				t.Logf("%s: %d of %d scores are off by more than the rounding of others", name, off, images)
			}
		})
	}
}

func compare(t *testing.T, what string, got, want metric.Result) {
	t.Helper()
	if d := math.Abs(got.FPR95 - want.FPR95); d > fprMargin+1e-9 {
		t.Errorf("%s: FPR@95 %v, want %v", what, got.FPR95, want.FPR95)
	}
	for _, m := range measures[1:] {
		if d := math.Abs(m.Of(got) - m.Of(want)); !(d <= figureMargin) {
			t.Errorf("%s: %s %v, want %v", what, m.Name, m.Of(got), m.Of(want))
		}
	}
}

func readReport(t *testing.T, dir string) (r openood.Report) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func readCSV(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func readScores(t *testing.T, dir, set, key string) (values []float64) {
	t.Helper()
	rows := readCSV(t, filepath.Join(dir, "scores", set+".csv"))
	column := -1
	for i, name := range rows[0] {
		if name == key {
			column = i
		}
	}
	if column < 0 {
		t.Fatalf("%s: no column %s in %v", set, key, rows[0])
	}
	for _, row := range rows[1:] {
		v, err := strconv.ParseFloat(row[column], 64)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

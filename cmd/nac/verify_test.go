package main

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"nac/internal/kernel"
	"nac/metric"
	"nac/openood"
)

func TestVerifyInstallation(t *testing.T) {
	if kernel.Best().Name() == "portable" {
		t.Skip("the portable kernels take minutes for this")
	}
	code, stdout, stderr := call(t, "verify", "--quiet")
	if code != exitOK || !strings.Contains(stdout, "All as it should be") || !strings.Contains(stdout, "nac mnist AUROC") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// The first step that deviates is named. The figures are those of the leaderboard, moved
// by as much as one of three training runs may be off, or a little more.
func TestVerifyResults(t *testing.T) {
	one := math.Sqrt2
	for name, c := range map[string]struct {
		change func(r *openood.Report)
		step   string
	}{
		"right":             {func(r *openood.Report) {}, ""},
		"absent":            {func(r *openood.Report) { r.Absent, r.Accuracy.Test = []string{"svhn"}, 0.1 }, `"sets"`},
		"partial":           {func(r *openood.Report) { r.Partial = []openood.Partial{{Set: "svhn", Images: 3, Of: 9}} }, `"sets"`},
		"accuracy":          {func(r *openood.Report) { r.Accuracy.Test, r.Methods[1].NearMean.AUROC = 0.7, 0.5 }, `"ID accuracy"`},
		"accuracy of a run": {func(r *openood.Report) { r.Accuracy.Test = 0.7725 + 0.0010*one }, ""},
		"detectors":         {func(r *openood.Report) { r.Methods[1].FarMean.AUROC, r.Methods[0].FarMean.AUROC = 0.7, 0.5 }, `"detectors"`},
		"a run":             {func(r *openood.Report) { r.Methods[1].FarMean.AUROC = 0.7776 - 0.0044*one }, ""},
		"no run":            {func(r *openood.Report) { r.Methods[1].FarMean.AUROC = 0.7776 - 0.0044*one - 0.0011 }, `"detectors"`},
		"nac":               {func(r *openood.Report) { r.Methods[0].FarMean.AUROC = 0.8 }, `"nac"`},
	} {
		dir := t.TempDir()
		r := cifar100Report()
		c.change(&r)
		if err := writeJSON(filepath.Join(dir, "report.json"), r); err != nil {
			t.Fatal(err)
		}
		checkVerify(t, name, c.step, dir)
	}
	// The mean of all three runs has to be nearer.
	for far, step := range map[float64]string{0.7776: "", 0.7776 + 0.0044: `"detectors"`} {
		dir := t.TempDir()
		r := cifar100Report()
		r.Methods[1].FarMean.AUROC = far
		runs := []trainingRun{{checkpoint: "a"}, {checkpoint: "b"}, {checkpoint: "c"}}
		if err := writeSummary(dir, runs, &r, &r); err != nil {
			t.Fatal(err)
		}
		checkVerify(t, "three runs", step, dir)
	}
	dir := t.TempDir()
	r := cifar100Report()
	r.Network = "resnet20"
	if err := writeJSON(filepath.Join(dir, "report.json"), r); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := call(t, "verify", dir); code != exitFailure || !strings.Contains(stderr, "--against") {
		t.Errorf("a network of no figures: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := call(t, "verify", "--against", dir); code != exitUsage || !strings.Contains(stderr, "RESULTS") {
		t.Errorf("nothing to compare: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := call(t, "verify", t.TempDir()); code != exitUsage || !strings.Contains(stderr, "report.json") {
		t.Errorf("an empty folder: exit code %d: %s", code, stderr)
	}
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, "report.json"), []byte("{"))
	if code, _, stderr := call(t, "verify", dir); code != exitFailure || !strings.Contains(stderr, "report.json") {
		t.Errorf("a broken file: exit code %d: %s", code, stderr)
	}
}

func TestVerifyAgainst(t *testing.T) {
	write := func(change func(r *openood.Report)) string {
		r := cifar100Report()
		r.Network = "mine"
		change(&r)
		path := filepath.Join(t.TempDir(), "before.json")
		if err := writeJSON(path, r); err != nil {
			t.Fatal(err)
		}
		return path
	}
	same := write(func(*openood.Report) {})
	for name, c := range map[string]struct {
		change func(r *openood.Report)
		step   string
	}{
		"right":          {func(r *openood.Report) { r.Methods[0].Near[0].Result.AUROC += 0.0029 }, ""},
		"network":        {func(r *openood.Report) { r.Network = "other" }, `"job"`},
		"lacking":        {func(r *openood.Report) { r.Methods = r.Methods[:1] }, `"job"`},
		"absent":         {func(r *openood.Report) { r.Absent = []string{"svhn"} }, `"sets"`},
		"another number": {func(r *openood.Report) { r.Methods[1].Near[0].Images, r.Accuracy.Test = 9, 0.1 }, `"sets"`},
		"accuracy":       {func(r *openood.Report) { r.Accuracy.Test += 0.001; r.Methods[0].Near[0].Result.AUROC = 0.1 }, `"ID accuracy"`},
		"detectors":      {func(r *openood.Report) { r.Methods[1].Near[0].Result.AUROC = 0.82 }, `"detectors"`},
		"nac":            {func(r *openood.Report) { r.Methods[0].Near[0].Result.AUROC += 0.0031 }, `"nac"`},
	} {
		checkVerify(t, name, c.step, write(c.change), "--against", same)
	}
	if code, _, stderr := call(t, "verify", same, "--against", t.TempDir()); code != exitUsage || !strings.Contains(stderr, "--against") {
		t.Errorf("against nothing: exit code %d: %s", code, stderr)
	}
}

// cifar100Report has the leaderboard's figures for CIFAR-100.
func cifar100Report() openood.Report {
	row := func(auroc float64) []openood.Row {
		return []openood.Row{{Set: "cifar10", Images: 9000, Result: metric.Result{AUROC: auroc}}}
	}
	return openood.Report{Benchmark: "cifar100", Network: "resnet18_32x32", Accuracy: openood.Accuracy{Test: 0.7725}, Methods: []openood.MethodResult{
		{Key: "nac", Near: row(0.76), NearMean: &metric.Result{AUROC: 0.7590}, FarMean: &metric.Result{AUROC: 0.8698}},
		{Key: "msp", Near: row(0.80), NearMean: &metric.Result{AUROC: 0.8027}, FarMean: &metric.Result{AUROC: 0.7776}},
	}}
}

// checkVerify calls "nac verify"; the step must be the one it names as deviating, empty
// for none.
func checkVerify(t *testing.T, name, step string, args ...string) {
	t.Helper()
	code, stdout, stderr := call(t, append([]string{"verify"}, args...)...)
	if step == "" {
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
		}
		return
	}
	if code != exitFailure || !strings.Contains(stderr, "at step "+step) || !strings.Contains(stdout, "DEVIATES") {
		t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
	}
}

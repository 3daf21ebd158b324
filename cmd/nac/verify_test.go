package main

import (
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

// The first step that deviates is named.
func TestVerifyResults(t *testing.T) {
	result := func(near, far float64) openood.Report {
		return openood.Report{Benchmark: "cifar100", Network: "resnet18_32x32", Accuracy: openood.Accuracy{Test: 0.775}, Methods: []openood.MethodResult{
			{Key: "nac", NearMean: &metric.Result{AUROC: near}, FarMean: &metric.Result{AUROC: far}},
			{Key: "msp", NearMean: &metric.Result{AUROC: 0.8}, FarMean: &metric.Result{AUROC: 0.78}},
		}}
	}
	for name, c := range map[string]struct {
		change func(r *openood.Report)
		step   string
	}{
		"right":     {func(r *openood.Report) {}, ""},
		"absent":    {func(r *openood.Report) { r.Absent, r.Accuracy.Test = []string{"svhn"}, 0.1 }, `"sets"`},
		"accuracy":  {func(r *openood.Report) { r.Accuracy.Test, r.Methods[1].NearMean.AUROC = 0.7, 0.5 }, `"ID accuracy"`},
		"detectors": {func(r *openood.Report) { r.Methods[1].FarMean.AUROC, r.Methods[0].FarMean.AUROC = 0.7, 0.5 }, `"detectors"`},
		"nac":       {func(r *openood.Report) { r.Methods[0].FarMean.AUROC = 0.8 }, `"nac"`},
	} {
		dir := t.TempDir()
		r := result(0.76, 0.865)
		c.change(&r)
		if err := writeJSON(filepath.Join(dir, "report.json"), r); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := call(t, "verify", dir)
		if c.step == "" {
			if code != exitOK {
				t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
			}
			continue
		}
		if code != exitFailure || !strings.Contains(stderr, "at step "+c.step) || !strings.Contains(stdout, "DEVIATES") {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
		}
	}
	if code, _, stderr := call(t, "verify", t.TempDir()); code != exitUsage || !strings.Contains(stderr, "report.json") {
		t.Errorf("an empty folder: exit code %d: %s", code, stderr)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "report.json"), []byte("{"))
	if code, _, stderr := call(t, "verify", dir); code != exitFailure || !strings.Contains(stderr, "report.json") {
		t.Errorf("a broken file: exit code %d: %s", code, stderr)
	}
}

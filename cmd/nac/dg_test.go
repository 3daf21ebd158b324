package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nac/dg"
	"nac/internal/shareddata"
)

func TestDGTrain(t *testing.T) {
	data, out := t.TempDir(), filepath.Join(t.TempDir(), "run")
	for _, domain := range []string{"day", "dusk", "night"} {
		photographs(t, filepath.Join(data, domain), 36, 6, "blue", "green")
	}
	args := []string{"dg", "train", "--dataset", "folder", "--data", data, "--test-domain", "dusk", "--arch", "resnet20",
		"--hparam", "batch_size=4", "--hparam", "lr=0.001", "--hparam", "freeze_bn=false", "--steps", "4", "--checkpoint-freq", "2", "--swad", "--O", "3", "--out", out}
	code, stdout, stderr := call(t, args...)
	if code != exitOK || !strings.Contains(stdout, "coverage_rc") || !strings.Contains(stdout, "coverage_tau") || !strings.Contains(stdout, "SWAD") || !strings.Contains(stderr, "step 4: loss") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	records, err := dg.ReadRecords(filepath.Join(out, dg.ResultsFile))
	if err != nil || len(records) != 3 || len(records[0].Splits) != 6 || records[0].Config.Coverage != (dg.CoverageSettings{Layer: "avgpool", M: 50, O: 3, Alpha: 0.1}) || records[2].SWAD == nil {
		t.Errorf("%+v (%v)", records, err)
	}
	// The same command again finds everything done; other settings are refused.
	if code, again, stderr := call(t, append(args, "--quiet")...); code != exitOK || again != stdout {
		t.Errorf("exit code %d: %s%s", code, again, stderr)
	}
	if code, _, stderr := call(t, append(args, "--seed", "1")...); code != exitFailure || !strings.Contains(stderr, "other settings") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestDGMistakes(t *testing.T) {
	data := t.TempDir()
	photographs(t, filepath.Join(data, "day"), 32, 6, "a", "b")
	photographs(t, filepath.Join(data, "night"), 32, 6, "a")
	base := "dg train --dataset folder --arch resnet20 --data " + data + " --out " + filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"dg train", exitUsage, []string{"--dataset", "RotatedMNIST"}},
		{base, exitUsage, []string{"--test-domain"}},
		{base + " --test-domain day", exitFailure, []string{"night", "no class b"}},
		{base + " --test-domain dawn --allow-missing-classes", exitUsage, []string{"dawn", "day, night"}},
		{base + " --test-domain day --algorithm FISH", exitUsage, []string{"FISH", "GroupDRO"}},
		{base + " --test-domain day --hparam speed=3", exitUsage, []string{"speed"}},
		{base + " --test-domain day --hparam lr=0", exitUsage, []string{"lr is 0"}},
		{base + " --test-domain day --algorithm DANN --hparam mlp_depth=1", exitUsage, []string{"mlp_depth is 1"}},
		{base + " --test-domain day --O 0", exitUsage, []string{"O = 0"}},
		{"dg train --dataset RotatedMNIST --test-domain 0 --out o --data " + data, exitFailure, []string{"train-images"}},
	} {
		code, _, stderr := call(t, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("nac %s: exit code %d, want %d: %s", c.args, code, c.code, stderr)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr, s) {
				t.Errorf("nac %s: %q does not say %q", c.args, stderr, s)
			}
		}
	}
}

// Every run is a process of its own; a run that fails stops no other, and the second
// time only it is begun.
func TestDGSweep(t *testing.T) {
	t.Setenv("NAC_TEST_AS_PROGRAM", "1")
	data, out := t.TempDir(), filepath.Join(t.TempDir(), "sweep")
	for _, domain := range []string{"day", "dusk", "night"} {
		photographs(t, filepath.Join(data, domain), 32, 5, "blue", "green")
	}
	args := []string{"dg", "sweep", "--dataset", "folder", "--data", data, "--test-domains", "day,night", "--seeds", "2", "--arch", "resnet20",
		"--hparam", "batch_size=2", "--hparam", "freeze_bn=false", "--steps", "2", "--checkpoint-freq", "1", "--keep", "none", "--out", out}
	// A folder in the way of a file makes one run fail.
	inTheWay := filepath.Join(out, "ERM", "night", "1", dg.StateFile)
	if err := os.MkdirAll(inTheWay, 0o777); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, args...)
	if code != exitFailure || !strings.Contains(stderr, "1 of 4 runs failed") || !strings.Contains(stderr, "ERM/night/1") || !strings.Contains(stdout, "average") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, args...)
	if code != exitOK || !strings.Contains(stderr, "4 runs, 3 of them finished") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	csv, err := os.ReadFile(filepath.Join(out, sweepTable))
	if lines := strings.Split(strings.TrimSpace(string(csv)), "\n"); err != nil || len(lines) != 4 || !strings.HasPrefix(lines[2], "ERM,night,2,") || !strings.HasPrefix(lines[3], "ERM,average,4,") {
		t.Errorf("%s (%v)", csv, err)
	}
	page, err := os.ReadFile(filepath.Join(out, sweepPage))
	if err != nil || strings.Count(string(page), "<svg") != 4 || strings.Count(string(page), "<circle") != 2*4*3 {
		t.Errorf("%d figures, %d dots (%v)", strings.Count(string(page), "<svg"), strings.Count(string(page), "<circle"), err)
	}
	// What is finished is of these settings only.
	if code, _, stderr := call(t, append(args, "--hparam", "lr=0.01")...); code != exitFailure || !strings.Contains(stderr, "other settings") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	for _, wrong := range [][]string{{"--seeds", "0"}, {"--algorithms", "FISH"}, {"--test-domains", "dawn"}} {
		if code, _, stderr := call(t, append(args, wrong...)...); code != exitUsage || !strings.Contains(stderr, wrong[1]) {
			t.Errorf("%v: exit code %d: %s", wrong, code, stderr)
		}
	}
}

// Real photographs, cartoons and drawings of four domains: the mechanics only, a small
// network for a few steps.
func TestDGOnPACS(t *testing.T) {
	data, out := filepath.Join(shareddata.Unpacked(t), "images_dg"), filepath.Join(t.TempDir(), "run")
	code, stdout, stderr := call(t, "dg", "train", "--dataset", "PACS", "--data", data, "--test-domain", "sketch", "--algorithm", "CORAL",
		"--arch", "resnet20", "--hparam", "batch_size=4", "--hparam", "lr=0.001", "--hparam", "freeze_bn=false",
		"--steps", "3", "--checkpoint-freq", "3", "--eval-images", "20", "--keep", "none", "--out", out)
	if code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	records, err := dg.ReadRecords(filepath.Join(out, dg.ResultsFile))
	if err != nil || len(records) != 2 || len(records[1].Splits) != 8 {
		t.Fatalf("%+v (%v)", records, err)
	}
	r := records[1]
	correct := 20 * (r.Splits["env0_in_acc"] + r.Splits["env1_in_acc"] + r.Splits["env2_in_acc"])
	if math.Abs(correct-float64(r.CoverageSamples)) > 1e-9 || !(r.Loss > 0) || (r.Coverage > 0) != (correct > 0) {
		t.Errorf("%v images are right, %d were counted: coverage %v, loss %v", correct, r.CoverageSamples, r.Coverage, r.Loss)
	}
}

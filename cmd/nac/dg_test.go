package main

import (
	"path/filepath"
	"strings"
	"testing"

	"nac/dg"
)

func TestDGTrain(t *testing.T) {
	data, out := t.TempDir(), filepath.Join(t.TempDir(), "run")
	for _, domain := range []string{"day", "dusk", "night"} {
		photographs(t, filepath.Join(data, domain), 36, 6, "blue", "green")
	}
	args := []string{"dg", "train", "--dataset", "folder", "--data", data, "--test-domain", "dusk", "--arch", "resnet20",
		"--hparam", "batch_size=4", "--hparam", "lr=0.001", "--hparam", "freeze_bn=false", "--steps", "4", "--checkpoint-freq", "2", "--out", out}
	code, stdout, stderr := call(t, args...)
	if code != exitOK || !strings.Contains(stdout, "coverage_rc") || !strings.Contains(stderr, "step 4: loss") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	records, err := dg.ReadRecords(filepath.Join(out, dg.ResultsFile))
	if err != nil || len(records) != 3 || len(records[0].Splits) != 6 || records[0].Config.Coverage.Layer != "avgpool" {
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

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nac/dg"
)

// The ranking of a run's checkpoints, on the run's own training images, is that of the
// coverages which the run recorded.
func TestSelect(t *testing.T) {
	data, out := t.TempDir(), filepath.Join(t.TempDir(), "run")
	for _, domain := range []string{"day", "night"} {
		photographs(t, filepath.Join(data, domain), 32, 10, "blue", "green")
	}
	code, stdout, stderr := call(t, "dg", "train", "--dataset", "folder", "--data", data, "--test-domain", "night", "--arch", "resnet20", "--holdout", "0.05",
		"--hparam", "batch_size=4", "--hparam", "lr=0.01", "--hparam", "freeze_bn=false", "--steps", "4", "--checkpoint-freq", "2", "--keep", "all", "--out", out)
	if code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	records, err := dg.ReadRecords(filepath.Join(out, dg.ResultsFile))
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records (%v)", len(records), err)
	}
	// The images held out were not counted.
	_, held := dg.Split(20, 0, 0, 0.05)
	for _, i := range held {
		if err := os.Remove(filepath.Join(data, "day", []string{"blue", "green"}[i/10], fmt.Sprintf("%03d.png", i%10))); err != nil {
			t.Fatal(err)
		}
	}
	var files []string
	for _, r := range records {
		files = append(files, filepath.Join(out, r.Checkpoint))
	}
	args := append([]string{"select", "--arch", "resnet20", "--normalize", "imagenet", "--data", filepath.Join(data, "day")}, files...)
	code, stdout, stderr = call(t, args...)
	if code != exitOK || !strings.Contains(stdout, "accuracy") || strings.Count(stdout, ".safetensors") != 3 {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	for i, r := range records {
		found := false
		for line := range strings.Lines(stdout) {
			found = found || strings.Contains(line, filepath.Base(files[i])) && strings.Contains(line, fmt.Sprintf(" %.6f ", r.Coverage))
		}
		if !found {
			t.Errorf("coverage %.6f of %s is not in\n%s", r.Coverage, files[i], stdout)
		}
	}
	for _, wrong := range [][]string{
		{"select", "--data", data},
		{"select", files[0], "--arch", "resnet20"},
		{"select", files[0], "--arch", "resnet20", "--data", filepath.Join(data, "day", "blue"), "--layer", "nosuch"},
	} {
		if code, _, stderr := call(t, wrong...); code == exitOK || stderr == "" {
			t.Errorf("%v: exit code %d: %s", wrong, code, stderr)
		}
	}
	// Images without labels are all counted.
	code, stdout, _ = call(t, "select", files[2], "--arch", "resnet20", "--data", filepath.Join(data, "night", "blue"), "--quiet")
	if code != exitOK || strings.Contains(stdout, "accuracy") || !strings.Contains(stdout, " 10 ") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	// Several domains are counted together.
	code, stdout, stderr = call(t, "select", files[2], "--arch", "resnet20", "--data", filepath.Join(data, "night", "blue"), "--data", filepath.Join(data, "night", "green"), "--quiet")
	if code != exitOK || !strings.Contains(stdout, " 20 ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, _, stderr = call(t, "select", files[2], "--arch", "resnet20", "--data", filepath.Join(data, "night"), "--data", data)
	if code != exitFailure || !strings.Contains(stderr, "blue, green") || !strings.Contains(stderr, "day, night") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	// A bin that needs more images is covered less.
	code, more, _ := call(t, "select", files[2], "--arch", "resnet20", "--data", filepath.Join(data, "night", "blue"), "--quiet", "--O", "1")
	if code != exitOK || more == stdout {
		t.Errorf("exit code %d: %s", code, more)
	}
	if code, _, stderr := call(t, "select", files[2], "--arch", "resnet20", "--data", data, "--M", "1"); code != exitUsage || !strings.Contains(stderr, "M = 1") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

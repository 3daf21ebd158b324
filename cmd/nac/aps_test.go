package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A setting that the search chooses cannot be given beside it: the value given would
// silently be replaced. Others can.
func TestAPSAndSet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte("params: {knn.K: 7, opengan.seed: 3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const inSet, inFile = " itself: leave it out of --set", " itself: leave it out of the params of "
	for _, c := range []struct {
		args []string
		says string // empty: the flags agree
	}{
		{[]string{"--detectors", "knn", "--aps", "--set", "knn.K=7"}, "--aps chooses knn.K" + inSet},
		{[]string{"--detectors", "nac,msp,knn", "--aps", "--set", "opengan.seed=1, knn.K = 7"}, "--aps chooses knn.K" + inSet},
		{[]string{"--detectors", "ash,odin", "--aps", "--set", "odin.noise=0.1"}, "--aps chooses odin.noise" + inSet},
		{[]string{"--detectors", "knn,opengan", "--aps", "--settings", file}, "--aps chooses knn.K" + inFile + file},
		{[]string{"--detectors", "knn,opengan", "--settings", file}, ""},
		{[]string{"--detectors", "knn", "--set", "knn.K=7"}, ""},
		// Settings that are not searched, of a detector with and without others that are.
		{[]string{"--detectors", "knn,opengan", "--aps", "--set", "opengan.seed=1"}, ""},
		{[]string{"--detectors", "adascale_a", "--aps", "--set", "adascale_a.k1=4"}, ""},
		// One value is no search, and what runs as a part of a fusion is not searched.
		{[]string{"--detectors", "knn,mds_ensemble", "--aps", "--set", "mds_ensemble.noise=0.1"}, ""},
		{[]string{"--detectors", "ash,nac_fusion", "--aps", "--set", "vim.dim=3"}, ""},
	} {
		// A checkpoint that does not exist ends the run behind the check of flags.
		checkpoint := filepath.Join(t.TempDir(), "absent.pth")
		args := append([]string{"bench", "cifar10", "--checkpoint", checkpoint, "--data", t.TempDir()}, c.args...)
		code, stdout, stderr := call(t, args...)
		says, exit := c.says, exitUsage
		if says == "" {
			says, exit = checkpoint, code
		}
		if code == exitOK || code != exit || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d, %q, want one that says %q", c.args, code, stderr, says)
		}
	}
}

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"nac/quickstart"
)

// A shard whose process is killed in the middle of it ends, called again, in the bytes of
// one that was not.
func TestKilledShard(t *testing.T) {
	o := ownData(t)
	dir := t.TempDir()
	detector := filepath.Join(dir, "a.nac")
	o.fit(t, detector, "--id", o.part(t, "main_train_fashion", 0, 60), "--detector", "nac", "--fpr", "0.1")
	list := o.part(t, "test_fashion", 0, 900)
	score := func(out string) []string {
		return []string{"score", detector, list, "--root", o.images, "--shard", "1/2", "--out", out, "--quiet"}
	}
	fit := func(out string) []string {
		return []string{"fit", "--model", o.model, "--arch", quickstart.Arch, "--root", o.images, "--id", list, "--quiet",
			"--mean", "0.2752,0.2752,0.2752", "--std", "0.3336,0.3336,0.3336", "--shard", "1/2", "-o", out}
	}
	kill := func(args []string, begun string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(program(t), "nac"), args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			if _, err := os.Stat(begun); err == nil {
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("%v ended before it was killed: %v", args, err)
			case <-time.After(time.Millisecond):
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
	}

	whole, killed := filepath.Join(dir, "whole.shard"), filepath.Join(dir, "killed.shard")
	ok(t, score(whole)...)
	kill(score(killed), killed+".partial")
	if _, err := os.Stat(killed); err == nil {
		t.Error("a shard that was killed is there")
	}
	ok(t, score(killed)...)
	if !bytes.Equal(read(t, whole), read(t, killed)) {
		t.Error("the shard of scores is another")
	}

	wholeFit, killedFit := filepath.Join(dir, "whole"), filepath.Join(dir, "killed")
	ok(t, fit(wholeFit)...)
	kill(fit(killedFit), filepath.Join(killedFit, "fit.json"))
	if _, err := os.Stat(filepath.Join(killedFit, "states", "calibration", "set.json")); err == nil {
		t.Error("a fit that was killed is whole")
	}
	ok(t, fit(killedFit)...)
	sameFiles(t, killedFit, wholeFit)
}

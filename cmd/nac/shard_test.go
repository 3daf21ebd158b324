package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"nac/quickstart"
)

// Shards of scores, done in any order, twice, or after an interruption, merge to the bytes
// of one run in every format, bad images included.
func TestScoreShards(t *testing.T) {
	o := ownData(t)
	dir := t.TempDir()
	detector := filepath.Join(dir, "a.nac")
	o.fit(t, detector, "--id", o.part(t, "main_train_fashion", 0, 60), "--detector", "msp", "--fpr", "0.1")
	list := o.part(t, "test_fashion", 0, 70)
	if err := os.WriteFile(list, append(read(t, list), "absent.png 3\n"...), 0o666); err != nil {
		t.Fatal(err)
	}
	shardArgs := func(i, n int, out string) []string {
		return []string{"score", detector, list, "--root", o.images, "--shard", fmt.Sprintf("%d/%d", i, n), "--out", out}
	}
	var shards []string
	for _, i := range []int{2, 0, 1} {
		out := filepath.Join(dir, fmt.Sprintf("%d.shard", i))
		ok(t, shardArgs(i, 3, out)...)
		shards = append(shards, out)
	}
	first := read(t, shards[0])
	ok(t, shardArgs(2, 3, shards[0])...)
	if !bytes.Equal(read(t, shards[0]), first) {
		t.Error("done twice, a shard is another")
	}
	for _, ending := range []string{"csv", "jsonl", "parquet", "txt"} {
		one, sum := filepath.Join(dir, "one."+ending), filepath.Join(dir, "sum."+ending)
		if code, _, stderr := call(t, "score", detector, list, "--root", o.images, "--out", one); code != exitPartial {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		code, _, stderr := call(t, append([]string{"merge", "-o", sum}, shards...)...)
		if code != exitPartial || !strings.Contains(stderr, "1 of 71 images could not be scored") {
			t.Errorf("merge: exit code %d: %s", code, stderr)
		}
		if !bytes.Equal(read(t, one), read(t, sum)) {
			t.Errorf("%s: other bytes than those of one run", ending)
		}
	}

	sum := filepath.Join(dir, "refused.csv")
	refused := func(what, says string, files ...string) {
		t.Helper()
		code, _, stderr := call(t, append([]string{"merge", "-o", sum}, files...)...)
		if code == exitOK || code == exitPartial || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d, %q does not say %q", what, code, stderr, says)
		}
		if _, err := os.Stat(sum); err == nil {
			t.Errorf("%s: there is a result", what)
		}
	}
	refused("a missing shard", "1 of 3 shards missing: 0/3", shards[0], shards[2])
	refused("a shard twice", "both shard 2/3", shards[0], shards[0], shards[1], shards[2])
	refused("another kind of file", "no shard of scores", shards[0], list)
	whole := read(t, shards[1])
	lines := bytes.Count(whole, []byte("\n"))
	at := 0
	for i := range lines { // cut after each line, and in the middle of it
		next := at + bytes.IndexByte(whole[at:], '\n') + 1
		for _, n := range []int{at, (at + next) / 2} {
			if err := os.WriteFile(shards[1], whole[:n], 0o666); err != nil {
				t.Fatal(err)
			}
			refused(fmt.Sprintf("cut in line %d", i), filepath.Base(shards[1]), shards...)
		}
		at = next
	}
	bad := bytes.Replace(whole, []byte(`"score":`), []byte(`"score":1`), 1)
	if err := os.WriteFile(shards[1], bad, 0o666); err != nil {
		t.Fatal(err)
	}
	refused("a changed score", "damaged", shards...)
	if err := os.WriteFile(shards[1], whole, 0o666); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.shard")
	ok(t, append(shardArgs(0, 3, other), "--fpr", "0.2")...)
	refused("another rate", "another false-alarm rate: 0.1 against 0.2", shards[0], other, shards[2])
	another := filepath.Join(dir, "b.nac")
	o.fit(t, another, "--id", o.part(t, "main_train_fashion", 1, 61), "--detector", "msp", "--fpr", "0.1")
	again := shardArgs(0, 3, filepath.Join(dir, "another.shard"))
	again[1] = another
	ok(t, again...)
	refused("another detector", "another detector", shards[0], again[len(again)-1], shards[2])
	if code, _, stderr := call(t, shardArgs(1, 3, shards[0])...); code == exitOK || !strings.Contains(stderr, "not overwritten") {
		t.Errorf("shard 1 in the file of shard 2: exit code %d, %s", code, stderr)
	}
}

// States and a fit in shards through the program.
func TestStatesAndFitShards(t *testing.T) {
	o := ownData(t)
	dir := t.TempDir()
	list := o.part(t, "main_train_fashion", 0, 90)
	states := func(out string, more ...string) {
		ok(t, append([]string{"states", list, "--arch", quickstart.Arch, "--checkpoint", o.model, "--data", o.images,
			"--mean", "0.2752,0.2752,0.2752", "--std", "0.3336,0.3336,0.3336", "--cache", out, "--quiet"}, more...)...)
	}
	one, sum := filepath.Join(dir, "one.states"), filepath.Join(dir, "sum.states")
	states(one)
	parts := []string{filepath.Join(dir, "0"), filepath.Join(dir, "1")}
	for i, part := range parts {
		states(part, "--shard", fmt.Sprintf("%d/2", i))
	}
	ok(t, "merge", parts[1], parts[0], "-o", sum)
	sameFiles(t, sum, one)
	if code, _, stderr := call(t, "merge", parts[0], "-o", filepath.Join(dir, "x")); code == exitOK || !strings.Contains(stderr, "shards missing: 1/2") {
		t.Errorf("a missing shard: %s", stderr)
	}

	whole, merged := filepath.Join(dir, "one.nac"), filepath.Join(dir, "sum.nac")
	o.fit(t, whole, "--id", list, "--fpr", "0.1")
	parts = []string{filepath.Join(dir, "f0"), filepath.Join(dir, "f1")}
	for i, part := range parts {
		o.fit(t, part, "--id", list, "--fpr", "0.1", "--shard", fmt.Sprintf("%d/2", i))
	}
	ok(t, "merge", parts[1], parts[0], "-o", merged)
	if !bytes.Equal(read(t, merged), read(t, whole)) {
		t.Error("the detector is another than that of one run")
	}
}

// program makes "nac" a command that runs this test's binary as the program.
func program(t *testing.T) (path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nNAC_TEST_AS_PROGRAM=1 exec %q \"$@\"\n", exe)
	if err := os.WriteFile(filepath.Join(dir, "nac"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The Slurm script and the Kubernetes manifest of docs/scale do what their schedulers would
// have them do: a process for each number, all at once, with the variables that those set.
func TestSchedulers(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash")
	}
	o := ownData(t)
	dir := t.TempDir()
	path := "PATH=" + program(t) + string(os.PathListSeparator) + os.Getenv("PATH")
	all := func(n int, command func(i int) *exec.Cmd) {
		t.Helper()
		var running []*exec.Cmd
		for i := range n {
			cmd := command(i)
			cmd.Dir = dir
			cmd.Stderr = &bytes.Buffer{}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			running = append(running, cmd)
		}
		for i, cmd := range running {
			if err := cmd.Wait(); err != nil {
				t.Fatalf("process %d: %v: %s", i, err, cmd.Stderr)
			}
		}
	}

	script, err := filepath.Abs("../../docs/scale/slurm-array.sh")
	if err != nil {
		t.Fatal(err)
	}
	list := o.part(t, "main_train_fashion", 0, 60)
	normalize := []string{"--mean", "0.2752,0.2752,0.2752", "--std", "0.3336,0.3336,0.3336"}
	flags := append([]string{"--arch", quickstart.Arch, "--root", o.images, "--detector", "msp", "--fpr", "0.1"}, normalize...)
	all(2, func(i int) *exec.Cmd {
		cmd := exec.Command("bash", script)
		cmd.Env = append(os.Environ(), path, "MODEL="+o.model, "IMAGES="+list, "FLAGS="+strings.Join(flags, " "),
			fmt.Sprintf("SLURM_ARRAY_TASK_ID=%d", i), "SLURM_ARRAY_TASK_COUNT=2")
		return cmd
	})
	merged, whole := filepath.Join(dir, "detector.nac"), filepath.Join(dir, "whole.nac")
	ok(t, "merge", filepath.Join(dir, "shards", "0"), filepath.Join(dir, "shards", "1"), "-o", merged)
	o.fit(t, whole, "--id", list, "--detector", "msp", "--fpr", "0.1")
	if !bytes.Equal(read(t, merged), read(t, whole)) {
		t.Error("the detector of the array is another than that of one run")
	}

	var job struct {
		Spec struct {
			CompletionMode string `yaml:"completionMode"`
			Completions    int    `yaml:"completions"`
			Template       struct {
				Spec struct {
					Containers []struct {
						Command, Args []string
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(read(t, "../../docs/scale/kubernetes-job.yaml"), &job); err != nil {
		t.Fatal(err)
	}
	container := job.Spec.Template.Spec.Containers[0]
	if job.Spec.CompletionMode != "Indexed" || container.Command[0] != "nac" {
		t.Fatalf("%+v", job)
	}
	if err := os.Mkdir(filepath.Join(dir, "scores"), 0o777); err != nil {
		t.Fatal(err)
	}
	some := o.part(t, "test_fashion", 0, 40)
	places := strings.NewReplacer("/data/images.txt", some, "/data/images", o.images, "/data/", dir+"/")
	var shards []string
	all(job.Spec.Completions, func(i int) *exec.Cmd {
		var args []string
		for _, a := range container.Args {
			args = append(args, places.Replace(strings.ReplaceAll(a, "$(JOB_COMPLETION_INDEX)", fmt.Sprint(i))))
		}
		shards = append(shards, filepath.Join(dir, "scores", fmt.Sprintf("%d.shard", i)))
		cmd := exec.Command("nac", args...)
		cmd.Path = filepath.Join(strings.SplitN(strings.TrimPrefix(path, "PATH="), string(os.PathListSeparator), 2)[0], "nac")
		cmd.Err = nil
		return cmd
	})
	one, sum := filepath.Join(dir, "one.csv"), filepath.Join(dir, "sum.csv")
	ok(t, "score", merged, some, "--root", o.images, "--out", one)
	ok(t, append([]string{"merge", "-o", sum}, shards...)...)
	if !bytes.Equal(read(t, one), read(t, sum)) {
		t.Error("the scores of the job are others than those of one run")
	}
}

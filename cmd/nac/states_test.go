package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nac/internal/kernel"
)

// filesIn returns the contents of all files below dir.
func filesIn(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	m := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		m[rel] = data
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return m
}

// sameFiles compares all files below two folders.
func sameFiles(t *testing.T, got, want string) {
	t.Helper()
	a, b := filesIn(t, got), filesIn(t, want)
	if len(a) != len(b) || len(b) == 0 {
		t.Errorf("%d files, want %d", len(a), len(b))
	}
	for name, data := range b {
		if !bytes.Equal(a[name], data) {
			t.Errorf("%s is another", name)
		}
	}
}

func (k kept) args(command string, args ...string) []string {
	return append([]string{command, "fashion", "--arch", "resnet20", "--checkpoint", k.checkpoint, "--data", k.dir}, args...)
}

// A benchmark read from a cache, wholly or in part, gives the bytes of one that was not.
func TestCachedBench(t *testing.T) {
	k := keep(t)
	direct := filepath.Join(t.TempDir(), "direct")
	if code, _, stderr := k.bench(t, "--out", direct); code != exitOK || strings.Contains(stderr, "cache:") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	same := func(out string) {
		t.Helper()
		sameFiles(t, filepath.Join(out, "scores"), filepath.Join(direct, "scores"))
		if a, b := readReport(t, out), readReport(t, direct); fmt.Sprint(a.Methods[0].Near, a.Accuracy, *a.Methods[0].Overfit) != fmt.Sprint(b.Methods[0].Near, b.Accuracy, *b.Methods[0].Overfit) {
			t.Errorf("another table: %+v, want %+v", a.Methods[0], b.Methods[0])
		}
	}
	run := func(says string, args ...string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		code, _, stderr := k.bench(t, append(args, "--out", out)...)
		if code != exitOK || !strings.Contains(stderr, says) {
			t.Fatalf("exit code %d: %q does not say %q", code, stderr, says)
		}
		same(out)
	}
	// Some sets in the automatic place first, then all.
	if code, stdout, stderr := call(t, k.args("states", "--sets", "train,val,bag", "--batch", "5")...); code != exitOK || !strings.Contains(stdout, "bag") || !strings.Contains(stderr, "estimate: ") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	run("states of train, val, bag are read from")
	if code, stdout, stderr := call(t, k.args("states")...); code != exitOK || !strings.Contains(stdout, "ankle_boot") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	run("states of train, sub_train, val, val_ood, test, bag, ankle_boot, mnist are read from")
	run("", "--cache", "off")
	out := filepath.Join(t.TempDir(), "out")
	if code, _, stderr := k.bench(t, "--layers", "layer3", "--detectors", "nac", "--out", out); code != exitOK || !strings.Contains(stderr, "are read from") {
		t.Errorf("fewer layers: exit code %d: %s", code, stderr)
	}
	if r := readReport(t, out); r.Cache == "" || !r.Stages[0].Cached {
		t.Errorf("the report does not say that a cache was used: %+v", r.Stages)
	}
	// The cache and its folder are named on request.
	dirs, err := filepath.Glob(filepath.Join(k.dir, "nac-states", "fashion-resnet20-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	code, stdout, _ := call(t, "states", dirs[0], "--verify", "--quiet")
	if code != exitOK || !strings.Contains(stdout, "Verified") || !strings.Contains(stdout, "avgpool (64)") {
		t.Errorf("exit code %d: %s", code, stdout)
	}

	// What does not match is refused with the reason: by name an error, by itself a note.
	refused := func(says string, args ...string) {
		t.Helper()
		code, stdout, stderr := k.bench(t, append(args, "--cache", dirs[0])...)
		if code != exitFailure || stdout != "" || !strings.Contains(stderr, says) || !strings.Contains(stderr, "--cache off") {
			t.Errorf("exit code %d: %q does not say %q", code, stderr, says)
		}
		code, _, stderr = k.bench(t, append(args, "--detectors", "msp")...)
		if says == "another list" {
			if code != exitOK || !strings.Contains(stderr, "cache: test is not read from") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		} else if code != exitOK || strings.Contains(stderr, "are read from") {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	refused("transformed otherwise", "--normalize", "imagenet")
	if kernel.Best().Name() != "portable" {
		refused("computed with", "--kernel", "portable")
	}
	if code, _, stderr := k.bench(t, "--layers", "conv1", "--cache", dirs[0]); code == exitOK {
		t.Errorf("a layer that the cache lacks: %s", stderr)
	}
	data, err := os.ReadFile(k.list("test_fashion"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	lines[0], lines[1] = lines[1], lines[0]
	writeFile(t, k.list("test_fashion"), []byte(strings.Join(lines, "")))
	refused("another list")
	writeFile(t, k.list("test_fashion"), data)

	// Damage is found where it is read.
	shard := filepath.Join(dirs[0], "val", "00000.safetensors")
	whole, err := os.ReadFile(shard)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	bad[len(bad)-3] ^= 4
	writeFile(t, shard, bad)
	if code, stdout, stderr := k.bench(t); code != exitFailure || stdout != "" || !strings.Contains(stderr, shard) || !strings.Contains(stderr, "damaged") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr := call(t, "states", dirs[0], "--verify"); code != exitFailure || !strings.Contains(stderr, shard) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// Images that cannot be read are left out of a cache, and told of, as they are without.
func TestCachedSkips(t *testing.T) {
	k := keep(t)
	for i, list := range []string{"test_bag", "test_bag", "main_train_fashion", "val_fashion"} {
		data, err := os.ReadFile(k.list(list))
		if err != nil {
			t.Fatal(err)
		}
		image := strings.Fields(strings.Split(string(data), "\n")[3*i])[0]
		writeFile(t, filepath.Join(k.dir, "images_classic", filepath.FromSlash(image)), []byte("no picture"))
	}
	direct, cached := filepath.Join(t.TempDir(), "direct"), filepath.Join(t.TempDir(), "cached")
	if code, _, stderr := k.bench(t, "--on-error", "skip", "--out", direct); code != exitOK {
		t.Fatal(stderr)
	}
	if code, _, stderr := call(t, k.args("states", "--on-error", "skip", "--batch", "3")...); code != exitOK {
		t.Fatal(stderr)
	}
	code, stdout, stderr := k.bench(t, "--on-error", "skip", "--out", cached)
	if code != exitOK || !strings.Contains(stdout, "4 images were skipped") || !strings.Contains(stderr, "val, val_ood, test, bag") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	sameFiles(t, filepath.Join(cached, "scores"), filepath.Join(direct, "scores"))
	if a, b := readReport(t, cached), readReport(t, direct); fmt.Sprint(a.Skipped) != fmt.Sprint(b.Skipped) || a.TrainImages != 32 {
		t.Errorf("skipped %v, want %v; fitted on %d", a.Skipped, b.Skipped, a.TrainImages)
	}
}

// Folders and lists go into a cache of one's own, and "nac search" reads it alone.
func TestStatesOfFolders(t *testing.T) {
	k := keep(t)
	cache := filepath.Join(t.TempDir(), "states")
	net := []string{"--arch", "resnet20", "--checkpoint", k.checkpoint, "--mean", "0.286,0.286,0.286", "--std", "0.353,0.353,0.353", "--cache", cache, "--quiet"}
	for name, list := range map[string]string{"train": "main_train_fashion", "sub_train": "sub_train_fashion", "val": "val_fashion", "val_ood": "val_heldout"} {
		args := append([]string{"states", k.list(list), "--data", filepath.Join(k.dir, "images_classic"), "--name", name}, net...)
		if code, stdout, stderr := call(t, args...); code != exitOK || stderr != "" || !strings.Contains(stdout, name) {
			t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
		}
	}
	code, stdout, stderr := call(t, "search", cache, "--method", "coordinate", "--layers", "avgpool,layer3", "--subsets")
	if code != exitOK || !strings.Contains(stdout, "The best, for --settings") || !strings.Contains(stdout, "one layer at a time") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	// A flat folder.
	flat := t.TempDir()
	for i, path := range imagesBelow(t, k.dir)[:5] {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(flat, fmt.Sprintf("%d%s", i, filepath.Ext(path))), data)
	}
	args := append([]string{"states", flat, "--name", "mine", "--group", "test"}, net...)
	if code, stdout, stderr := call(t, args...); code != exitOK || !strings.Contains(stdout, "mine") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	// A set of that name of other images.
	if err := os.Remove(filepath.Join(flat, "0.png")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := call(t, args...); code != exitFailure || !strings.Contains(stderr, "4 images") && !strings.Contains(stderr, "5 images") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	// One broken image.
	writeFile(t, filepath.Join(flat, "1.png"), []byte("no picture"))
	args = append([]string{"states", flat, "--name", "broken"}, net...)
	if code, _, stderr := call(t, args...); code != exitFailure || !strings.Contains(stderr, "1.png") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr := call(t, append(args, "--on-error", "skip")...); code != exitOK || !strings.Contains(stdout, "broken") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	for _, c := range []struct{ args, says string }{
		{"states nosuch", "nosuch"},
		{"states " + flat, "--cache"},
		{"states " + flat + " --cache " + cache, "--arch"},
		{"states " + flat + " --arch resnet20 --checkpoint " + k.checkpoint, "--cache"},
		{"states " + flat + " --verify", "none"},
		{"states " + cache + " more", "one benchmark"},
		{"search " + flat, "nac states"},
		{"search " + cache + " --space nosuch", "neither a file nor one of cifar10"},
		{"search " + cache + " --layers layer9", "layer9"},
		{"search " + cache + " --weights 0,1", "weight 0"},
		{"search " + cache + " --method luck", "luck"},
		{"search " + cache + " --space imagenet-vit-b-16", "layer_norm"},
		{"search fashion --arch resnet20 --checkpoint " + k.checkpoint, "--data"},
		{"bench fashion --arch resnet20 --checkpoint c --data d --space cifar10", "--aps"},
		{"bench fashion --arch resnet20 --checkpoint c --data d --aps --M 50", "--M"},
		{"bench fashion --arch resnet20 --checkpoint c --data d --aps --detectors msp", "nac and adascale_a, adascale_l, ash, "},
		{"bench fashion --arch resnet20 --checkpoint c --data d --aps --detectors knn --space cifar10", "--space"},
		{"bench fashion --arch resnet20 --checkpoint c --data d --sort luck", "--sort"},
		{"bench fashion --arch resnet20 --checkpoint " + k.checkpoint + " --data " + k.dir + " --cache " + flat, "nac states"},
	} {
		code, stdout, stderr := call(t, strings.Fields(c.args)...)
		if code == exitOK || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("nac %s: exit code %d, %q does not say %q", c.args, code, stderr, c.says)
		}
	}
}

func imagesBelow(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".png" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// bench --aps is bench with the settings that search finds.
func TestAPS(t *testing.T) {
	k := keep(t)
	dir := t.TempDir()
	space := filepath.Join(dir, "space.yaml")
	writeFile(t, space, []byte("layers:\n  - {layer: avgpool, O: [1, 3], M: 50, alpha: [3, 30]}\n  - {layer: layer3, O: [1, 2], M: [20, 50], alpha: 0.05, optional: true}\n"))
	found := filepath.Join(dir, "found")
	code, stdout, stderr := call(t, k.args("search", "--space", space, "--out", found)...)
	if code != exitOK || !strings.Contains(stdout, "All 20 combinations") || !strings.Contains(stderr, "train ") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if page, err := os.ReadFile(filepath.Join(found, "report.html")); err != nil || !strings.Contains(string(page), `<section id="search">`) || !strings.Contains(string(page), "OOD validation images") {
		t.Errorf("no report of the search: %v", err)
	}
	if rows := readCSV(t, filepath.Join(found, "search.csv")); len(rows) != 21 || len(rows[0]) != 15 {
		t.Errorf("search.csv has %d lines", len(rows))
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if code, _, stderr := k.bench(t, "--settings", filepath.Join(found, "settings.yaml"), "--cache", "off", "--out", a); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	code, stdout, stderr = k.bench(t, "--aps", "--space", space, "--out", b)
	if code != exitOK || !strings.Contains(stdout, "chosen by validation images") || !strings.Contains(stderr, "are read from") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	sameFiles(t, filepath.Join(b, "scores"), filepath.Join(a, "scores"))
	// Without a cache too, and then nothing is left behind.
	if err := os.RemoveAll(filepath.Join(k.dir, "nac-states")); err != nil {
		t.Fatal(err)
	}
	c := filepath.Join(dir, "c")
	if code, _, stderr := k.bench(t, "--aps", "--space", space, "--cache", "off", "--out", c); code != exitOK || strings.Contains(stderr, "are read from") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	sameFiles(t, filepath.Join(c, "scores"), filepath.Join(a, "scores"))
	// Of detectors other than nac.
	code, stdout, stderr = k.bench(t, "--aps", "--cache", "off", "--detectors", "react,msp,scale")
	if code != exitOK || !strings.Contains(stdout, "react: percentile ") || !strings.Contains(stdout, "4 of 4 settings can be used") ||
		strings.Contains(stdout, "msp: by") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(k.dir, "nac-states")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("--cache off leaves a cache: %v", err)
	}
	if err := os.Remove(k.list("val_heldout")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := call(t, k.args("search")...); code != exitFailure || !strings.Contains(stderr, "val_heldout.txt") {
		t.Errorf("without OOD validation images: exit code %d, %s", code, stderr)
	}
}

// A run that is killed at any point is taken up and ends in the bytes of one that was
// not.
func TestStatesKilled(t *testing.T) {
	bin := build(t)
	k := keep(t)
	start := func(cache string) *exec.Cmd {
		cmd := exec.Command(bin, k.args("states", "--cache", cache, "--quiet", "--batch", "4")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	want := filepath.Join(t.TempDir(), "whole")
	if err := start(want).Wait(); err != nil {
		t.Fatal(err)
	}
	got := filepath.Join(t.TempDir(), "killed")
	kills, seen := 0, map[int]bool{}
	// From the first moments on, and longer as time goes on, so that there is an end.
	for life := 10 * time.Millisecond; ; life += life / 3 {
		cmd := start(got)
		timer := time.AfterFunc(life, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			break
		}
		if cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("the run after %d kills fails: %v", kills, err)
		}
		kills++
		seen[len(filesIn(t, got))] = true
	}
	t.Logf("killed %d times with %d different numbers of files", kills, len(seen))
	if kills < 2 {
		t.Errorf("killed %d times", kills)
	}
	sameFiles(t, got, want)
}

package states

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The process that is killed is this test binary with the variable set.
const writerDir = "NAC_TEST_STATES_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := writeSlowly(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var killed = struct {
	sets    []string
	images  int
	options Options
	skipped []int
}{[]string{"train", "val"}, 203, Options{7}, []int{0, 50, 51, 202}}

func writeSlowly(dir string) error {
	c, err := Create(dir, made)
	if err != nil {
		return err
	}
	for _, set := range killed.sets {
		if err := write(c, toyList(set, killed.images), killed.options, 5, killed.skipped...); err != nil {
			return err
		}
	}
	return c.Close()
}

func files(t *testing.T, dir string) map[string][]byte {
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
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// However often a run is killed, it ends in the bytes of one that was not.
func TestKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(dir string, life time.Duration) bool {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), writerDir+"="+dir)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if life > 0 {
			time.AfterFunc(life, func() { cmd.Process.Kill() })
		}
		if err := cmd.Wait(); err != nil && errs.Len() > 0 {
			t.Fatalf("%v: %s", err, &errs)
		}
		return cmd.ProcessState.Success()
	}
	whole := t.TempDir()
	begin := time.Now()
	if !run(whole, 0) {
		t.Fatal("the run failed")
	}
	took := time.Since(begin)
	want := files(t, whole)

	dir := t.TempDir()
	kills, states := 0, map[int]bool{}
	// Lives are long and short, and longer as time goes on, so that there is an end.
	for !run(dir, took/60*time.Duration(1+kills%17)+took/200*time.Duration(kills)) {
		kills++
		states[len(files(t, dir))] = true
		if kills > 400 {
			t.Fatal("no end of it")
		}
	}
	t.Logf("a run takes %v; killed %d times, with %d different numbers of files left", took, kills, len(states))
	if kills < 3 || len(states) < 3 {
		t.Errorf("killed only %d times in %d states", kills, len(states))
	}
	got := files(t, dir)
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	for name, data := range want {
		if !bytes.Equal(got[name], data) {
			t.Errorf("%s is another", name)
		}
	}
}

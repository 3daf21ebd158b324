//go:build unix

package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The process that is killed, or whose disk is full, is this test binary with one of
// the variables set.
const (
	killedDir = "NAC_TEST_TRAIN_KILLED"
	fullDir   = "NAC_TEST_TRAIN_FULL"
)

func TestMain(m *testing.M) {
	run := func(t *Task) {
		// One that is killed when all is written has nothing left to do.
		if _, err := t.Run(context.Background()); err != nil && !errors.Is(err, ErrDone) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(killedDir); dir != "" {
		t := task(dir)
		t.Resume, t.SaveEvery = true, 1
		run(t)
	}
	if dir := os.Getenv(fullDir); dir != "" {
		t := task(dir)
		t.Progress = fullAfter{1}
		run(t)
	}
	os.Exit(m.Run())
}

// fullAfter makes every write fail from the end of an epoch on, as a full disk does.
type fullAfter struct{ epoch int }

func (f fullAfter) Step(int, int, float64, float64) {}

func (f fullAfter) Epoch(r Row) {
	if r.Epoch == f.epoch {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1000, Max: 1000}); err != nil {
			panic(err)
		}
	}
}

func child(t *testing.T, variable string, life time.Duration) (ended bool, stderr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), variable)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if life > 0 {
		time.AfterFunc(life, func() { cmd.Process.Kill() })
	}
	_ = cmd.Wait()
	return cmd.ProcessState.Success(), errs.String()
}

// However often a run is killed, while it saves after every step, it ends in the bits
// of one that was not.
func TestKilled(t *testing.T) {
	whole := t.TempDir()
	if _, err := task(whole).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	dir, kills := t.TempDir(), 0
	// Lives become longer, so that there is an end.
	for life := 10 * time.Millisecond; ; life += life / 8 {
		ok, says := child(t, killedDir+"="+dir, life)
		if ok {
			break
		}
		if says != "" {
			t.Fatalf("after %d kills: %s", kills, says)
		}
		kills++
	}
	t.Logf("killed %d times", kills)
	if kills < 2 {
		t.Errorf("killed only %d times", kills)
	}
	want := contents(t, whole)
	for name, data := range contents(t, dir) {
		if !bytes.Equal(data, want[name]) {
			t.Errorf("%s is another after %d kills", name, kills)
		}
	}
}

// A disk that fills up stops the run, which names the file; what was saved is whole
// and can be gone on with.
func TestFullDisk(t *testing.T) {
	whole, dir := t.TempDir(), t.TempDir()
	if _, err := task(whole).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	ok, says := child(t, fullDir+"="+dir, 0)
	if ok || !strings.Contains(says, dir) || !strings.Contains(says, "file too large") {
		t.Errorf("ended well: %v, says %q", ok, says)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
	again := task(dir)
	again.Resume = true
	if _, err := again.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := contents(t, whole)
	for name, data := range contents(t, dir) {
		if !bytes.Equal(data, want[name]) {
			t.Errorf("%s is another", name)
		}
	}
}

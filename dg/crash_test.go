//go:build unix

package dg

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"nac/train"
)

// The process that is killed, or whose disk is full, is this test binary with one of
// the variables set.
const (
	killedDir = "NAC_TEST_DG_KILLED"
	fullDir   = "NAC_TEST_DG_FULL"
)

func TestMain(m *testing.M) {
	run := func(r *Run) {
		if _, err := r.Do(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(killedDir); dir != "" {
		r := swadRun(dir, "DANN")
		r.SaveEvery = 1
		run(r)
	}
	if dir := os.Getenv(fullDir); dir != "" {
		r := swadRun(dir, "DANN")
		r.Progress = fullAfter{3}
		run(r)
	}
	os.Exit(m.Run())
}

// fullAfter makes every write fail from a checkpoint on, as a full disk does.
type fullAfter struct{ step int }

func (f fullAfter) Step(int, int, float64) {}

func (f fullAfter) Checkpoint(r Record) {
	if r.Step == f.step {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1000, Max: 1000}); err != nil {
			panic(err)
		}
	}
}

func child(t *testing.T, variable, dir string, life time.Duration) (ended bool, stderr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), variable+"="+dir)
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

// compareRuns tells where two folders differ: in records, but for times, or weights.
func compareRuns(t *testing.T, got, want string) {
	t.Helper()
	records := func(dir string) []Record {
		r, err := ReadRecords(filepath.Join(dir, ResultsFile))
		if err != nil {
			t.Fatal(err)
		}
		return timeless(r)
	}
	if g, w := records(got), records(want); !reflect.DeepEqual(g, w) {
		t.Errorf("records %+v, want %+v", g, w)
	}
	for _, name := range []string{LastFile, CoverageBest, ValidBest, SWADFile} {
		w, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		if g, err := os.ReadFile(filepath.Join(got, name)); err != nil || !bytes.Equal(g, w) {
			t.Errorf("%s is another (%v)", name, err)
		}
	}
}

// However often a run is killed, while it saves after every step, it ends in the bits
// of one that was not.
func TestKilled(t *testing.T) {
	whole := t.TempDir()
	if _, err := swadRun(whole, "DANN").Do(context.Background()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if ok, says := child(t, killedDir, t.TempDir(), 0); !ok {
		t.Fatal(says)
	}
	took := time.Since(begin)
	dir, kills := t.TempDir(), 0
	for {
		// Lives become longer, so that there is an end.
		ok, says := child(t, killedDir, dir, took/4+took/16*time.Duration(kills))
		if ok {
			break
		}
		if says != "" {
			t.Fatalf("after %d kills: %s", kills, says)
		}
		kills++
	}
	if kills < 2 {
		t.Errorf("killed only %d times", kills)
	}
	compareRuns(t, dir, whole)
}

// A disk that fills up stops the run, which names the file; what was saved is whole
// and can be gone on with.
func TestFullDisk(t *testing.T) {
	whole, dir := t.TempDir(), t.TempDir()
	if _, err := swadRun(whole, "DANN").Do(context.Background()); err != nil {
		t.Fatal(err)
	}
	ok, says := child(t, fullDir, dir, 0)
	if ok || !strings.Contains(says, filepath.Join(dir, StateFile)) || !strings.Contains(says, "file too large") {
		t.Errorf("ended well: %v, says %q", ok, says)
	}
	records, err := ReadRecords(filepath.Join(dir, ResultsFile))
	if err != nil || len(records) != 2 || records[1].Step != 3 {
		t.Errorf("%d records (%v)", len(records), err)
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
	if _, err := swadRun(dir, "DANN").Do(context.Background()); err != nil {
		t.Fatal(err)
	}
	compareRuns(t, dir, whole)
}

// A second run does not write over what the first is writing.
func TestOneRunAtATime(t *testing.T) {
	dir := t.TempDir()
	release, err := train.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := swadRun(dir, "ERM").Do(context.Background()); err == nil || !strings.Contains(err.Error(), "another run is writing to "+dir) {
		t.Errorf("a second run: %v", err)
	}
}

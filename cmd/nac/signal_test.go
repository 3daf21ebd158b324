//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Ctrl-C in the middle of the work: exit code 130, one line, no file.
func TestBinary(t *testing.T) {
	bin := build(t)
	t.Run("interrupt", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		cmd := exec.Command(bin, "quickstart", "--workers", "1", "--out", out)
		pipe, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(pipe)
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "estimate: ") {
			t.Errorf("the first line is %q (%v)", line, err)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
			t.Errorf("%v, want exit code %d", err, exitInterrupted)
		}
		if !strings.HasSuffix(string(rest), "nac: interrupted\n") {
			t.Errorf("stderr ends in %q", rest)
		}
		noFiles(t, out)
	})
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"version"}, exitOK},
		{[]string{"nosuch"}, exitUsage},
		{[]string{"layers", "--arch", "resnet20", "--checkpoint", filepath.Join(t.TempDir(), "absent")}, exitFailure},
	} {
		var stderr bytes.Buffer
		cmd := exec.Command(bin, c.args...)
		cmd.Stderr = &stderr
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != c.code {
			t.Errorf("nac %s: %v, want exit code %d", strings.Join(c.args, " "), err, c.code)
		}
		if (c.code == exitOK) != (stderr.Len() == 0) {
			t.Errorf("nac %s: stderr is %q", strings.Join(c.args, " "), stderr.String())
		}
	}
}

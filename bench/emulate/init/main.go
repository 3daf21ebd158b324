//go:build linux

// Command init is the only process of the machine that run.sh emulates: it runs
// one test binary, says how it ended and switches the machine off.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("emulate:", err)
	}
	fmt.Printf("emulate: exit %d\n", code)
	powerOff()
}

// run starts /test/binary in /test/work. Its flags are the lines of /test/flags,
// its environment those of /test/env.
func run() (int, error) {
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return 1, err
		}
		// The kernel may have mounted /dev already.
		if err := syscall.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
			return 1, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	flags, err := lines("/test/flags")
	if err != nil {
		return 1, err
	}
	env, err := lines("/test/env")
	if err != nil {
		return 1, err
	}
	cmd := exec.Command("/test/binary", flags...)
	cmd.Dir = "/test/work"
	cmd.Env = append(env, "HOME=/tmp", "TMPDIR=/tmp", "PATH=/")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() > 0 {
			return exit.ExitCode(), nil
		}
		return 1, exit
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

func lines(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' }), nil
}

// powerOff restarts the machine, on which the emulator ends: the kernel is told
// to do so by a triple fault.
func powerOff() {
	time.Sleep(time.Second) // the serial line must drain first
	err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	fmt.Println("emulate: cannot switch off:", err)
}

//go:build linux

// Command init is the only process of the machine that run.sh emulates: it runs
// one test binary, says how it ended and switches the machine off.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
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
	if err := checkCPU(env); err != nil {
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

// checkCPU returns an error unless Linux offers every feature that the variable
// NAC_EMULATE_NEEDS names: tests that fell back to another instruction set in
// silence would prove nothing.
func checkCPU(env []string) error {
	info, err := lines("/proc/cpuinfo")
	if err != nil {
		return err
	}
	var has []string
	for _, l := range info {
		if key, value, _ := strings.Cut(l, ":"); strings.TrimSpace(key) == "flags" {
			has = strings.Fields(value)
		}
	}
	for _, v := range env {
		needs, ok := strings.CutPrefix(v, "NAC_EMULATE_NEEDS=")
		if !ok {
			continue
		}
		for _, f := range strings.Fields(needs) {
			if !slices.Contains(has, f) {
				return fmt.Errorf("the emulated CPU has no %s, only %v", f, has)
			}
		}
	}
	return nil
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

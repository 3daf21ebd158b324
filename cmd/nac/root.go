package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // as shells report a process that SIGINT ended
)

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "nac",
		Short: "Tell images a classifier knows from images it has never seen",
		Long: `nac tells when an image classifier is looking at something it was never trained
for. It measures how much of each neuron's in-distribution (ID) behaviour an
image covers (Neuron Activation Coverage, Liu et al., ICLR 2024) and turns that
into a score: the higher, the more in-distribution.

Begin with

  nac quickstart

which needs no data: a small network and a few thousand images are built in.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	// What fails before a command begins is a mistake in the call.
	began := false
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	root.AddCommand(
		newQuickstartCommand(), newBenchCommand(), newLayersCommand(),
		newDetectorsCommand(), newArchCommand(), newVersionCommand(),
	)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "nac: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "nac: "+oneLine(err.Error()))
	if usage := (usageError{}); !began || errors.As(err, &usage) {
		fmt.Fprintf(stderr, "See %q.\n", cmd.CommandPath()+" --help")
		return exitUsage
	}
	return exitFailure
}

// oneLine joins the lines of joined errors and of cobra's suggestions.
func oneLine(message string) string {
	lines := strings.FieldsFunc(message, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, "; ")
}

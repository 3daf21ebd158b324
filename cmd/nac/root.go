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
	exitPartial     = 3   // some images could not be scored
	exitDrift       = 4   // watch --once: the images have changed
	exitInterrupted = 130 // as shells report a process that SIGINT ended
)

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// partialError tells that the work was done but for some images.
type partialError struct{ error }

func (e partialError) Unwrap() error { return e.error }

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
		newQuickstartCommand(), newServeCommand(), newWatchCommand(), newFitCommand(), newInfoCommand(), newMergeCommand(), newScoreCommand(),
		newBenchCommand(), newVerifyCommand(), newTrainCommand(), newDGCommand(), newSelectCommand(), newStatesCommand(), newSearchCommand(),
		newSplitCommand(), newDownloadCommand(), newLayersCommand(), newDetectorsCommand(), newArchCommand(), newVersionCommand(),
	)
	root.SetOut(stdout)
	root.SetErr(stderr)

	args, remote, err := stage(ctx, args)
	defer remote.remove()
	cmd := root
	if err == nil {
		root.SetArgs(args)
		cmd, err = root.ExecuteContextC(ctx)
		if partial := (partialError{}); err == nil || errors.As(err, &partial) {
			err = errors.Join(remote.store(ctx), err)
		}
	} else {
		began = true
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "nac: interrupted")
		return exitInterrupted
	}
	message := strings.TrimPrefix(oneLine(err.Error()), "nac: ") // the package's prefix is the program's
	if usage := (usageError{}); !began || errors.As(err, &usage) {
		fmt.Fprintf(stderr, "nac: %s; see %q\n", message, cmd.CommandPath()+" --help")
		return exitUsage
	}
	fmt.Fprintln(stderr, "nac: "+message)
	if partial := (partialError{}); errors.As(err, &partial) {
		return exitPartial
	}
	if drift := (driftError{}); errors.As(err, &drift) {
		return exitDrift
	}
	return exitFailure
}

// oneLine joins the lines of joined errors and of cobra's suggestions.
func oneLine(message string) string {
	var b strings.Builder
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if s := b.String(); s != "" {
			if !strings.HasSuffix(s, "?") && !strings.HasSuffix(s, ":") {
				b.WriteByte(';')
			}
			b.WriteByte(' ')
		}
		b.WriteString(line)
	}
	return b.String()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nac/serve"
)

type watchFlags struct {
	serveFlags
	poll time.Duration
	once bool
}

func newWatchCommand() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch DETECTOR FOLDER",
		Short: "Score images that appear in a folder, and tell when they change",
		Long: `Watch scores the images that appear in a folder and below it, and tests whether
they still look like those that the detector was calibrated on. A page shows it, and
all else that nac serve answers, under --listen; out-of-distribution files are logged.

What was scored is remembered in --store: started again, watch goes on where it was.
A file is scored again when it changes, and not before it has been left alone for two
seconds. Names that begin with a dot, tar archives and links to folders are passed over.

With --once the new images are scored and nothing is served: for cron. The exit code
then is ` + fmt.Sprint(exitDrift) + ` from an alarm until a whole window of images has passed without one, else
` + fmt.Sprint(exitPartial) + ` if an image could not be scored.`,
		Example: `  nac watch detector.nac uploads/
  nac watch detector.nac uploads/ --once --log-level warn || mail -s drift me`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("want a detector and a folder")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], args[1], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	f.common(flags)
	flags.Lookup("store").Usage = "`file` that keeps what was seen (default: the detector's name with .watch)"
	flags.DurationVar(&f.poll, "poll", 5*time.Second, "`time` between looks at the folder")
	flags.BoolVar(&f.once, "once", false, "score what is new, and end")
	return cmd
}

// driftError is for an exit code of its own.
type driftError struct{ error }

func (f *watchFlags) run(ctx context.Context, detector, dir string, stdout, stderr io.Writer) error {
	if err := f.prepare(stderr); err != nil {
		return err
	}
	if f.poll <= 0 {
		return usagef("--poll is %v; it must be above 0", f.poll)
	}
	if info, err := os.Stat(dir); err != nil {
		return usageError{err}
	} else if !info.IsDir() {
		return usagef("%s is no folder", dir)
	}
	source := f.source(detector)
	if f.options.Store == "" {
		f.options.Store = source.Path + ".watch"
	}
	if f.once {
		return f.runOnce(ctx, source, dir, stdout)
	}
	l, err := f.open()
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := serve.New([]serve.Source{source}, f.options)
	if err != nil {
		return err
	}
	defer f.room()()
	fmt.Fprintf(stdout, "Watching %s; see %s\n", dir, f.url(l))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Serve(ctx, l)
		cancel()
	}()
	s.WatchFolder(ctx, source.Name, dir, f.poll)
	if err := <-ended; err != nil {
		return err // as in serve
	}
	return s.Close()
}

func (f *watchFlags) runOnce(ctx context.Context, source serve.Source, dir string, stdout io.Writer) error {
	s, err := serve.New([]serve.Source{source}, f.options)
	if err != nil {
		return err
	}
	var all serve.Scan
	for start := time.Now(); ; {
		scan, e := s.ScanFolder(ctx, source.Name, dir)
		all.Images, all.OOD, all.Failed, all.Drift = all.Images+scan.Images, all.OOD+scan.OOD, all.Failed+scan.Failed, scan.Drift
		if err = e; err != nil || scan.Young == 0 || ctx.Err() != nil || time.Since(start) > 10*time.Second {
			break
		}
		time.Sleep(time.Second) // they come of age
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s new images: %s ID, %s OOD; %s could not be scored\n",
		thousands(all.Images+all.Failed), thousands(all.Images-all.OOD), thousands(all.OOD), thousands(all.Failed))
	d := all.Drift
	fmt.Fprintf(stdout, "%s images so far, %d alarms; the last %d differ from the calibration images by KS %.3f, p = %.2g\n",
		thousands(int(d.Images)), d.Alarms, d.Window, d.KS, d.KSP)
	switch {
	case d.Drift:
		return driftError{fmt.Errorf("the images have changed: the latest alarm was at image %s", thousands(int(d.LastAlarm)))}
	case all.Failed > 0:
		return partialError{fmt.Errorf("%s images could not be scored; the log says why", thousands(all.Failed))}
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nac"
	"nac/serve"
)

type serveFlags struct {
	options                serve.Options
	listen, model, keyFile string
	logFormat, logLevel    string
	maxBody                int
	workers                int // goroutines that compute
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve [NAME=]DETECTOR...",
		Short: "Answer over HTTP whether images are in-distribution",
		Long: `Serve answers over HTTP whether images are in-distribution, by detectors that
nac fit wrote. Send an image,

  curl --data-binary @photo.jpg http://127.0.0.1:8080/score

or speak the Open Inference Protocol v2 (KServe's and Triton's clients do), or
send CloudEvents. /openapi.json describes all of it, / is a page to look at,
/metrics is for Prometheus.

A detector's name is its file's, or NAME. A file that changes is loaded without
losing a request. The first SIGINT or SIGTERM lets running requests end.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	f.common(flags)
	flags.DurationVar(&f.options.MaxDelay, "batch-delay", 2*time.Millisecond, "longest wait for other images; or a quarter of the last run's time if that is longer, at most 0.2s")
	flags.IntVar(&f.options.MaxQueue, "queue", 256, "`images` waiting or running; more are refused with 429")
	flags.DurationVar(&f.options.Timeout, "timeout", 30*time.Second, "for reading a request, and for answering it")
	flags.DurationVar(&f.options.Drain, "drain", 30*time.Second, "for running requests to end")
	return cmd
}

// common are the flags of serving and watching.
func (f *serveFlags) common(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`address` to listen on; others than loopback want --api-key-file")
	flags.StringVar(&f.model, "model", "", "the classifier's `file`, if it has moved since the fit")
	flags.StringVar(&f.keyFile, "api-key-file", "", "`file` that holds the API key that requests must bring")
	flags.StringVar(&f.options.CertFile, "tls-cert", "", "PEM `file` with the certificate; switches on TLS")
	flags.StringVar(&f.options.KeyFile, "tls-key", "", "PEM `file` with its key")
	flags.IntVar(&f.options.MaxBatch, "batch", 64, "most `images` run together, at most 64")
	flags.IntVar(&f.maxBody, "max-body", 32<<20, "`bytes` of a request or file")
	flags.IntVar(&f.options.MaxPixels, "max-pixels", 50_000_000, "`pixels` of an image")
	flags.StringVar(&f.options.Store, "store", "", "`file` that keeps the drift test's state across restarts")
	flags.IntVar(&f.options.Drift.Window, "window", 1000, "last `images` that are compared with the calibration images")
	flags.Float64Var(&f.options.Drift.RunLength, "run-length", 100_000, "least mean number of `images` between false alarms of the drift test")
	flags.BoolVar(&f.options.Thumbnails, "thumbnails", false, "show small pictures of the worst recent images on the page; kept in memory alone")
	flags.StringVar(&f.logFormat, "log", "text", "text or json")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug (every request and image), info, warn or error")
}

func (f *serveFlags) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := f.prepare(stderr); err != nil {
		return err
	}
	var sources []serve.Source
	for _, arg := range args {
		sources = append(sources, f.source(arg))
	}
	l, err := f.open()
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := serve.New(sources, f.options)
	if err != nil {
		return err
	}
	defer f.room()()
	fmt.Fprintf(stdout, "Serving on %s\n", f.url(l))
	if err := s.Serve(ctx, l); err != nil {
		return err // requests may still run: the state was stored within the last second
	}
	return s.Close()
}

// prepare completes the options.
func (f *serveFlags) prepare(stderr io.Writer) (err error) {
	if f.options.Log, err = newLog(stderr, f.logFormat, f.logLevel); err != nil {
		return err
	}
	f.options.MaxBody = int64(f.maxBody)
	f.workers = runtime.GOMAXPROCS(0)
	if f.keyFile != "" {
		key, err := os.ReadFile(f.keyFile)
		if err != nil {
			return err
		}
		if f.options.APIKey = strings.TrimSpace(string(key)); f.options.APIKey == "" {
			return fmt.Errorf("%s: no API key in it", f.keyFile)
		}
	}
	return nil
}

// source is a detector given as [NAME=]FILE.
func (f *serveFlags) source(arg string) serve.Source {
	name, file, ok := strings.Cut(arg, "=")
	if !ok {
		file = arg
		name = strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	}
	return serve.Source{Name: name, Path: file, Open: func() (*nac.Detector, error) {
		return openDetector(file, f.model, func(m *nac.Model) *nac.Model { return m.WithWorkers(f.workers) })
	}}
}

// room gives Go a processor more than the network's goroutines take, so that requests are
// read and answered while all of those compute; the system shares out the real ones.
func (f *serveFlags) room() (back func()) {
	before := runtime.GOMAXPROCS(f.workers + 1)
	return func() { runtime.GOMAXPROCS(before) }
}

// open listens, and warns if others can reach the address without a key.
func (f *serveFlags) open() (net.Listener, error) {
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return nil, err
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && f.options.APIKey == "" {
		f.options.Log.Warn("anybody who reaches this address may use the server; see --api-key-file", "address", a.String())
	}
	return l, nil
}

func (f *serveFlags) url(l net.Listener) string {
	if f.options.CertFile != "" {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

func newLog(w io.Writer, format, level string) (*slog.Logger, error) {
	var o slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %s: want debug, info, warn or error", level)
	}
	o.Level = l
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &o)), nil
	}
	return nil, usagef("--log %s: want text or json", format)
}

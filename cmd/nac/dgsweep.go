package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nac/dg"
	"nac/internal/atomicfile"
	"nac/report"
)

// sweepFlags are the flags of dg sweep.
type sweepFlags struct {
	dgFlags
	algorithms, domains []string
	seeds, jobs         int
}

// Files of a sweep, beside the folders of its runs.
const (
	sweepTable = "table.csv"
	sweepPage  = "report.html"
	sweepLog   = "log.txt"
)

func newDGSweepCommand() *cobra.Command {
	var f sweepFlags
	cmd := &cobra.Command{
		Use:   "sweep --dataset NAME --data DIR --out DIR",
		Short: "Train with every domain left out, by several algorithms and seeds",
		Long: `Runs "nac dg train" for every algorithm, domain left out and seed, several at a
time, each in a process and a folder of its own: ALGORITHM/DOMAIN/SEED in --out, with
log.txt. The seed is also that of the splits. Then it prints one table of what each way
to choose a checkpoint comes to, averaged over seeds and domains, and writes it as
table.csv, and report.html with every checkpoint's coverage and validation accuracy
against its accuracy on the unseen domain.

The same command goes on with a sweep that was ended: runs that are finished are not
begun again. One that fails does not stop the others.`,
		Example: `  nac dg sweep --dataset ColoredMNIST --data data --out sweep
  nac dg sweep --dataset PACS --data data --algorithms ERM,CORAL --seeds 5 --jobs 2 --out sweep`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			runs, err := f.plan()
			if err != nil {
				return err
			}
			return f.sweep(cmd.Context(), runs, passedOn(cmd), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.add(cmd)
	s := cmd.Flags()
	s.StringSliceVar(&f.algorithms, "algorithms", []string{"ERM"}, "`names` of "+list(dg.AlgorithmNames())+", or all")
	s.StringSliceVar(&f.domains, "test-domains", []string{"all"}, "`names` of the domains to leave out, one at a time, or all")
	s.IntVar(&f.seeds, "seeds", 3, "`number` of seeds: 0, 1, ...")
	s.IntVar(&f.jobs, "jobs", 0, "runs at a time; 0 means one for each processor")
	s.BoolVar(&f.quiet, "quiet", false, "no progress")
	complete(cmd, "algorithms", dg.AlgorithmNames)
	return cmd
}

// sweepRun is a run of a sweep.
type sweepRun struct {
	dir       string
	config    dg.Config
	records   []dg.Record
	finished  bool
	err       error
	algorithm string
	domain    string
	seed      uint64
}

func (r *sweepRun) String() string { return fmt.Sprintf("%s/%s/%d", r.algorithm, r.domain, r.seed) }

// plan lists the runs, and reads what is there of them.
func (f *sweepFlags) plan() ([]*sweepRun, error) {
	if f.seeds < 1 || f.seeds > 1000 {
		return nil, usagef("--seeds is %d; it must be 1 to 1000", f.seeds)
	}
	if f.jobs < 0 || f.jobs > maxWorkers {
		return nil, usagef("--jobs is %d; it must be 0 (one for each processor) to %d", f.jobs, maxWorkers)
	}
	if len(f.algorithms) == 1 && f.algorithms[0] == "all" {
		f.algorithms = dg.AlgorithmNames()
	}
	if len(f.algorithms) == 0 || len(f.domains) == 0 {
		return nil, usagef("--algorithms and --test-domains must name something")
	}
	f.algorithm, f.test = f.algorithms[0], "-"
	_, b, err := f.config()
	if err != nil {
		return nil, err
	}
	names := b.Domains
	if !b.Small() { // a look at the folders takes no time
		data, err := f.open(b)
		if err != nil {
			return nil, err
		}
		names = data.DomainNames()
	}
	if len(f.domains) == 1 && f.domains[0] == "all" {
		f.domains = names
	}
	for _, d := range f.domains {
		if err := oneOf("--test-domains", d, names); err != nil {
			return nil, err
		}
	}
	var runs []*sweepRun
	planned := map[string]bool{}
	// Seed by seed, so that a sweep that is cut short has something of everything.
	for seed := range f.seeds {
		for _, algorithm := range f.algorithms {
			for _, domain := range f.domains {
				one := f.dgFlags
				one.algorithm, one.test, one.seed, one.trial = algorithm, domain, uint64(seed), seed
				r := &sweepRun{dir: filepath.Join(f.out, algorithm, domain, strconv.Itoa(seed)), algorithm: algorithm, domain: domain, seed: uint64(seed)}
				if planned[r.dir] {
					continue
				}
				planned[r.dir] = true
				if r.config, _, err = one.config(); err != nil {
					return nil, err
				}
				if err := r.look(); err != nil {
					return nil, err
				}
				runs = append(runs, r)
			}
		}
	}
	return runs, prepareRunFolder(f.out, true)
}

// look reads the records that a run has left.
func (r *sweepRun) look() error {
	records, err := dg.ReadRecords(filepath.Join(r.dir, dg.ResultsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(records) > 0 {
		if was := records[len(records)-1].Config; was == nil || !reflect.DeepEqual(*was, r.config) {
			a, _ := json.Marshal(was)
			b, _ := json.Marshal(r.config)
			return fmt.Errorf("%s holds a run with other settings; repeat them, or sweep into another folder: was %s, now %s", r.dir, a, b)
		}
	}
	r.records, r.finished = records, dg.Finished(records)
	return nil
}

// passedOn are the flags that were given and that a run takes as they are.
func passedOn(cmd *cobra.Command) (args []string) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "algorithms", "test-domains", "seeds", "jobs", "quiet", "out", "workers":
			return
		}
		values := []string{flag.Value.String()}
		if many, ok := flag.Value.(pflag.SliceValue); ok {
			values = many.GetSlice()
		}
		for _, v := range values {
			args = append(args, "--"+flag.Name+"="+v)
		}
	})
	return args
}

func (f *sweepFlags) sweep(ctx context.Context, runs []*sweepRun, args []string, stdout, stderr io.Writer) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	jobs := f.jobs
	if jobs == 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	var todo []*sweepRun
	for _, r := range runs {
		if !r.finished {
			todo = append(todo, r)
		}
	}
	jobs = max(1, min(jobs, len(todo)))
	workers := f.workers
	if workers == 0 {
		workers = max(1, runtime.GOMAXPROCS(0)/jobs)
	}
	say := func(format string, args ...any) {
		if !f.quiet {
			fmt.Fprintf(stderr, format+"\n", args...)
		}
	}
	say("%d runs, %d of them finished; %d at a time", len(runs), len(runs)-len(todo), jobs)
	began := time.Now()
	var mutex sync.Mutex // of the count and what is printed
	done := 0
	queue := make(chan *sweepRun)
	var wait sync.WaitGroup
	for range jobs {
		wait.Go(func() {
			for r := range queue {
				r.err = r.start(ctx, program, append([]string{"--workers=" + strconv.Itoa(workers)}, args...))
				mutex.Lock()
				done++
				switch {
				case ctx.Err() != nil:
				case r.err != nil:
					say("%d of %d: %s failed: %v", done, len(todo), r, r.err)
				default:
					last := r.records[len(r.records)-1]
					left := time.Since(began) / time.Duration(done) * time.Duration(len(todo)-done)
					say("%d of %d: %s: coverage %.4f, unseen domain %.2f %%; %s left", done, len(todo), r, last.Coverage, 100*last.TestIn, seconds(left.Seconds()))
				}
				mutex.Unlock()
			}
		})
	}
feed:
	for _, r := range todo {
		select {
		case queue <- r:
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	wait.Wait()
	if ctx.Err() != nil {
		say("nac: the same command goes on")
		return ctx.Err()
	}
	return f.summarize(runs, stdout)
}

// start trains in another process. When the context ends, the process is asked to stop
// and saves its state.
func (r *sweepRun) start(ctx context.Context, program string, args []string) error {
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(r.dir, sweepLog))
	if err != nil {
		return err
	}
	defer logFile.Close()
	seed := strconv.FormatUint(r.seed, 10)
	args = append([]string{"dg", "train", "--algorithm=" + r.algorithm, "--test-domain=" + r.domain, "--seed=" + seed, "--trial-seed=" + seed, "--out=" + r.dir}, args...)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(logFile.Name())
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		return fmt.Errorf("%s (%w; %s)", bytes.TrimPrefix(lines[len(lines)-1], []byte("nac: ")), err, logFile.Name())
	}
	if err := r.look(); err != nil {
		return err
	}
	if !r.finished {
		return fmt.Errorf("it ended without all checkpoints; see %s", logFile.Name())
	}
	return nil
}

// summarize prints and writes the table and the page of the runs that are finished.
func (f *sweepFlags) summarize(runs []*sweepRun, stdout io.Writer) error {
	var outcomes []dg.Outcome
	var failed []string
	for _, r := range runs {
		if !r.finished {
			failed = append(failed, fmt.Sprintf("%s: %v", r, r.err))
			continue
		}
		c, err := dg.Select(r.records)
		if err != nil {
			return err
		}
		outcomes = append(outcomes, dg.Outcome{Algorithm: r.algorithm, Domain: r.domain, Seed: r.seed, Records: r.records, Choice: c})
	}
	var failure error
	if len(failed) > 0 {
		failure = fmt.Errorf("%d of %d runs failed; the same command tries them again: %s", len(failed), len(runs), strings.Join(failed, "; "))
	}
	if len(outcomes) == 0 {
		return failure
	}
	rows := dg.Summarize(outcomes)
	if err := writeCSV(filepath.Join(f.out, sweepTable), func(w *csv.Writer) error { return sweepRows(w, rows) }); err != nil {
		return err
	}
	page := report.Sweep{
		Dataset: f.dataset, Arch: f.arch, Outcomes: outcomes, Rows: rows, Missing: failed, Made: time.Now(), Machine: machine(),
	}
	if err := atomicfile.Write(filepath.Join(f.out, sweepPage), page.Write); err != nil {
		return err
	}
	err := printLines(stdout, sweepText(rows),
		"Accuracies on the domain left out and correlations with it, in percent: means over seeds, then over domains.",
		correlationsTold,
		fmt.Sprintf("Written to %s: %s, %s.", f.out, sweepTable, sweepPage))
	return errors.Join(err, failure)
}

func sweepText(rows []dg.Row) string {
	header := []string{"algorithm", "left out", "runs"}
	numbers := []int{3}
	columns := dg.Columns()
	// SWAD's is the last, and empty where it was not asked for.
	if last := len(columns) - 1; !slices.ContainsFunc(rows, func(r dg.Row) bool { return r.Means[last].N > 0 }) {
		columns = columns[:last]
	}
	for _, c := range columns {
		header = append(header, c.Name)
		numbers = append(numbers, len(header))
	}
	t := newTable(header...)
	rightAligned(t, numbers...)
	for i, r := range rows {
		row := table.Row{r.Algorithm, r.Domain, r.Runs}
		for _, m := range r.Means[:len(columns)] {
			cell := "–"
			if m.N > 0 {
				cell = percent(m.Value)
			}
			row = append(row, cell)
		}
		t.AppendRow(row)
		if r.Domain == dg.Average && i < len(rows)-1 {
			t.AppendSeparator()
		}
	}
	return t.Render()
}

// sweepRows writes means and standard deviations over seeds as fractions; what is not
// defined is empty.
func sweepRows(w *csv.Writer, rows []dg.Row) error {
	header := []string{"algorithm", "test_domain", "runs"}
	for _, c := range dg.Columns() {
		header = append(header, c.Name, c.Name+"_std")
	}
	if err := w.Write(header); err != nil {
		return err
	}
	for _, r := range rows {
		line := []string{r.Algorithm, r.Domain, strconv.Itoa(r.Runs)}
		for _, m := range r.Means {
			for _, v := range []float64{m.Value, m.Std} {
				text := ""
				if !math.IsNaN(v) {
					text = strconv.FormatFloat(v, 'g', -1, 64)
				}
				line = append(line, text)
			}
		}
		if err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

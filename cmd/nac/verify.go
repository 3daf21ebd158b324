package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/openood"
	"nac/quickstart"
)

func newVerifyCommand() *cobra.Command {
	var flags jobFlags
	cmd := &cobra.Command{
		Use:   "verify [RESULTS]",
		Short: "Compare this installation, or a benchmark's results, with stored reference numbers",
		Long: `Without RESULTS: runs the embedded benchmark and compares it with the numbers that
PyTorch, Pillow and scikit-learn gave for it, step by step: ID accuracy, scores by
logits, scores by neuron states, tables.

RESULTS is the --out folder of "nac bench". Its figures are compared with those
published for the benchmark and network: are the sets complete, is the ID accuracy
right, then plain detectors, then NAC. The first step that deviates is where to look;
later ones follow from it. Published figures are means over training runs, so a single
run may deviate a little; allowed are ` + fmt.Sprintf("%.1f points of accuracy and %.1f of AUROC", accuracyMargin, aurocMargin) + `.`,
		Example: `  nac verify
  nac bench cifar10 --checkpoint cifar10_resnet18_32x32_base_e100_lr0.1_default --data data --aps --out results
  nac verify results`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			var v verification
			var err error
			if len(args) == 1 {
				v, err = verifyResults(args[0])
			} else {
				v, err = verifyInstallation(cmd.Context(), &flags, cmd.ErrOrStderr())
			}
			if err != nil {
				return err
			}
			return v.print(cmd.OutOrStdout())
		},
	}
	flags.add(&cobra.Command{}) // the defaults of "nac quickstart"; of its flags these are offered
	f := cmd.Flags()
	f.StringVar(&flags.kernel, "kernel", "", "instruction `set`: avx512, avx2 or portable (default: the best here)")
	f.IntVar(&flags.batch, "batch", 64, "images of a batch")
	f.IntVar(&flags.workers, "workers", 0, "processors to use; 0 means all")
	f.BoolVar(&flags.quiet, "quiet", false, "no progress")
	return cmd
}

// By how many points published figures may be missed: single training runs scatter
// by about half of that.
const (
	accuracyMargin = 1.0
	aurocMargin    = 2.0
)

// check is one comparison of a verification.
type check struct {
	step, what, got, want string
	off                   bool
}

type verification struct {
	checks []check
	advice map[string]string // by step: what to look at when it is the first that deviates
}

// figure compares two percentages.
func (v *verification) figure(step, what string, got, want, margin float64) {
	v.checks = append(v.checks, check{step, what, fmt.Sprintf("%.2f", got), fmt.Sprintf("%.2f ± %.2f", want, margin), !(math.Abs(got-want) <= margin)})
}

func (v *verification) print(w io.Writer) error {
	t := newTable("step", "what", "here", "reference", "")
	rightAligned(t, 3, 4)
	first := ""
	for _, c := range v.checks {
		mark := "ok"
		if c.off {
			mark = "DEVIATES"
			if first == "" {
				first = c.step
			}
		}
		t.AppendRow(table.Row{c.step, c.what, c.got, c.want, mark})
	}
	if err := printLines(w, t.Render()); err != nil {
		return err
	}
	if first != "" {
		return fmt.Errorf("verification fails at step %q: %s", first, v.advice[first])
	}
	return printLines(w, "All as it should be.")
}

// pytorch are the embedded benchmark's numbers in PyTorch, Pillow and scikit-learn;
// see bench/quickstart.
type pytorch struct {
	Accuracy map[string]float64
	SubTrain map[string]float64 `json:"sub_train_auroc"`
	Results  map[string]map[string]struct {
		FPR95   float64
		AUROC   float64
		AUPRIn  float64 `json:"aupr_in"`
		AUPROut float64 `json:"aupr_out"`
	}
	Scores map[string]map[string][]float64
}

func readPyTorch() (p pytorch, err error) {
	err = json.Unmarshal(quickstart.PyTorch, &p)
	return p, err
}

// fashionLists maps the names of the embedded benchmark's sets to those of their lists.
func fashionLists() map[string]string {
	lists := map[string]string{"sub_train": fashion.SubTrain, "val": fashion.Val, "test": fashion.Test}
	for _, s := range slices.Concat(fashion.Near, fashion.Far) {
		lists[s.Name] = s.List
	}
	return lists
}

func verifyInstallation(ctx context.Context, flags *jobFlags, stderr io.Writer) (v verification, err error) {
	v.advice = map[string]string{
		"ID accuracy":   "images are decoded or the network is computed otherwise than by PyTorch; try --kernel portable",
		"logits":        "the network's forward pass is off; try --kernel portable",
		"neuron states": "the forward pass is right, gradients or bins are off; try --kernel portable",
		"table":         "scores are right, metrics are off",
	}
	want, err := readPyTorch()
	if err != nil {
		return v, err
	}
	j, err := quickstartJob(flags)
	if err != nil {
		return v, err
	}
	r, _, err := j.one(ctx, quickstart.Checkpoint, stderr)
	if err != nil {
		return v, err
	}
	lists := fashionLists()
	v.figure("ID accuracy", "test images", 100*r.Accuracy.Test, 100*want.Accuracy[fashion.Test], 0.1)
	v.figure("ID accuracy", "validation images", 100*r.Accuracy.Val, 100*want.Accuracy[fashion.Val], 0.25)
	steps := map[string]string{"nac": "neuron states", "msp": "logits", "mls": "logits", "ebo": "logits"}
	for _, key := range []string{"msp", "mls", "ebo", "nac"} {
		// A state within rounding of a bin's edge moves one neuron of an image.
		margin := 1e-3
		if key == "nac" {
			margin = 0.02
		}
		worst, n := 0.0, 0
		for _, set := range r.Scores {
			for _, m := range set.Scores {
				if m.Key != key {
					continue
				}
				for i, w := range want.Scores[key][lists[set.Set]] {
					worst = max(worst, math.Abs(m.Values[i]-w)/max(math.Abs(w), 0.1))
					n++
				}
			}
		}
		v.checks = append(v.checks, check{steps[key], fmt.Sprintf("%s of %d images", key, n), fmt.Sprintf("off by %.1g", worst), fmt.Sprintf("at most %.1g", margin), !(worst <= margin) || n == 0})
	}
	for _, m := range r.Methods {
		for _, row := range slices.Concat(m.Near, m.Far) {
			w := want.Results[m.Key][lists[row.Set]]
			v.figure("table", m.Key+" "+row.Set+" AUROC", 100*row.Result.AUROC, 100*w.AUROC, 0.1)
			v.figure("table", m.Key+" "+row.Set+" FPR@95", 100*row.Result.FPR95, 100*w.FPR95, 0.5)
		}
	}
	return v, nil
}

// verifyResults compares a folder of results with published figures.
func verifyResults(dir string) (v verification, err error) {
	v.advice = map[string]string{
		"sets":        "lists are absent or have another number of images: fetch them with \"nac download\"; no other figure can be compared before",
		"ID accuracy": "the checkpoint, its mean and std (--normalize), or the decoding of images is another",
		"detectors":   "the network classifies as published, but OOD images are other ones or transformed otherwise",
		"nac":         "plain detectors are as published: look at the layers and settings of nac (--aps) and at the training images it was fitted on",
	}
	r, err := readResults(dir)
	if err != nil {
		return v, err
	}
	all := openood.PublishedFigures()
	i := slices.IndexFunc(all, func(p openood.Published) bool { return p.Benchmark == r.Benchmark && p.Arch == r.Network })
	if i < 0 {
		return v, fmt.Errorf("%s: no figures are stored for %s with %s", dir, r.Benchmark, r.Network)
	}
	p := all[i]
	whole := "all"
	if n := len(r.Absent) + len(r.Partial); n > 0 {
		whole = fmt.Sprintf("%d absent, %d of other size", len(r.Absent), len(r.Partial))
	}
	v.checks = append(v.checks, check{"sets", "lists of OpenOOD v1.5", whole, "all", whole != "all"})
	v.figure("ID accuracy", "test images", 100*r.Accuracy.Test, p.Accuracy, accuracyMargin)
	for _, step := range []string{"detectors", "nac"} {
		for _, m := range r.Methods {
			w, ok := p.AUROC[m.Key]
			if !ok || (m.Key == "nac") != (step == "nac") {
				continue
			}
			if w.Near > 0 && m.NearMean != nil {
				v.figure(step, m.Key+" near AUROC", 100*m.NearMean.AUROC, w.Near, aurocMargin)
			}
			if w.Far > 0 && m.FarMean != nil {
				v.figure(step, m.Key+" far AUROC", 100*m.FarMean.AUROC, w.Far, aurocMargin)
			}
		}
	}
	return v, nil
}

// readResults reads what "nac bench" wrote: of several training runs the means.
func readResults(dir string) (*openood.Report, error) {
	read := func(name string, v any) error {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		return nil
	}
	var r openood.Report
	err := read("report.json", &r)
	if errors.Is(err, os.ErrNotExist) {
		var s struct {
			Benchmark, Network string
			Mean               struct {
				Accuracy openood.Accuracy `json:"id_accuracy"`
				Methods  []openood.MethodResult
			}
		}
		if err = read("summary.json", &s); err == nil {
			// Sets are those of any run.
			runs, _ := filepath.Glob(filepath.Join(dir, "*", "report.json"))
			if len(runs) > 0 {
				dir = filepath.Dir(runs[0])
				err = read("report.json", &r)
			}
			r.Benchmark, r.Network, r.Accuracy, r.Methods = s.Benchmark, s.Network, s.Mean.Accuracy, s.Mean.Methods
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, usagef("%s holds neither report.json nor summary.json: name the --out folder of \"nac bench\"", dir)
	}
	if err != nil {
		return nil, err
	}
	if r.Benchmark == "" || len(r.Methods) == 0 {
		return nil, fmt.Errorf("%s: no results of \"nac bench\"", dir)
	}
	return &r, nil
}

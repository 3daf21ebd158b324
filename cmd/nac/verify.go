package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/openood"
	"nac/quickstart"
)

func newVerifyCommand() *cobra.Command {
	var flags jobFlags
	var against string
	cmd := &cobra.Command{
		Use:   "verify [RESULTS]",
		Short: "Compare this installation, or a benchmark's results, with stored reference numbers",
		Long: `Without RESULTS: runs the embedded benchmark and compares it with the numbers that
PyTorch in float64, Pillow and scikit-learn gave for it, step by step: ID accuracy, scores
by logits, scores by neuron states, tables.

RESULTS is the --out folder of "nac bench". Its figures are compared with those of
OpenOOD's leaderboard for the benchmark and network: are the sets complete, is the ID
accuracy right, then detectors by logits, then nac. The first step that deviates is where
to look; later ones follow from it.

The leaderboard's figures are means over three training runs, and hold for the checkpoints that
OpenOOD offers. One of three runs is at most 1.42 standard deviations from their mean, which is
allowed unless RESULTS are of all three; besides ` + fmt.Sprintf("%.2f points of accuracy and %.2f of AUROC", accuracyMargin, aurocMargin) + `
for rounding, and ` + fmt.Sprintf("%.2f", nacMargin) + ` of nac's AUROC for the choice of training images.

--against compares with results of your own instead, of any benchmark: another --out folder,
or its report.json. Every figure must be the same but for rounding, which another processor
does otherwise: ` + fmt.Sprintf("%.2f points of accuracy, %.2f of AUROC, %.2f of nac's", accuracyMargin, aurocMargin, nacRounding) + `.`,
		Example: `  nac verify
  nac bench cifar10 --checkpoint cifar10_resnet18_32x32_base_e100_lr0.1_default --data data --aps --out results
  nac verify results
  nac verify results --against before/report.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			var v verification
			var err error
			switch {
			case len(args) == 1 && against != "":
				v, err = verifyAgainst(args[0], against)
			case len(args) == 1:
				v, err = verifyResults(args[0])
			case against != "":
				return usagef("--against is about RESULTS: name the --out folder of \"nac bench\"")
			default:
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
	kernelFlag(f, &flags.kernel)
	f.IntVar(&flags.batch, "batch", 64, "images of a batch")
	f.IntVar(&flags.workers, "workers", 0, "processors to use; 0 means all")
	f.BoolVar(&flags.quiet, "quiet", false, "no progress")
	f.StringVar(&against, "against", "", "earlier `results` to compare with: a folder, or its report.json or summary.json")
	return cmd
}

// By how many points figures of the same network and images may differ.
const (
	// The leaderboard's entries for one checkpoint differ by 0.01 among themselves, which
	// is rounding; what else may differ is a few images of 10,000.
	accuracyMargin = 0.05
	aurocMargin    = 0.1
	// Rounding moves states over the edges of bins: two ways of PyTorch's to compute one
	// convolution are up to 0.27 points apart (docs/search.md).
	nacRounding = 0.3
	// Three standard deviations, 0.21, over random choices of 1,000 training images
	// (docs/search.md).
	nacMargin = 0.6
)

// By how much the embedded benchmark may differ from PyTorch's numbers in float64.
const (
	scoreMargin    = 1e-4 // of a score, relative
	nacScoreMargin = 0.01 // of one of nac's: a state within rounding of a bin's edge moves one neuron of an image
	figureMargin   = 5e-4 // of an AUROC or AUPR
	fprMargin      = 1e-3 // FPR@95 counts single images of 1,000
)

// scoreWithin tells whether a detector's score is as near to PyTorch's as it must be.
func scoreWithin(key string, got, want float64) bool {
	d := math.Abs(got - want)
	return d <= scoreMargin*math.Abs(want) || key == "nac" && d <= nacScoreMargin
}

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
	v.checks = append(v.checks, check{step, what, fmt.Sprintf("%.2f", got), fmt.Sprintf("%.2f ± %.2f", want, margin), !(math.Abs(got-want) <= margin+1e-9)})
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
	v.figure("ID accuracy", "test images", 100*r.Accuracy.Test, 100*want.Accuracy[fashion.Test], 0)
	v.figure("ID accuracy", "validation images", 100*r.Accuracy.Val, 100*want.Accuracy[fashion.Val], 0)
	for _, key := range []string{"msp", "mls", "ebo", "nac"} {
		step, most := "logits", fmt.Sprintf("each within %.2g %%", 100*scoreMargin)
		if key == "nac" {
			step, most = "neuron states", most+fmt.Sprintf(" or %.2g", nacScoreMargin)
		}
		worst, n, off := 0.0, 0, 0
		for _, set := range r.Scores {
			for _, m := range set.Scores {
				if m.Key != key {
					continue
				}
				for i, w := range want.Scores[key][lists[set.Set]] {
					worst = max(worst, math.Abs(m.Values[i]-w))
					n++
					if !scoreWithin(key, m.Values[i], w) {
						off++
					}
				}
			}
		}
		v.checks = append(v.checks, check{step, fmt.Sprintf("%s of %d images", key, n), fmt.Sprintf("%d beyond; the worst is off by %.1g", off, worst), most, off > 0 || n == 0})
	}
	for _, m := range r.Methods {
		for _, row := range slices.Concat(m.Near, m.Far) {
			w, what := want.Results[m.Key][lists[row.Set]], m.Key+" "+row.Set
			v.figure("table", what+" FPR@95", 100*row.Result.FPR95, 100*w.FPR95, 100*fprMargin)
			v.figure("table", what+" AUROC", 100*row.Result.AUROC, 100*w.AUROC, 100*figureMargin)
			v.figure("table", what+" AUPR-In", 100*row.Result.AUPRIn, 100*w.AUPRIn, 100*figureMargin)
			v.figure("table", what+" AUPR-Out", 100*row.Result.AUPROut, 100*w.AUPROut, 100*figureMargin)
		}
		v.figure("table", m.Key+" overfitting check", 100*m.Overfit.AUROC, 100*(1-want.SubTrain[m.Key]), 100*figureMargin)
	}
	return v, nil
}

// adviceOnResults says what to look at when a step is the first that deviates.
func adviceOnResults() map[string]string {
	return map[string]string{
		"sets":        "lists are absent or have another number of images: fetch them with \"nac download\"; no other figure can be compared before",
		"ID accuracy": "the checkpoint, its mean and std (--normalize), or the decoding of images is another",
		"detectors":   "the network classifies as it should, but OOD images are other ones or transformed otherwise",
		"nac":         "other detectors are as they should be: look at the layers and settings of nac (--aps) and at the training images it was fitted on",
	}
}

// verifyResults compares a folder of results with published figures.
func verifyResults(dir string) (v verification, err error) {
	v.advice = adviceOnResults()
	r, runs, err := readResults(dir)
	if err != nil {
		return v, err
	}
	all := openood.PublishedFigures()
	i := slices.IndexFunc(all, func(p openood.Published) bool { return p.Benchmark == r.Benchmark && p.Arch == r.Network })
	if i < 0 {
		return v, fmt.Errorf("%s: no figures are published for %s with %s; --against compares with results of your own", dir, r.Benchmark, r.Network)
	}
	p := all[i]
	scatter := 0.0
	if runs < p.Runs {
		// Of n numbers none is further from their mean than that, times their standard deviation.
		scatter = math.Sqrt(float64(p.Runs - 1))
	}
	v.text("sets", "lists of OpenOOD v1.5", completeness(r), completeness(&openood.Report{}))
	v.figure("ID accuracy", "test images", 100*r.Accuracy.Test, p.Accuracy.Mean, accuracyMargin+scatter*p.Accuracy.Std)
	for _, step := range []string{"detectors", "nac"} {
		for _, m := range r.Methods {
			w, ok := p.AUROC[m.Key]
			if !ok || stepOf(m.Key) != step {
				continue
			}
			if m.NearMean != nil {
				v.figure(step, m.Key+" near AUROC", 100*m.NearMean.AUROC, w.Near.Mean, marginOf(m.Key)+scatter*w.Near.Std)
			}
			if m.FarMean != nil {
				v.figure(step, m.Key+" far AUROC", 100*m.FarMean.AUROC, w.Far.Mean, marginOf(m.Key)+scatter*w.Far.Std)
			}
		}
	}
	return v, nil
}

func stepOf(key string) string {
	if key == "nac" {
		return "nac"
	}
	return "detectors"
}

func marginOf(key string) float64 {
	if key == "nac" {
		return nacMargin
	}
	return aurocMargin
}

// completeness says which of a benchmark's lists are there.
func completeness(r *openood.Report) string {
	var partial []string
	for _, p := range r.Partial {
		partial = append(partial, fmt.Sprintf("%s with %s of %s images", p.Set, thousands(p.Images), thousands(p.Of)))
	}
	lacks := "all"
	if len(r.Absent) > 0 {
		lacks = "without " + list(r.Absent)
	}
	if partial != nil {
		lacks += "; " + list(partial)
	}
	return lacks
}

// text compares two descriptions.
func (v *verification) text(step, what, got, want string) {
	v.checks = append(v.checks, check{step, what, got, want, got != want})
}

// verifyAgainst compares a folder of results with an earlier one.
func verifyAgainst(dir, earlier string) (v verification, err error) {
	v.advice = adviceOnResults()
	v.advice["job"] = "these are results of different jobs"
	v.advice["sets"] = "other images were looked at; no other figure can be compared before"
	got, gotRuns, err := readResults(dir)
	if err != nil {
		return v, err
	}
	want, wantRuns, err := readResults(earlier)
	if err != nil {
		return v, fmt.Errorf("--against: %w", err)
	}
	v.text("job", "benchmark", got.Benchmark, want.Benchmark)
	v.text("job", "network", got.Network, want.Network)
	v.text("job", "training runs", strconv.Itoa(gotRuns), strconv.Itoa(wantRuns))
	v.text("sets", "lists", completeness(got), completeness(want))
	v.text("sets", "ID test images", thousands(got.Accuracy.TestImages), thousands(want.Accuracy.TestImages))
	v.figure("ID accuracy", "test images", 100*got.Accuracy.Test, 100*want.Accuracy.Test, accuracyMargin)
	for _, step := range []string{"detectors", "nac"} {
		for _, w := range want.Methods {
			if stepOf(w.Key) != step {
				continue
			}
			i := slices.IndexFunc(got.Methods, func(m openood.MethodResult) bool { return m.Key == w.Key })
			if i < 0 {
				v.text("job", "detectors", "without "+w.Key, "with "+w.Key)
				continue
			}
			rows := slices.Concat(got.Methods[i].Near, got.Methods[i].Far)
			for _, row := range slices.Concat(w.Near, w.Far) {
				k := slices.IndexFunc(rows, func(r openood.Row) bool { return r.Set == row.Set })
				if k < 0 {
					continue // a list that is absent, which is told above
				}
				if rows[k].Images != row.Images {
					v.text("sets", row.Set, thousands(rows[k].Images), thousands(row.Images))
				}
				margin := aurocMargin
				if step == "nac" {
					margin = nacRounding
				}
				v.figure(step, w.Key+" "+row.Set+" AUROC", 100*rows[k].Result.AUROC, 100*row.Result.AUROC, margin)
			}
		}
	}
	// The step to look at first comes first.
	order := []string{"job", "sets", "ID accuracy", "detectors", "nac"}
	slices.SortStableFunc(v.checks, func(a, b check) int {
		return cmp.Compare(slices.Index(order, a.step), slices.Index(order, b.step))
	})
	return v, nil
}

// readResults reads what "nac bench" wrote to a folder, or its file report.json or
// summary.json: of several training runs the means. It returns how many they are.
func readResults(path string) (*openood.Report, int, error) {
	dir, names := path, []string{"report.json", "summary.json"}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		dir, names = filepath.Dir(path), []string{filepath.Base(path)}
	}
	read := func(path string, v any) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	for _, name := range names {
		var r struct {
			openood.Report
			Checkpoints []string
			Mean        struct {
				Accuracy openood.Accuracy `json:"id_accuracy"`
				Methods  []openood.MethodResult
			}
		}
		err := read(filepath.Join(dir, name), &r)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		runs := max(len(r.Checkpoints), 1)
		if len(r.Mean.Methods) > 0 {
			// Which sets were there is told by the runs' own reports.
			first, _ := filepath.Glob(filepath.Join(dir, "*", "report.json"))
			if len(first) > 0 {
				var one openood.Report
				if err := read(first[0], &one); err != nil {
					return nil, 0, err
				}
				r.Absent, r.Partial = one.Absent, one.Partial
			}
			r.Accuracy, r.Methods = r.Mean.Accuracy, r.Mean.Methods
		}
		if r.Benchmark == "" || len(r.Methods) == 0 {
			return nil, 0, fmt.Errorf("%s: no results of \"nac bench\"", path)
		}
		return &r.Report, runs, nil
	}
	return nil, 0, usagef("%s holds neither report.json nor summary.json: name the --out folder of \"nac bench\"", path)
}

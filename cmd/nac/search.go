package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	yaml "go.yaml.in/yaml/v3"

	"nac/detector"
	"nac/internal/atomicfile"
	"nac/openood"
	"nac/report"
	"nac/search"
	"nac/states"
)

// searchSets are the sets that a search reads.
var searchSets = []string{"train", "sub_train", "val", "val_ood"}

// spaceFlags say what a search chooses from, and how.
type spaceFlags struct {
	space   string
	method  string
	subsets bool
	weights []float64
	starts  int
}

func (s *spaceFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.space, "space", "", "what to choose from: "+list(search.BuiltinNames())+", or a YAML `file` (default: by benchmark and network)")
	f.StringVar(&s.method, "method", search.Auto, "grid, coordinate, halving, or `auto`: a grid of up to "+thousands(search.GridLimit)+" combinations, else coordinate")
	f.BoolVar(&s.subsets, "subsets", false, "also try to leave layers out")
	f.Float64SliceVar(&s.weights, "weights", nil, "also try these weights of layers, as `1,2,4`")
	f.IntVar(&s.starts, "starts", 8, "coordinate: random combinations to start from, besides two others")
	complete(cmd, "space", search.BuiltinNames)
	complete(cmd, "method", search.Methods)
}

func (s *spaceFlags) check() error {
	if err := oneOf("--method", s.method, search.Methods()); err != nil {
		return err
	}
	if s.starts < 1 || s.starts > 100_000 {
		return usagef("--starts is %d; it must be 1 to 100000", s.starts)
	}
	return nil
}

// spaceFor returns the space to search: the one asked for, the reference's sweep for
// the benchmark and network, or one about the benchmark's settings. layers, if not
// nil, narrows it down.
func (s *spaceFlags) spaceFor(b openood.Benchmark, architecture string, layers []string) (search.Space, error) {
	space, err := s.named(b, architecture, layers)
	if err != nil {
		return space, err
	}
	if layers != nil {
		if space, err = space.Only(layers); err != nil {
			return space, usageError{err}
		}
	}
	if s.subsets {
		space = space.WithSubsets()
	}
	if len(s.weights) > 0 {
		space = space.WithWeights(s.weights)
	}
	if err := space.Validate(); err != nil {
		return space, usageError{err}
	}
	return space, nil
}

func (s *spaceFlags) named(b openood.Benchmark, architecture string, layers []string) (search.Space, error) {
	name := s.space
	if name == "" {
		switch {
		case b.Name == "cifar10" || b.Name == "cifar100":
			name = b.Name
		case b.Name == "imagenet" && architecture == "vit_b_16":
			name = "imagenet-vit-b-16"
		case b.Name == "imagenet" && architecture == "resnet50":
			name = "imagenet-resnet50"
		}
	}
	if slices.Contains(search.BuiltinNames(), name) {
		return search.Lookup(name)
	}
	if name != "" {
		if _, err := os.Stat(name); err != nil {
			return search.Space{}, usagef("--space: %q is neither a file nor one of %s", name, list(search.BuiltinNames()))
		}
		space, err := search.ReadSpace(name)
		if err != nil {
			return space, usageError{err}
		}
		return space, nil
	}
	if layers == nil {
		layers = b.LayerNames()
	}
	return search.Around("around the settings of "+b.Name, b.LayerSettings(layers)), nil
}

// run searches the sets of a cache.
func (s *spaceFlags) run(ctx context.Context, space search.Space, cache *states.Cache, workers int, progress search.Progress) (*found, error) {
	begin := time.Now()
	var sets search.Sets
	for _, name := range searchSets {
		set, err := cache.Set(name)
		if err != nil {
			if name == "sub_train" {
				continue
			}
			return nil, fmt.Errorf("%w; a search reads the sets %s", err, list(searchSets))
		}
		switch name {
		case "train":
			sets.Train = set
		case "sub_train":
			sets.SubTrain = set
		case "val":
			sets.Val = set
		case "val_ood":
			sets.ValOOD = set
		}
	}
	channels := map[string]int{}
	for _, l := range cache.Identity().Layers {
		channels[l.Name] = l.Channels
	}
	scores, err := search.Score(ctx, space, sets, channels, search.ScoreOptions{Workers: workers, Progress: progress})
	if err != nil {
		return nil, err
	}
	f := &found{scoring: time.Since(begin), identity: cache.Identity(), sets: sets}
	begin = time.Now()
	if f.Result, err = scores.Search(ctx, search.Options{Method: s.method, Starts: s.starts}); err != nil {
		return nil, err
	}
	f.searching = time.Since(begin)
	return f, nil
}

// found is the result of a search and what it took.
type found struct {
	*search.Result
	scoring, searching time.Duration
	identity           states.Identity // of the states
	sets               search.Sets
}

func newSearchCommand() *cobra.Command {
	var (
		cache  cacheFlags
		net    networkFlags
		space  spaceFlags
		layers []string
		images int
		seed   uint32
		top    int
		out    string
		quiet  bool
	)
	cmd := &cobra.Command{
		Use:   "search BENCHMARK|CACHE",
		Short: "Choose nac's settings by validation images (APS)",
		Long: `Searches for the settings of nac (O, M, alpha, state function of each layer) with the
highest AUROC of ID validation images against OOD validation images: automatic
parameter search (APS). The test sets are not looked at.

Every layer is scored once with each setting; a combination of layers is then a sum of
vectors. A space of more than ` + thousands(search.GridLimit) + ` combinations is searched one layer at a time from
several starts (--method coordinate), which may miss the best by a little. --method halving
looks at every combination on few images, and at the better quarter of them on four
times as many, until all images are used: a grid at a fraction of the cost.

The sanity check (train AUROC, train FPR@95) is the reference's: training images that were not
fitted on take the place of OOD images. 50 is right; a combination far from it tells
training images from validation images, so do not trust its AUROC.

  BENCHMARK   neuron states are read from the benchmark's cache; what it lacks of the
              sets ` + list(searchSets) + ` is extracted first, as by "nac states".
              --cache off extracts to a temporary folder.
  CACHE       a folder that "nac states" made, with the sets train, val, val_ood and,
              for the sanity check, sub_train: needs neither network nor images

Built in are the reference's sweeps: ` + list(search.BuiltinNames()) + `.
Others come from a YAML file; a single value may stand for a list:

  layers:
    - {layer: avgpool, O: [10, 50], M: [50, 500], alpha: [10, 100]}
    - {layer: layer3, O: 100, M: 500, alpha: 1000, func: [sigmoid(o*g_kl), o], weight: [1, 2], optional: true}

--out writes the table of all combinations, settings.yaml, which --settings of "nac
bench" takes, and a report as HTML that draws the landscape: what each setting is good for.`,
		Example: `  nac search cifar10 --checkpoint best.ckpt --data data --out found
  nac bench cifar10 --checkpoint best.ckpt --data data --settings found/settings.yaml

  nac search cifar10 --arch resnet20 --checkpoint resnet20.th --normalize imagenet --data data --subsets --weights 1,2
  nac search photos.states --space mine.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one benchmark (%s) or the folder of a cache", list(benchmarkNames()))
			}
			return nil
		},
		ValidArgs: benchmarkNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := space.check(); err != nil {
				return err
			}
			if top < 1 {
				return usagef("--top is %d; it must be above 0", top)
			}
			if out != "" {
				if err := os.MkdirAll(out, 0o777); err != nil {
					return fmt.Errorf("--out: %w", err)
				}
				if err := prepareFile("--out", filepath.Join(out, "settings.yaml")); err != nil {
					return err
				}
			}
			var progress openood.Progress
			if !quiet {
				progress = newProgress(cmd.ErrOrStderr())
			}
			var f *found
			var err error
			if slices.Contains(benchmarkNames(), args[0]) {
				f, err = searchBenchmark(ctx, args[0], &net, &cache, &space, layers, images, seed, progress)
			} else {
				f, err = searchCache(ctx, args[0], &space, layers, net.workers, progress)
			}
			if err != nil {
				return err
			}
			if out != "" {
				if err := f.write(out, args[0]); err != nil {
					return fmt.Errorf("--out: %w", err)
				}
			}
			if err := f.print(cmd.OutOrStdout(), top); err != nil || out == "" {
				return err
			}
			return printLines(cmd.OutOrStdout(), "Written to "+out+": settings.yaml, search.csv, search.json, report.html.")
		},
	}
	net.add(cmd)
	cache.add(cmd, "`folder` of neuron states; off for a temporary one (default: nac-states/... below --data)")
	space.add(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&layers, "layers", nil, "`names` of the layers to search (default: all of the space)")
	f.IntVar(&images, "images", 0, "training images to fit on; 0 means the benchmark's number")
	f.Uint32Var(&seed, "seed", 1, "seed for the choice of training images")
	f.IntVar(&top, "top", 10, "how many of the best combinations to print")
	f.StringVar(&out, "out", "", "`folder` for settings.yaml and the table of all combinations")
	f.BoolVar(&quiet, "quiet", false, "no progress")
	_ = cmd.MarkFlagDirname("out")
	return cmd
}

// searchBenchmark searches a benchmark's validation sets, and extracts their states
// first where no cache has them.
func searchBenchmark(ctx context.Context, name string, net *networkFlags, cache *cacheFlags, space *spaceFlags, layers []string, images int, seed uint32, progress openood.Progress) (*found, error) {
	n, b, err := net.open(name)
	if err != nil {
		return nil, err
	}
	s, err := space.spaceFor(b, n.model.Name, layers)
	if err != nil {
		return nil, err
	}
	data, err := openood.Open(ctx, b.ForSearch(), openood.Layout{Dir: net.data}, n.loadOptions(net.onError), images, seed)
	if err != nil {
		return nil, err
	}
	if err := checkLabels(n.model, data); err != nil {
		return nil, err
	}
	f, _, err := searchData(ctx, n, b, data, cache, space, s, progress)
	return f, err
}

// searchData searches a benchmark's validation sets. It returns the cache that they
// were read from, empty if that was a temporary one.
func searchData(ctx context.Context, n source, b openood.Benchmark, data *openood.Data, cache *cacheFlags, flags *spaceFlags, space search.Space, progress openood.Progress) (*found, string, error) {
	if data.ValOOD == nil {
		return nil, "", fmt.Errorf("%s has no OOD validation images: the list %s.txt is absent", b.Name, b.ValOOD)
	}
	id, err := n.identity(detector.Needs{Layers: space.LayerNames(), Gradients: space.Gradients()})
	if err != nil {
		return nil, "", err
	}
	dir := cache.dir(data.Base, b.Name, id)
	kept := dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "nac-states-"); err != nil {
			return nil, "", err
		}
		defer os.RemoveAll(dir)
	}
	parts := slices.DeleteFunc(data.Parts(), func(p openood.Part) bool { return !slices.Contains(searchSets, p.Name) })
	c, err := n.fill(ctx, dir, id, parts, data.Base, progress)
	if errors.Is(err, os.ErrPermission) {
		return nil, "", fmt.Errorf("%w; --cache names another folder, --cache off takes a temporary one", err)
	}
	if err != nil {
		return nil, "", err
	}
	f, err := flags.run(ctx, space, c, n.workers, progress)
	return f, kept, err
}

// searchCache searches the sets of a cache, whatever made it.
func searchCache(ctx context.Context, dir string, flags *spaceFlags, layers []string, workers int, progress openood.Progress) (*found, error) {
	cache, err := states.Open(dir)
	if errors.Is(err, states.ErrNone) {
		return nil, usagef("%q is neither a benchmark (%s) nor a folder with neuron states; \"nac states\" makes one", dir, list(benchmarkNames()))
	}
	if err != nil {
		return nil, err
	}
	b := openood.Benchmark{Name: dir}
	for _, l := range cache.Identity().Layers {
		b.Layers = append(b.Layers, b.LayerSettings([]string{l.Name})...)
	}
	space, err := flags.spaceFor(b, cache.Identity().Arch, layers)
	if err != nil {
		return nil, err
	}
	return flags.run(ctx, space, cache, workers, progress)
}

// describeChoice says what was chosen for a layer.
func describeChoice(c search.Choice) string {
	if c.LeftOut {
		return "left out"
	}
	s := fmt.Sprintf("O=%d M=%d alpha=%.6g", c.O, c.M, c.Alpha)
	if c.Func != 0 {
		s += " " + c.Func.String()
	}
	if c.Weight != 0 && c.Weight != 1 {
		s += fmt.Sprintf(" weight=%v", c.Weight)
	}
	return s
}

// ranked returns the outcomes, the best first.
func (f *found) ranked() []search.Outcome {
	r := slices.Clone(f.Outcomes)
	slices.SortStableFunc(r, func(a, b search.Outcome) int {
		switch {
		case a.AUROC > b.AUROC:
			return -1
		case a.AUROC < b.AUROC:
			return 1
		}
		return 0
	})
	return r
}

func (f *found) print(w io.Writer, top int) error {
	header := []string{"AUROC", "FPR@95", "train AUROC", "train FPR@95"}
	header = append(header, f.Space.LayerNames()...)
	t := newTable(header...)
	rightAligned(t, 1, 2, 3, 4)
	for i, o := range f.ranked() {
		if i == top {
			break
		}
		row := table.Row{percent(o.AUROC), percent(o.FPR95), "", ""}
		if o.TrainAUROC != nil {
			row[2], row[3] = percent(*o.TrainAUROC), percent(*o.TrainFPR95)
		}
		for _, c := range f.Choices(o) {
			row = append(row, describeChoice(c))
		}
		t.AppendRow(row)
	}
	lines := []string{t.Render(), f.summary()}
	lines = append(lines, "AUROC and FPR@95: ID against OOD validation images. train: training images that were not fitted on in the place of OOD; an AUROC of 50 is right.")
	if f.Best.TrainAUROC == nil {
		lines = append(lines, "Sanity check: none, as there are no training images besides those fitted on.")
	} else if warning := f.warning(); warning != "" {
		lines = append(lines, "WARNING: "+warning)
	}
	settings, err := f.settingsYAML()
	if err != nil {
		return err
	}
	return printLines(w, append(lines, "", "The best, for --settings:", strings.TrimRight(settings, "\n"))...)
}

// warning says that the sanity check fails; empty if it does not.
func (f *found) warning() string {
	if a := f.Best.TrainAUROC; a != nil && (*a < 0.45 || *a > 0.55) {
		return "the best combination tells ID training images from ID validation images; its AUROC may measure just that."
	}
	return ""
}

// summary says in a line what was searched.
func (f *found) summary() string {
	n := fmt.Sprintf("All %s combinations", thousands(len(f.Outcomes)))
	switch f.Method {
	case search.Coordinate:
		n = fmt.Sprintf("%s of %s combinations, one layer at a time,", thousands(len(f.Outcomes)), count(f.Combinations))
	case search.Halving:
		n = fmt.Sprintf("All %s combinations, the best %s on all images,", count(f.Combinations), thousands(len(f.Outcomes)))
	}
	return fmt.Sprintf("%s of space %s: %s to score layers, %s to search.", n, f.Space.Name, seconds(f.scoring.Seconds()), seconds(f.searching.Seconds()))
}

func count(n uint64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.2g", float64(n))
	}
	return thousands(int(n))
}

// settingsYAML is the best combination as --settings reads it.
func (f *found) settingsYAML() (string, error) {
	type layer struct {
		Layer  string  `yaml:"layer"`
		M      int     `yaml:"M"`
		O      int     `yaml:"O"`
		Alpha  float64 `yaml:"alpha"`
		Func   string  `yaml:"func"`
		Weight float64 `yaml:"weight,omitempty"`
	}
	var file struct {
		Layers []layer `yaml:"layers"`
	}
	for _, s := range f.Settings(f.Best) {
		file.Layers = append(file.Layers, layer{s.Layer, s.M, s.O, s.Alpha, s.Func.String(), s.Weight})
	}
	text, err := yaml.Marshal(file)
	return string(text), err
}

// page is the report of a search of what is named.
func (f *found) page(of string) report.SearchPage {
	p := report.SearchPage{
		Of: of, Network: f.identity.Arch, Search: f.landscape(), Summary: f.summary(), Warning: f.warning(),
		Machine: machine(), Made: time.Now(),
		Facts: [][2]string{
			{"checkpoint", f.identity.Checkpoint}, {"transform", f.identity.Transform}, {"instruction set", f.identity.Kernel},
			{"space", f.Space.Name}, {"method", f.Method}, {"combinations", count(f.Combinations)},
		},
	}
	for _, s := range []struct {
		name string
		set  search.Set
	}{{"training images", f.sets.Train}, {"ID validation images", f.sets.Val}, {"OOD validation images", f.sets.ValOOD}, {"training images not fitted on", f.sets.SubTrain}} {
		if s.set != nil {
			p.Facts = append(p.Facts, [2]string{s.name, thousands(s.set.Images())})
		}
	}
	return p
}

// write puts the settings, all outcomes and a report into a folder.
func (f *found) write(dir, of string) error {
	settings, err := f.settingsYAML()
	if err != nil {
		return err
	}
	if err := writeCSV(filepath.Join(dir, "search.csv"), f.rows); err != nil {
		return err
	}
	err = atomicfile.Write(filepath.Join(dir, "search.json"), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(struct {
			Version string `json:"version"`
			*search.Result
		}{version(), f.Result})
	})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, "report.html"), f.page(of).Write); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "settings.yaml"), func(w io.Writer) error {
		_, err := io.WriteString(w, settings)
		return err
	})
}

// rows writes a line for each combination, in the order of the sweep.
func (f *found) rows(w *csv.Writer) error {
	row := []string{"combination", "auroc_percent", "fpr95_percent", "train_auroc_percent", "train_fpr95_percent"}
	for _, l := range f.Space.Layers {
		for _, what := range []string{"O", "M", "alpha", "func", "weight"} {
			row = append(row, l.Layer+" "+what)
		}
	}
	if err := w.Write(row); err != nil {
		return err
	}
	number := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(100**v, 'f', 4, 64)
	}
	for _, o := range f.Outcomes {
		row = append(row[:0], strconv.FormatUint(o.Index, 10), number(&o.AUROC), number(&o.FPR95), number(o.TrainAUROC), number(o.TrainFPR95))
		for _, c := range f.Choices(o) {
			if c.LeftOut {
				row = append(row, "", "", "", "left out", "0")
				continue
			}
			weight := c.Weight
			if weight == 0 {
				weight = 1
			}
			row = append(row, strconv.Itoa(c.O), strconv.Itoa(c.M), strconv.FormatFloat(c.Alpha, 'g', -1, 64), c.Func.String(), strconv.FormatFloat(weight, 'g', -1, 64))
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	return nil
}

// landscape is the result as a report draws it.
func (f *found) landscape() *report.Landscape {
	l := &report.Landscape{Layers: f.Space.LayerNames()}
	for i, o := range f.Outcomes {
		p := report.Point{AUROC: o.AUROC, FPR95: o.FPR95, TrainAUROC: o.TrainAUROC}
		for _, c := range f.Choices(o) {
			p.Choices = append(p.Choices, describeChoice(c))
		}
		if l.Points = append(l.Points, p); o.Index == f.Best.Index {
			l.Best = i
		}
	}
	return l
}

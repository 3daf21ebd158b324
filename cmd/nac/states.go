package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/openood"
	"nac/states"
)

// statesFlags are the flags of "nac states".
type statesFlags struct {
	cacheFlags
	networkFlags
	layers      []string
	noGradients bool
	sets        []string
	name, group string
	images      int
	seed        uint32
	shard       string
	verify      bool
	quiet       bool
}

func newStatesCommand() *cobra.Command {
	var s statesFlags
	cmd := &cobra.Command{
		Use:   "states BENCHMARK|FOLDER|LIST|CACHE",
		Short: "Run a network over images once and keep what it yields",
		Long: `Runs a network over images and keeps what it yields in a folder, the cache: logits,
penultimate feature, prediction, whether it is right, and for each layer the neurons'
activations z and gradients g. "nac search" and "nac bench" read it instead of the
images, with the same results to the last bit.

  BENCHMARK   all sets of the benchmark, or those of --sets
  FOLDER      a folder of images, or of one folder of images for each class
  LIST        a file with lines of "path label"; paths are relative to --data
  CACHE       a cache itself: prints what is in it; --verify reads all of it

The cache of a benchmark is in nac-states below --data unless --cache names a folder;
for a FOLDER or LIST --cache is needed, and one cache may take in many of them.

A run that was stopped or killed is taken up where it was when called again, and
ends in the same bytes. A cache belongs to a checkpoint, its layers, a transform and
an instruction set, and a set in it to a list of images (paths, sizes and labels): what
does not match is refused. Every tensor has a checksum, which is compared on reading.

With --shard i/n only the i-th of n equal parts of every set is extracted, i from 0, to a
--cache of its own; "nac merge" puts the parts together, to the bytes of one run.

docs/states.md describes the files and reads them in Python.`,
		Example: `  nac states cifar10 --checkpoint best.ckpt --data data
  nac states cifar10 --arch resnet20 --checkpoint resnet20.th --normalize imagenet --data data --sets search

  nac states photos/train --checkpoint model.onnx --cache photos.states --name train
  nac states photos/odd   --checkpoint model.onnx --cache photos.states --name val_ood
  nac states photos.states --verify`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one benchmark (%s), folder of images, list, or cache", list(benchmarkNames()))
			}
			return nil
		},
		ValidArgs: benchmarkNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := args[0]
			if slices.Contains(benchmarkNames(), what) {
				return s.benchmark(cmd.Context(), what, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			info, err := os.Stat(what)
			if err != nil {
				return usagef("%q is no benchmark (%s), and no folder or list either: %w", what, list(benchmarkNames()), err)
			}
			if info.IsDir() {
				cache, err := states.Open(what)
				if err == nil {
					return s.inspect(cmd.Context(), cache, cmd.OutOrStdout(), cmd.ErrOrStderr())
				}
				if !errors.Is(err, states.ErrNone) {
					return err
				}
			}
			if s.verify {
				return usagef("--verify reads a cache, but there is none in %s", what)
			}
			return s.folder(cmd.Context(), what, info.IsDir(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	s.networkFlags.add(cmd)
	s.cacheFlags.add(cmd, "`folder` of the cache (default, for a benchmark: nac-states/... below --data)")
	f := cmd.Flags()
	f.StringSliceVar(&s.layers, "layers", nil, "`names` of the layers, see \"nac layers\" (default: the benchmark's, or those that \"nac layers\" suggests)")
	f.BoolVar(&s.noGradients, "no-gradients", false, "leave out the gradients: only the forward pass is run")
	f.StringSliceVar(&s.sets, "sets", []string{"all"}, "`sets` of the benchmark: all, search (train, sub_train, val, val_ood), or names")
	f.StringVar(&s.name, "name", "", "`name` of the set in the cache (default: that of the folder or list)")
	f.StringVar(&s.group, "group", "images", "what the set is for, as train, val, test, near, far: a `word` that is kept with it")
	f.IntVar(&s.images, "images", 0, "training images of a benchmark; 0 means the benchmark's number")
	f.Uint32Var(&s.seed, "seed", 1, "seed for the choice of training images")
	addShardFlag(cmd, &s.shard)
	f.BoolVar(&s.verify, "verify", false, "read all of a CACHE and compare every checksum")
	f.BoolVar(&s.quiet, "quiet", false, "no progress")
	return cmd
}

func (s *statesFlags) progress(stderr io.Writer) openood.Progress {
	if s.quiet {
		return nil
	}
	return newProgress(stderr)
}

// benchmark extracts the sets of a benchmark.
func (s *statesFlags) benchmark(ctx context.Context, name string, stdout, stderr io.Writer) error {
	if s.verify {
		return usagef("--verify reads a cache: name its folder")
	}
	n, b, err := s.open(name)
	if err != nil {
		return err
	}
	data, err := openood.Open(ctx, b, openood.Layout{Dir: s.data}, n.loadOptions(s.onError), s.images, s.seed)
	if err != nil {
		return err
	}
	if err := checkLabels(n.model, data); err != nil {
		return err
	}
	if s.layers == nil {
		s.layers = b.LayerNames()
	}
	parts, err := s.choose(data.Parts())
	if err != nil {
		return err
	}
	if s.cache == cacheOff {
		return usagef("--cache off: there would be nothing left of the work")
	}
	return s.extract(ctx, n, parts, data.Base, name, stdout, stderr)
}

// choose picks the parts that --sets names.
func (s *statesFlags) choose(parts []openood.Part) ([]openood.Part, error) {
	var names []string
	for _, p := range parts {
		names = append(names, p.Name)
	}
	wanted := s.sets
	switch {
	case slices.Equal(wanted, []string{"all"}):
		return parts, nil
	case slices.Equal(wanted, []string{"search"}):
		wanted = searchSets
	default:
		for _, w := range wanted {
			if err := oneOf("--sets", w, names); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(parts, func(p openood.Part) bool { return !slices.Contains(wanted, p.Name) }), nil
}

// folder extracts the images of a folder or list.
func (s *statesFlags) folder(ctx context.Context, what string, isFolder bool, stdout, stderr io.Writer) error {
	if s.cache == cacheAuto || s.cache == cacheOff {
		return usagef("--cache is missing: the folder to keep the states in")
	}
	n, _, err := s.open("")
	if err != nil {
		return err
	}
	var images imageset.List
	base := s.data
	if isFolder {
		base = what
		images, err = imageset.ReadFolder(what)
	} else {
		if base == "" {
			base = filepath.Dir(what)
		}
		images, err = imageset.ReadList(what, base)
	}
	if err != nil {
		return err
	}
	onError, err := parseOnError(s.onError)
	if err != nil {
		return err
	}
	if onError == imageset.Stop {
		if err := images.Check(ctx); err != nil {
			return err
		}
	}
	if s.layers == nil {
		s.layers = n.model.Suggested()
	}
	if s.name == "" {
		s.name = images.Name
	}
	part := openood.Part{Name: s.name, Group: s.group, Source: openood.Files(images, n.loadOptions(s.onError))}
	return s.extract(ctx, n, []openood.Part{part}, base, "", stdout, stderr)
}

func (s *statesFlags) extract(ctx context.Context, n source, parts []openood.Part, base, benchmark string, stdout, stderr io.Writer) error {
	of, err := parseShard(s.shard)
	if err != nil {
		return err
	}
	if of.Of > 0 {
		if s.cache == cacheAuto {
			return usagef("--shard needs a --cache of its own: a folder for each shard")
		}
		for i := range parts {
			if parts[i], err = parts[i].Shard(of, base); err != nil {
				return err
			}
		}
	}
	id, err := n.identity(detector.Needs{Layers: s.layers, Gradients: !s.noGradients})
	if err != nil {
		return err
	}
	dir := s.dir(base, benchmark, id)
	cache, err := n.fill(ctx, dir, id, parts, base, s.progress(stderr))
	if err != nil {
		return err
	}
	return printCache(stdout, cache)
}

// inspect prints what is in a cache.
func (s *statesFlags) inspect(ctx context.Context, cache *states.Cache, stdout, stderr io.Writer) error {
	if err := printCache(stdout, cache); err != nil || !s.verify {
		return err
	}
	names, err := cache.Sets()
	if err != nil {
		return err
	}
	progress := s.progress(stderr)
	for _, name := range names {
		set, err := cache.Set(name)
		if err != nil {
			return err
		}
		if progress != nil {
			progress.Begin(name, set.Images())
			progress.Advance(set.Images())
		}
		if err := set.Verify(ctx); err != nil {
			return err
		}
		if progress != nil {
			progress.End()
		}
	}
	return printLines(stdout, "Verified: every checksum is right and every value finite.")
}

func printCache(w io.Writer, cache *states.Cache) error {
	id := cache.Identity()
	names, err := cache.Sets()
	if err != nil {
		return err
	}
	t := newTable("set", "for", "images", "skipped", "MB")
	rightAligned(t, 3, 4, 5)
	for _, name := range names {
		set, err := cache.Set(name)
		if err != nil {
			return err
		}
		t.AppendRow(table.Row{name, set.Group(), thousands(set.Images()), thousands(len(set.Skipped())), fmt.Sprintf("%.1f", float64(set.Bytes())/1e6)})
	}
	var layers []string
	for _, l := range id.Layers {
		layers = append(layers, fmt.Sprintf("%s (%d)", l.Name, l.Channels))
	}
	what := "activations and gradients"
	if !id.Gradients {
		what = "activations"
	}
	return printLines(w, t.Render(),
		fmt.Sprintf("%s: %s of %s, %s", cache.Dir(), what, id.Arch, id.Checkpoint),
		"layers (neurons): "+list(layers),
		"images: "+id.Transform+"; computed with "+id.Kernel)
}

// networkFlags say which network looks at which images, for commands that are no
// benchmark run.
type networkFlags struct {
	arch, checkpoint string
	data             string
	normalize        string
	preset           string
	mean, std        []float32
	onError          string
	kernel           string
	batch, workers   int
}

func (n *networkFlags) add(cmd *cobra.Command) {
	addModelFlags(cmd, &n.arch, &n.checkpoint)
	f := cmd.Flags()
	f.StringVar(&n.data, "data", "", "`folder` of lists and images")
	f.StringVar(&n.preset, "preset", "", "transform of images by `name`: "+list(imageset.PresetNames())+" (default: the benchmark's, else by the network's input size)")
	f.StringVar(&n.normalize, "normalize", "", "take mean and std from this `preset`: cifar10, cifar100, imagenet, ...")
	f.Float32SliceVar(&n.mean, "mean", nil, "mean of red, green and blue in 0..1, as `0.485,0.456,0.406`")
	f.Float32SliceVar(&n.std, "std", nil, "standard deviation, as `0.229,0.224,0.225`")
	f.StringVar(&n.onError, "on-error", "stop", "an image that cannot be read: `stop`, or skip and report it")
	kernelFlag(f, &n.kernel)
	f.IntVar(&n.batch, "batch", 64, "images of a batch")
	f.IntVar(&n.workers, "workers", 0, "processors to use; 0 means all")
	complete(cmd, "normalize", imageset.PresetNames)
	complete(cmd, "preset", imageset.PresetNames)
	_ = cmd.MarkFlagDirname("data")
}

// open checks the flags, and opens the network for the named benchmark, or for none.
func (n *networkFlags) open(benchmark string) (s source, b openood.Benchmark, err error) {
	j := jobFlags{detectors: detector.Keys(), batch: n.batch, workers: n.workers, kernel: n.kernel, sort: rankings[0].name}
	if err := j.check(); err != nil {
		return s, b, err
	}
	if _, err := parseOnError(n.onError); err != nil {
		return s, b, err
	}
	n.arch = archName(n.arch)
	if benchmark != "" {
		if b, err = lookupBenchmark(benchmark); err != nil {
			return s, b, err
		}
		if n.arch == "" && !isONNX(n.checkpoint) {
			n.arch = b.Recipes[0].Arch
		}
		b, _ = b.For(n.arch)
	}
	if err := checkArch(n.arch, n.checkpoint); err != nil {
		return s, b, err
	}
	if benchmark != "" && n.data == "" {
		return s, b, usagef("--data is missing: the folder that holds benchmark_imglist and the images")
	}
	if n.preset != "" {
		if err := oneOf("--preset", n.preset, imageset.PresetNames()); err != nil {
			return s, b, err
		}
		b.Preset = n.preset
	}
	s = source{checkpoint: n.checkpoint, kernel: j.kernel, batch: n.batch, workers: n.workers}
	if s.model, err = openModel(n.arch, n.checkpoint); err != nil {
		return s, b, err
	}
	if b.Preset == "" {
		b.Preset = presetFor(s.model)
	}
	if s.transform, err = normalized(b, n.normalize, n.mean, n.std); err != nil {
		return s, b, err
	}
	h, w := s.transform.Size()
	if size := [3]int{3, h, w}; h > 0 && size != s.model.InputSize {
		return s, b, usagef("%s takes images of %dx%d, but the transform makes %dx%d", s.model.Name, s.model.InputSize[1], s.model.InputSize[2], h, w)
	}
	return s, b, nil
}

// presetFor is a guess by the size of images.
func presetFor(m *arch.Model) string {
	if m.InputSize[1] <= 64 {
		return "cifar10"
	}
	return "imagenet"
}

// loadOptions are for flags that open has checked.
func (s source) loadOptions(onError string) imageset.LoadOptions {
	e, _ := parseOnError(onError)
	return imageset.LoadOptions{
		Transform: s.transform, Height: s.model.InputSize[1], Width: s.model.InputSize[2],
		BatchSize: s.batch, Workers: s.workers, OnError: e,
	}
}

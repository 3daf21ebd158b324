package nac

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/internal/atomicfile"
	"nac/internal/kernel"
	"nac/probe"
	"nac/shard"
	"nac/states"
)

// A folder of FitShard:
//
//	fit.json             what is fitted, and of which images: shardInfo
//	states/              a cache of what the network yielded for the shard's images
//	counts.safetensors   in place of those fitted on, if they are only counted
const (
	shardFile    = "fit.json"
	shardStates  = "states"
	shardCounts  = "counts.safetensors"
	shardFormat  = "nac-fit-shard"
	shardVersion = 1
)

// shardInfo is fit.json.
type shardInfo struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	shard.Shard
	Info    Info              `json:"info"` // as far as it is known
	Layers  []string          `json:"layers"`
	Given   detector.Settings `json:"given_settings"`
	AsGiven bool              `json:"as_given"`
	Counted bool              `json:"counted"`
	Rate    float64           `json:"false_alarm_rate"`
	Kernel  string            `json:"kernel"`
	Sets    []shardSet        `json:"sets"`
}

// shardSet is one of the sets of images, of which each shard has a part.
type shardSet struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Images int    `json:"images"`
	Hash   string `json:"sha256"` // of the list
}

// FitShard does a shard of the work of Fit, running the network over its images, and
// keeps in dir what FitShards needs: what the network yielded, or counts if there
// is nothing else to be found in the images, as for nac with settings. It can be
// called again after it was interrupted, and changes nothing when it was done. The
// detector may be any that reads logits, features and states of layers alone.
func FitShard(ctx context.Context, m *Model, images imageset.List, o FitOptions, s shard.Shard, dir string) error {
	p, err := PlanFit(ctx, m, images, o)
	if err != nil {
		return err
	}
	cache, err := p.open(dir, s)
	if err != nil {
		return err
	}
	defer cache.Close()
	f := p.f
	e, err := newEngine(m, f.o.Transform, detector.Fitting, func(detector.Network, detector.Phase) detector.Needs { return p.needs })
	if err != nil {
		return err
	}
	for i, set := range f.sets() {
		list, err := p.lists[i].Shard(p.info.Shard)
		if err != nil {
			return err
		}
		if len(list.Items) == 0 {
			continue
		}
		part := set.from(list.Part.First).upTo(len(list.Items))
		if p.Counted(set.name) {
			err = f.count(dir, part, e)
		} else {
			err = f.keep(cache, list, part, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sets are those that a shard has a part of.
func (f *fitter) sets() (sets []fitSet) {
	for _, s := range []fitSet{f.train, f.val, f.calibration, f.valOOD} {
		if len(s.Items) > 0 {
			sets = append(sets, s)
		}
	}
	return sets
}

// counts tells whether images that are fitted on need only be counted.
func (f *fitter) counts() bool {
	return f.o.Detector == "nac" && !f.rules() && len(f.valOOD.Items) == 0
}

// shardNeeds is what is kept of each image.
func (f *fitter) shardNeeds() (n detector.Needs, err error) {
	if f.rules() {
		return detector.Needs{Layers: f.o.Layers, Gradients: true}, nil
	}
	if err := f.candidates(); err != nil {
		return n, err
	}
	for phase := range detector.Phase(detector.Phases) {
		of := detector.Union(f.fitting, f.network, phase)
		if of.Images() {
			return n, fmt.Errorf("nac: %s reads more of an image than logits, the feature and states of layers, which is not kept: it cannot be fitted in shards", f.o.Detector)
		}
		n.Gradients = n.Gradients || of.Gradients
		for _, l := range of.Layers {
			if !slices.Contains(n.Layers, l) {
				n.Layers = append(n.Layers, l)
			}
		}
	}
	return n, nil
}

// keep runs the network over what is missing of a set in the cache.
func (f *fitter) keep(cache *states.Cache, list states.List, part fitSet, e *engine) error {
	w, err := cache.Begin(list, states.Options{})
	if err != nil {
		return err
	}
	todo := part
	todo.Items = nil
	for _, p := range w.Missing() {
		todo.Items = append(todo.Items, part.Items[p])
	}
	if len(todo.Items) > 0 {
		var loader *imageset.Loader
		fill := w.Filler(func() []error { return loader.Skipped() })
		err := f.load(part.name, todo, e, func(l *imageset.Loader) { loader = l }, func(b *imageset.Batch, in *detector.Inputs) error {
			return fill.Add(b.Index, &states.Batch{N: in.N, Logits: in.Logits, Feature: in.Feature, States: in.States})
		})
		if err == nil {
			err = fill.End()
		}
		if err != nil {
			return err
		}
	}
	return w.End()
}

// count counts the images of the training set's part.
func (f *fitter) count(dir string, part fitSet, e *engine) error {
	path := filepath.Join(dir, shardCounts)
	if _, err := coverage.Load(path); err == nil {
		return nil // done before
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; delete it to count anew", err)
	}
	d := f.fitting[0]
	if err := d.Begin(f.network); err != nil {
		return err
	}
	err := f.load(part.name, part, e, func(*imageset.Loader) {}, func(_ *imageset.Batch, in *detector.Inputs) error { return d.Fit(in) })
	if err != nil {
		return err
	}
	return covered(d).Save(path)
}

// write writes fit.json, or compares it with what is there.
func (s shardInfo) write(dir string) error {
	old, err := readShard(dir)
	if err == nil {
		if why := old.differs(s); why != "" {
			return fmt.Errorf("nac: %s holds something else: %s; name another folder", dir, why)
		}
		if old.Shard != s.Shard {
			return fmt.Errorf("nac: %s holds shard %v, not %v; name another folder", dir, old.Shard, s.Shard)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = atomicfile.Write(filepath.Join(dir, shardFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(s)
	})
	if err != nil {
		return fmt.Errorf("nac: %w", err)
	}
	return nil
}

func readShard(dir string) (s shardInfo, err error) {
	path := filepath.Join(dir, shardFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("nac: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("nac: %s: %w", path, err)
	}
	if s.Format != shardFormat || s.Version != shardVersion {
		return s, fmt.Errorf("nac: %s: format %.40q version %d; this program reads %q version %d", path, s.Format, s.Version, shardFormat, shardVersion)
	}
	if err := s.Validate(); err != nil || s.Of == 0 {
		return s, fmt.Errorf("nac: %s: shard %v", path, s.Shard)
	}
	return s, nil
}

// differs tells the first thing in which two shards of a fit may not differ, empty if
// there is none.
func (s shardInfo) differs(o shardInfo) string {
	if why := s.Info.Model.differs(o.Info.Model); why != "" {
		return "another model: " + why
	}
	a, b := s.Info, o.Info
	for _, c := range []struct {
		what string
		a, b any
	}{
		{"detector", a.Detector, b.Detector},
		{"settings", s.Given, o.Given},
		{"layers", s.Layers, o.Layers},
		{"transform", a.Transform, b.Transform},
		{"trials of normalisation", a.Fit.Normalizations, b.Fit.Normalizations},
		{"false-alarm rate", s.Rate, o.Rate},
		{"calibration by class", a.PerClass, b.PerClass},
		{"names of classes", a.Classes, b.Classes},
		{"images (set, list, number, SHA-256)", s.Sets, o.Sets},
		{"instruction set", s.Kernel, o.Kernel},
		{"kind of shard (counts, settings as given)", []bool{s.Counted, s.AsGiven}, []bool{o.Counted, o.AsGiven}},
	} {
		// Slices that are nil and empty are the same.
		if x, y := reflect.ValueOf(c.a), reflect.ValueOf(c.b); x.Kind() == reflect.Slice && x.Len()+y.Len() == 0 {
			continue
		}
		if x, y := text(c.a), text(c.b); x != y {
			return fmt.Sprintf("another %s: %s against %s", c.what, x, y)
		}
	}
	return ""
}

// text is a value as it stands in fit.json.
func text(v any) string {
	t, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(t)
}

// ShardModel returns the model that the shard of a fit in dir is for, the zero ModelInfo if
// there is no such shard.
func ShardModel(dir string) (ModelInfo, error) {
	s, err := readShard(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ModelInfo{}, nil
	}
	return s.Info.Model, err
}

// FitShards ends what FitShard did in all of dirs, in any order: the detector is the
// one that Fit would have made, to the last bit. The errors name a shard that is
// missing or not complete, and the first difference between two.
func FitShards(ctx context.Context, m *Model, dirs []string) (*Detector, error) {
	if len(dirs) == 0 {
		return nil, errors.New("nac: no shards")
	}
	all := make([]shardInfo, len(dirs))
	shards := make([]shard.Shard, len(dirs))
	for i, dir := range dirs {
		var err error
		if all[i], err = readShard(dir); err != nil {
			return nil, err
		}
		if why := all[0].differs(all[i]); why != "" {
			return nil, fmt.Errorf("nac: %s and %s are shards of different work: %s", dirs[0], dir, why)
		}
		shards[i] = all[i].Shard
	}
	places, err := shard.Place(shards, dirs)
	if err != nil {
		return nil, fmt.Errorf("nac: %w", err)
	}
	s := all[places[0]]
	if why := s.Info.Model.differs(m.Info()); why != "" {
		return nil, fmt.Errorf("nac: the shards are of another model, %s: %s", s.Info.Model.Name, why)
	}
	if have := kernel.Best().Name(); have != s.Kernel {
		return nil, fmt.Errorf("nac: the shards were computed with %s, which this machine does not have or is not its best, %s: its results would differ in the last digits", s.Kernel, have)
	}
	s.Info.Model = m.Info()
	f := &fitter{
		ctx: ctx, model: m, info: s.Info, asGiven: s.AsGiven, network: probe.NetworkOf(m.network, s.Info.Transform.Std),
		o: &FitOptions{
			Detector: s.Info.Detector, Settings: s.Given, Layers: s.Layers, Transform: s.Info.Transform, Rate: s.Rate, PerClass: s.Info.PerClass,
			Progress: func(string, int, int) {},
		},
		stored: map[string]*states.Joined{},
	}
	var caches []*states.Cache
	for _, dir := range dirs {
		c, err := states.Open(filepath.Join(dir, shardStates))
		if err != nil {
			return nil, fmt.Errorf("%w; the shard's fit was not finished", err)
		}
		caches = append(caches, c)
	}
	for _, set := range s.Sets {
		if err := f.read(set, s.Counted, dirs, places, all, caches); err != nil {
			return nil, err
		}
	}
	if err := f.candidates(); err != nil {
		return nil, err
	}
	return f.finish()
}

// read finds what the shards have of a set.
func (f *fitter) read(set shardSet, counted bool, dirs []string, places []int, all []shardInfo, caches []*states.Cache) error {
	to := map[string]*fitSet{trainSet: &f.train, valSet: &f.val, calibrationSet: &f.calibration, valOODSet: &f.valOOD}[set.Name]
	if to == nil {
		return fmt.Errorf("nac: %s: there is no set %q", filepath.Join(dirs[0], shardFile), set.Name)
	}
	unfinished := func(i int, err error) error {
		return fmt.Errorf("nac: shard %v in %s is not complete, call its fit again: %w", all[i].Shard, dirs[i], err)
	}
	if counted && set.Name == trainSet {
		images := 0
		for _, i := range places {
			first, last := all[i].Range(set.Images)
			if first == last {
				continue
			}
			c, err := coverage.Load(filepath.Join(dirs[i], shardCounts))
			if errors.Is(err, fs.ErrNotExist) {
				return unfinished(i, err)
			}
			if err != nil {
				return err
			}
			if n := c.Samples(); n > int64(last-first) {
				return fmt.Errorf("nac: %s counts %d images, the shard has %d", filepath.Join(dirs[i], shardCounts), n, last-first)
			}
			images += last - first - int(c.Samples())
			f.counted = append(f.counted, c)
		}
		f.info.Fit.Skipped += images
		*to = fitSet{name: set.Name, List: imageset.List{Name: set.Source}}
		return nil
	}
	for i, c := range caches {
		if first, last := all[i].Range(set.Images); first < last {
			if _, err := c.Set(set.Name); errors.Is(err, fs.ErrNotExist) {
				return unfinished(i, err)
			}
		}
	}
	joined, err := states.Join(caches, set.Name)
	if err != nil {
		return err
	}
	list, err := joined.List()
	if err != nil {
		return err
	}
	if len(list.Items) != set.Images || list.Hash() != set.Hash {
		return fmt.Errorf("nac: the states of set %s are of another list than %s says", set.Name, shardFile)
	}
	*to = fitSet{name: set.Name, List: imageset.List{Name: set.Source}}
	for _, item := range list.Items {
		to.Items = append(to.Items, imageset.Item{Path: item.Path, Label: item.Label})
	}
	f.stored[set.Name] = joined
	return nil
}

// replay gives take what the network yielded for a list.
func (f *fitter) replay(stage string, list fitSet, take func(b *imageset.Batch, in *detector.Inputs) error) error {
	joined := f.stored[list.name]
	want := states.Want{Logits: true, Feature: true}
	for _, l := range joined.Identity().Layers {
		want.Layers = append(want.Layers, l.Name)
	}
	want.Gradients = joined.Identity().Gradients
	last := list.first + len(list.Items)
	err := joined.Read(f.ctx, want, func(b *states.Batch) error {
		from, _ := slices.BinarySearch(b.Positions, list.first)
		end, _ := slices.BinarySearch(b.Positions, last)
		for from < end {
			to := min(from+batchImages, end)
			rows := b.Rows(from, to)
			at := &imageset.Batch{N: rows.N, Labels: rows.Labels}
			for _, p := range rows.Positions {
				at.Index = append(at.Index, p-list.first)
			}
			in := &detector.Inputs{N: rows.N, Logits: rows.Logits, Feature: rows.Feature, States: rows.States, Labels: rows.Labels}
			if err := take(at, in); err != nil {
				return err
			}
			from = to
		}
		return nil
	})
	if err != nil {
		return err
	}
	var why []error
	for _, s := range joined.Skipped() {
		if s.Position >= list.first && s.Position < last {
			why = append(why, errors.New(s.Reason))
		}
	}
	return f.skipped(list, why)
}

// addCounts ends fitting of what the shards have counted.
func (f *fitter) addCounts() error {
	d := f.fitting[0]
	if err := d.Begin(f.network); err != nil {
		return err
	}
	for _, c := range f.counted {
		if err := covered(d).Merge(c); err != nil {
			return fmt.Errorf("nac: %w", err)
		}
	}
	f.info.Fit.Images += int(covered(d).Samples())
	return d.End()
}

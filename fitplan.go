package nac

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/internal/kernel"
	"nac/shard"
	"nac/states"
)

// FitPlan says what is to be done to fit a detector: which images the network is run
// over and what is kept of each. FitShard follows it; so can programs that run
// networks on machines of their own, and bring what they yielded to Finish. The same
// images and options give the same plan.
type FitPlan struct {
	f     *fitter
	info  shardInfo
	needs detector.Needs
	id    states.Identity
	lists []states.List
}

// PlanFit makes the plan of what Fit would do.
func PlanFit(ctx context.Context, m *Model, images imageset.List, o FitOptions) (*FitPlan, error) {
	if err := o.defaults(m); err != nil {
		return nil, err
	}
	f, err := newFitter(ctx, m, images, &o)
	if err != nil {
		return nil, err
	}
	p := &FitPlan{f: f}
	if p.needs, err = f.shardNeeds(); err != nil {
		return nil, err
	}
	p.info = shardInfo{
		Format: shardFormat, Version: shardVersion, Info: f.info, Layers: o.Layers, Given: o.Settings,
		AsGiven: f.asGiven, Counted: f.counts(), Rate: o.Rate, Kernel: kernel.Best().Name(),
	}
	p.id = states.Identity{
		Arch: m.info.Name, Checkpoint: filepath.Base(m.info.Path), ModelHash: m.hash(), Classes: m.info.Classes, Features: m.network.Features,
		Gradients: p.needs.Gradients, Transform: fmt.Sprintf("%+v", o.Transform), Kernel: p.info.Kernel,
	}
	for _, name := range p.needs.Layers {
		l, err := m.network.Layer(name)
		if err != nil {
			return nil, fmt.Errorf("nac: %w", err)
		}
		p.id.Layers = append(p.id.Layers, states.Layer{Name: l.Name, Channels: l.Channels})
	}
	for _, set := range f.sets() {
		list := states.List{Name: set.name, Group: set.name}
		for _, item := range set.Items {
			list.Items = append(list.Items, states.Item{Path: item.Path, Bytes: -1, Label: item.Label})
		}
		p.lists = append(p.lists, list)
		p.info.Sets = append(p.info.Sets, shardSet{set.name, set.Name, len(set.Items), list.Hash()})
	}
	return p, nil
}

// Sets returns the names of the sets of images, and Items the images of one.
func (p *FitPlan) Sets() (names []string) {
	for _, s := range p.f.sets() {
		names = append(names, s.name)
	}
	return names
}

// Items returns the images of a set, nil if there is no such set.
func (p *FitPlan) Items(set string) []imageset.Item {
	for _, s := range p.f.sets() {
		if s.name == set {
			return s.Items
		}
	}
	return nil
}

// Counted tells whether images of the set need only be counted; see Coverage.
func (p *FitPlan) Counted(set string) bool { return p.info.Counted && set == trainSet }

// Coverage returns the settings of the coverage that counts the training images, and the
// number of neurons of each layer; there are none if they are not only counted.
func (p *FitPlan) Coverage() (settings []coverage.LayerSettings, channels map[string]int) {
	if !p.info.Counted {
		return nil, nil
	}
	return p.f.o.Settings.Layers, p.f.network.Channels
}

// Yield says what is read of the network.
type Yield struct {
	Transform imageset.Transform
	Layers    []string
	Gradients bool
	// Kernel is the instruction set to compute with: others round differently.
	Kernel string
}

// Yield returns what is kept of each image.
func (p *FitPlan) Yield() Yield {
	return Yield{p.f.o.Transform, p.needs.Layers, p.needs.Gradients, p.info.Kernel}
}

// FitRow is what the network yielded for the image at a position of a set.
type FitRow struct {
	Set             string
	Position        int
	Reason          string // why the image was left out; empty if it was not
	Logits, Feature []float32
	States          []coverage.States // in the order of Yield.Layers
}

// Finish fits and calibrates the detector of the rows of all sets, which it sorts, and
// the counts, nil if there are none. It is the one that Fit would have made, to the
// last bit. An image that has not come is an error; one that came twice counts once.
func (p *FitPlan) Finish(ctx context.Context, rows []FitRow, counts *coverage.Coverage) (*Detector, error) {
	dir, err := os.MkdirTemp("", "nac-fit-")
	if err != nil {
		return nil, fmt.Errorf("nac: %w", err)
	}
	defer os.RemoveAll(dir)
	slices.SortFunc(rows, func(a, b FitRow) int { return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Position, b.Position)) })
	rows = slices.CompactFunc(rows, func(a, b FitRow) bool { return a.Set == b.Set && a.Position == b.Position })
	if err := p.write(dir, rows, counts); err != nil {
		return nil, err
	}
	return FitShards(ctx, p.f.model, []string{dir})
}

// write makes the only shard of rows and counts.
func (p *FitPlan) write(dir string, rows []FitRow, counts *coverage.Coverage) error {
	cache, err := p.open(dir, shard.Shard{})
	if err != nil {
		return err
	}
	defer cache.Close()
	for _, list := range p.lists {
		if p.Counted(list.Name) {
			if counts == nil {
				return fmt.Errorf("nac: no counts of set %s", list.Name)
			}
			if err := counts.Save(filepath.Join(dir, shardCounts)); err != nil {
				return err
			}
			continue
		}
		if list, err = list.Shard(p.info.Shard); err != nil {
			return err
		}
		w, err := cache.Begin(list, states.Options{})
		if err != nil {
			return err
		}
		var why []error
		fill := w.Filler(func() []error { return why })
		from, _ := slices.BinarySearchFunc(rows, list.Name, func(r FitRow, name string) int { return cmp.Compare(r.Set, name) })
		next := 0
		for ; from < len(rows) && rows[from].Set == list.Name; from, next = from+1, next+1 {
			r := rows[from]
			if r.Position != next {
				break
			}
			if r.Reason != "" {
				why = append(why, fmt.Errorf("%s", r.Reason))
				continue
			}
			if err := fill.Add([]int{r.Position}, &states.Batch{N: 1, Logits: r.Logits, Feature: r.Feature, States: r.States}); err != nil {
				return err
			}
		}
		if next != len(list.Items) {
			return fmt.Errorf("nac: set %s: the image at position %d of %d has not come", list.Name, next, len(list.Items))
		}
		if err := fill.End(); err != nil {
			return err
		}
		if err := w.End(); err != nil {
			return err
		}
	}
	return nil
}

// open makes the folder of a shard, or takes it up.
func (p *FitPlan) open(dir string, s shard.Shard) (*states.Cache, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("nac: %w", err)
	}
	if s.Of == 0 {
		s = shard.Shard{Index: 0, Of: 1}
	}
	p.info.Shard = s
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("nac: %w", err)
	}
	cache, err := states.Create(filepath.Join(dir, shardStates), p.id)
	if err != nil {
		return nil, err
	}
	if err := p.info.write(dir); err != nil {
		cache.Close()
		return nil, err
	}
	return cache, nil
}

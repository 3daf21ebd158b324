package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"nac/coverage"
	"nac/states"
)

// Set is a set of images whose states can be read more than once; *states.Set is one.
type Set interface {
	Images() int
	Read(ctx context.Context, want states.Want, f func(*states.Batch) error) error
}

// Sets are the images that a search reads.
type Sets struct {
	Train       Set // ID training images to fit on
	Val, ValOOD Set // validation images, ID and OOD
	// SubTrain are ID training images that are not fitted on, for the sanity check;
	// nil if there are none.
	SubTrain Set
}

// Progress is told how the reading of sets goes on, from one goroutine.
type Progress interface {
	Begin(set string, images int)
	Advance(images int)
	End()
}

type silent struct{}

func (silent) Begin(string, int) {}
func (silent) Advance(int)       {}
func (silent) End()              {}

// ScoreOptions are the settings of Score; the zero value will do.
type ScoreOptions struct {
	Workers int // processors to use; 0 means all
	// MemoryBytes bounds the histograms that are held at once; 0 means 1 GiB.
	// Sets are read again for those that do not fit.
	MemoryBytes int64
	Progress    Progress // may be nil
}

// The sets of validation images, as indices.
const (
	val = iota
	valOOD
	subTrain
	sets
)

// Table holds the score that each choice of each layer gives each validation image.
// It may be searched by many goroutines at once.
type Table struct {
	space   Space
	choices [][]Choice   // of each layer
	scores  [][]*vectors // likewise; nil for a layer left out
	images  [sets]int
	workers int
}

// vectors are one choice's scores of each image, by set.
type vectors = [sets][]float64

// histogram is one layer's histogram and those of its choices that read it: they
// differ in O and weight alone.
type histogram struct {
	settings coverage.LayerSettings
	channels int
	layer    *coverage.Layer
	users    []user
}

// user scores by a histogram with its O.
type user struct {
	o      int
	scores *vectors
	layer  *coverage.Layer
}

// Score fits every layer and setting of the space on the training images and scores
// the validation images with them. channels gives the number of neurons of each
// layer.
func Score(ctx context.Context, space Space, data Sets, channels map[string]int, o ScoreOptions) (*Table, error) {
	if err := space.Validate(); err != nil {
		return nil, err
	}
	if data.Train == nil || data.Val == nil || data.ValOOD == nil {
		return nil, errors.New("search: training images and validation images, ID and OOD, are needed")
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = 1 << 30
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	t := &Table{space: space, workers: o.Workers}
	t.images[val], t.images[valOOD] = data.Val.Images(), data.ValOOD.Images()
	if data.SubTrain != nil {
		t.images[subTrain] = data.SubTrain.Images()
	}
	all, err := t.plan(channels)
	if err != nil {
		return nil, err
	}
	want := states.Want{Layers: space.LayerNames(), Gradients: space.Gradients()}
	for len(all) > 0 {
		n, bytes := 0, int64(0)
		for n < len(all) && (n == 0 || bytes+all[n].bytes() <= o.MemoryBytes) {
			bytes += all[n].bytes()
			n++
		}
		if err := t.pass(ctx, data, want, all[:n], o.Progress); err != nil {
			return nil, err
		}
		all = all[n:]
	}
	return t, nil
}

// plan makes the vectors of all choices and lists the histograms that fill them.
func (t *Table) plan(channels map[string]int) ([]*histogram, error) {
	var all []*histogram
	for _, l := range t.space.Layers {
		c, ok := channels[l.Layer]
		if !ok || c < 1 {
			return nil, fmt.Errorf("search: there are no states of layer %q", l.Layer)
		}
		choices := l.Choices()
		of := make([]*vectors, len(choices))
		hists := map[coverage.LayerSettings]*histogram{}
		shared := map[coverage.LayerSettings]*vectors{} // weights share them
		for i, choice := range choices {
			if choice.LeftOut {
				continue
			}
			s := choice.LayerSettings
			s.Weight = 0
			if of[i] = shared[s]; of[i] != nil {
				continue
			}
			v := &vectors{}
			for set, n := range t.images {
				v[set] = make([]float64, n)
			}
			shared[s], of[i] = v, v
			o := s.O
			s.O = 1
			h := hists[s]
			if h == nil {
				h = &histogram{settings: s, channels: c}
				hists[s], all = h, append(all, h)
			}
			h.users = append(h.users, user{o: o, scores: v})
		}
		t.choices, t.scores = append(t.choices, choices), append(t.scores, of)
	}
	return all, nil
}

// bytes is about what the histogram holds, with the copies for each O and the
// capped tables that scoring makes.
func (h *histogram) bytes() int64 {
	return int64(h.channels) * int64(h.settings.M+2) * int64(4+8*len(h.users))
}

// pass fills the vectors of some histograms.
func (t *Table) pass(ctx context.Context, data Sets, want states.Want, all []*histogram, progress Progress) error {
	for _, h := range all {
		var err error
		if h.layer, err = coverage.NewLayer(h.settings, h.channels); err != nil {
			return err
		}
	}
	// The longest work first, so that no worker is left with it at the end.
	byWork := slices.Clone(all)
	slices.SortStableFunc(byWork, func(a, b *histogram) int { return cmp.Compare(b.channels, a.channels) })
	err := read(ctx, "fit", data.Train, want, progress, func(b *states.Batch, _ int) error {
		return parallel(t.workers, len(byWork), func(i int) error {
			h := byWork[i]
			s := find(b, h.settings.Layer)
			return h.layer.Add(s.Z, s.G, b.N)
		})
	})
	if err != nil {
		return err
	}
	var users []*user
	for _, h := range byWork {
		for i := range h.users {
			u := &h.users[i]
			if u.layer, err = h.layer.WithMinActivations(u.o); err != nil {
				return err
			}
			users = append(users, u)
		}
		h.layer = nil
	}
	for i, set := range []Set{val: data.Val, valOOD: data.ValOOD, subTrain: data.SubTrain} {
		if set == nil {
			continue
		}
		name := [sets]string{"score val", "score val_ood", "score sub_train"}[i]
		err := read(ctx, name, set, want, progress, func(b *states.Batch, at int) error {
			return parallel(t.workers, len(users), func(k int) error {
				u := users[k]
				s := find(b, u.layer.Settings().Layer)
				return u.layer.ScoreFloat64(s.Z, s.G, b.N, u.scores[i][at:at+b.N])
			})
		})
		if err != nil {
			return err
		}
	}
	for _, u := range users {
		u.layer = nil
	}
	return nil
}

// read gives a set's batches to f, with the place of each batch's first image.
func read(ctx context.Context, name string, set Set, want states.Want, progress Progress, f func(b *states.Batch, at int) error) error {
	n := set.Images()
	progress.Begin(name, n)
	at := 0
	err := set.Read(ctx, want, func(b *states.Batch) error {
		if at+b.N > n {
			return fmt.Errorf("more than the %d images there should be", n)
		}
		if err := f(b, at); err != nil {
			return err
		}
		at += b.N
		progress.Advance(b.N)
		return nil
	})
	progress.End()
	if err == nil && (at != n || n == 0) {
		err = fmt.Errorf("%d images of %d", at, n)
	}
	if err != nil {
		return fmt.Errorf("search: %s: %w", name, err)
	}
	return nil
}

func find(b *states.Batch, layer string) coverage.States {
	i := slices.IndexFunc(b.States, func(s coverage.States) bool { return s.Layer == layer })
	if i < 0 {
		return coverage.States{} // which coverage refuses by name
	}
	return b.States[i]
}

// parallel calls f with 0 to n-1 from as many goroutines as there are workers, and
// returns an error of the lowest i that had one.
func parallel(workers, n int, f func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			errs[i] = f(i)
		}
	}
	var wait sync.WaitGroup
	for range min(workers, n) - 1 {
		wait.Go(work)
	}
	work()
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

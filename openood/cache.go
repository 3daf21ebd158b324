package openood

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"nac/arch"
	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/shard"
	"nac/states"
)

// Part is one set of a benchmark's data: all images of Source, or those at
// Indices if that is not nil.
type Part struct {
	// Name is the set's in a cache, Group what it is for; see states.List.
	Name, Group string
	Source      Source
	Indices     []int

	list *states.List // of a shard, which its images alone do not tell
}

// Shard returns a shard of the part; paths are kept relative to base.
func (p Part) Shard(s shard.Shard, base string) (Part, error) {
	l, err := p.List(base).Shard(s)
	if err != nil {
		return p, err
	}
	if l.Part.Images < s.Of {
		return p, fmt.Errorf("openood: set %s: %d images cannot be divided among %d shards", p.Name, l.Part.Images, s.Of)
	}
	indices := make([]int, len(l.Items))
	for i := range indices {
		indices[i] = l.Part.First + i
		if p.Indices != nil {
			indices[i] = p.Indices[indices[i]]
		}
	}
	p.Indices, p.list = indices, &l
	return p, nil
}

// parts visits the sets, those that a parameter search needs first.
func (d *Data) parts(visit func(name, group string, source *Source, indices *[]int)) {
	var none []int
	one := func(name string, s *Source, indices *[]int) {
		if *s != nil {
			visit(name, name, s, indices)
		}
	}
	one("train", &d.Train, &d.TrainIndices)
	one("sub_train", &d.SubTrain, &d.SubIndices)
	one("val", &d.Val, &none)
	one("val_ood", &d.ValOOD, &none)
	one("test", &d.Test, &none)
	for _, g := range []struct {
		group string
		sets  []Images
	}{{"near", d.Near}, {"far", d.Far}, {"csid", d.CSID}} {
		for i := range g.sets {
			visit(g.sets[i].Name, g.group, &g.sets[i].Source, &none)
		}
	}
}

// Parts returns the benchmark's sets, those that a parameter search needs first.
func (d *Data) Parts() (parts []Part) {
	d.parts(func(name, group string, s *Source, indices *[]int) {
		parts = append(parts, Part{Name: name, Group: group, Source: *s, Indices: *indices})
	})
	return parts
}

// List names the part's images for a cache, with paths relative to base.
func (p Part) List(base string) states.List {
	if p.list != nil {
		return *p.list
	}
	l := states.List{Name: p.Name, Group: p.Group}
	labels := p.Source.Labels()
	add := func(i int) {
		item := states.Item{Path: relative(base, p.Source.Path(i)), Bytes: -1, Label: labels[i]}
		if s, ok := p.Source.(interface{ Bytes(i int) int64 }); ok {
			item.Bytes = s.Bytes(i)
		}
		l.Items = append(l.Items, item)
	}
	if p.Indices == nil {
		for i := range labels {
			add(i)
		}
	}
	for _, i := range p.Indices {
		add(i)
	}
	return l
}

func relative(base, path string) string {
	if r, err := filepath.Rel(base, path); err == nil && base != "" && filepath.IsLocal(r) {
		path = r
	}
	return filepath.ToSlash(path)
}

// Extract runs the network over the parts, except over what an earlier run has
// left in the cache, and adds what it yields to the cache. Paths are kept relative
// to base. Memory does not grow with the number of images.
func Extract(ctx context.Context, parts []Part, base string, cache *states.Cache, extract Extractor, progress Progress) error {
	if progress == nil {
		progress = silent{}
	}
	writers := make([]*states.Writer, len(parts))
	images := 0
	for i, p := range parts {
		var err error
		if writers[i], err = cache.Begin(p.List(base), states.Options{}); err != nil {
			return err
		}
		images += len(writers[i].Missing())
	}
	estimated := false
	for i, p := range parts {
		w := writers[i]
		missing := w.Missing()
		progress.Begin(p.Name, len(missing))
		if len(missing) > 0 {
			if err := extractPart(ctx, p, w, func(b *imageset.Batch) (*arch.Batch, error) {
				start := time.Now()
				out, err := extract.Run(b.Images, b.N)
				if err == nil && !estimated {
					estimated = true
					e := Estimate{Images: images, ImagesPerSecond: float64(b.N) / time.Since(start).Seconds()}
					e.Seconds = float64(images) / e.ImagesPerSecond
					e.MemoryBytes = extract.MemoryBytes() + p.Source.MemoryBytes() + states.WriterMemory
					progress.Estimated(e)
				}
				return out, err
			}, progress); err != nil {
				return err
			}
		}
		progress.End()
		if err := w.End(); err != nil {
			return err
		}
	}
	return nil
}

// extractPart adds the missing images of one part.
func extractPart(ctx context.Context, p Part, w *states.Writer, run func(*imageset.Batch) (*arch.Batch, error), progress Progress) error {
	missing := w.Missing()
	indices := missing
	if p.Indices != nil {
		indices = make([]int, len(missing))
		for i, m := range missing {
			indices[i] = p.Indices[m]
		}
	}
	stream := p.Source.Open(ctx, indices)
	defer stream.Close()
	fill := w.Filler(stream.Skipped)
	var batch states.Batch
	for {
		b, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return fill.End()
		}
		if err != nil {
			return err
		}
		out, err := run(b)
		if err != nil {
			return fmt.Errorf("openood: %s: %w", p.Name, err)
		}
		if err := finite(out.Logits); err != nil {
			return fmt.Errorf("openood: %s: %w", p.Name, err)
		}
		batch = states.Batch{N: b.N, Logits: out.Logits, Feature: out.Feature, States: batch.States[:0]}
		for _, s := range out.States {
			batch.States = append(batch.States, coverage.States{Layer: s.Name, Z: s.Z, G: s.G})
		}
		if err := fill.Add(b.Index, &batch); err != nil {
			return err
		}
		progress.Advance(b.N)
		b.Release()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// silent is the Progress of nobody.
type silent struct{}

func (silent) Estimated(Estimate) {}
func (silent) Begin(string, int)  {}
func (silent) Advance(int)        {}
func (silent) End()               {}

// Refused is a set that a cache cannot serve, and why.
type Refused struct {
	Set string
	Why error
}

// Lacking returns those of the parts that the cache does not hold yet. A set that it
// holds of other images is an error.
func Lacking(c *states.Cache, parts []Part, base string) (lack []Part, err error) {
	for _, p := range parts {
		set, err := c.Set(p.Name)
		if errors.Is(err, fs.ErrNotExist) {
			lack = append(lack, p)
			continue
		}
		if err == nil {
			err = set.Serves(p.List(base))
		}
		if err != nil {
			return nil, fmt.Errorf("openood: the cache in %s: %w", c.Dir(), err)
		}
	}
	return lack, nil
}

// UseCache makes the runner read from the cache those sets that it holds of the
// same images, and returns their names. absent are those that it does not hold, and
// refused those that it holds of other images. Whether the cache is of the right
// network is for the caller to see; see states.Identity.Serves.
func (d *Data) UseCache(c *states.Cache, base string) (used, absent []string, refused []Refused, err error) {
	d.parts(func(name, group string, s *Source, indices *[]int) {
		if err != nil {
			return
		}
		set, e := c.Set(name)
		if errors.Is(e, fs.ErrNotExist) {
			absent = append(absent, name)
			return
		}
		if e != nil {
			err = e
			return
		}
		p := Part{Name: name, Group: group, Source: *s, Indices: *indices}
		if e := set.Serves(p.List(base)); e != nil {
			refused = append(refused, Refused{name, e})
			return
		}
		*s, *indices = &cached{subset{p.Source, p.Indices}, set}, nil
		used = append(used, name)
	})
	if len(used) > 0 {
		d.CacheDir = c.Dir()
	}
	return used, absent, refused, err
}

// subset is a Source of some images of another; nil indices mean all.
type subset struct {
	Source
	indices []int
}

func (s *subset) Labels() []int {
	all := s.Source.Labels()
	if s.indices == nil {
		return all
	}
	labels := make([]int, len(s.indices))
	for i, j := range s.indices {
		labels[i] = all[j]
	}
	return labels
}

func (s *subset) index(i int) int {
	if s.indices == nil {
		return i
	}
	return s.indices[i]
}

func (s *subset) Path(i int) string { return s.Source.Path(s.index(i)) }

func (s *subset) Open(ctx context.Context, indices []int) Stream {
	if s.indices == nil {
		return s.Source.Open(ctx, indices)
	}
	if indices == nil {
		return s.Source.Open(ctx, s.indices)
	}
	of := make([]int, len(indices))
	for i, j := range indices {
		of[i] = s.indices[j]
	}
	return s.Source.Open(ctx, of)
}

// cached is a Source whose images have been through the network already.
type cached struct {
	subset
	set *states.Set
}

// cachedRows is how many images detectors are given at a time: shards are larger
// than some detectors would like.
const cachedRows = 256

// outputs calls f with batches as each does for images: Batch has no pixels.
func (c *cached) outputs(ctx context.Context, needs detector.Needs, f func(*imageset.Batch, *arch.Batch) error) error {
	want := states.Want{Logits: true, Feature: true, Layers: needs.Layers, Gradients: needs.Gradients}
	return c.set.Read(ctx, want, func(s *states.Batch) error {
		for from := 0; from < s.N; from += cachedRows {
			to := min(from+cachedRows, s.N)
			rows := func(v []float32) []float32 {
				width := len(v) / s.N
				return v[from*width : to*width]
			}
			out := &arch.Batch{N: to - from, Logits: rows(s.Logits), Feature: rows(s.Feature)}
			for _, l := range s.States {
				out.States = append(out.States, arch.LayerStates{Name: l.Layer, Channels: len(l.Z) / s.N, Z: rows(l.Z), G: rows(l.G)})
			}
			b := &imageset.Batch{N: to - from, Index: s.Positions[from:to], Labels: s.Labels[from:to]}
			if err := f(b, out); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// CacheDirName is where the states of a benchmark are kept unless the user says
// otherwise, below the data folder: a name for each checkpoint.
func CacheDirName(benchmark string, id states.Identity) string {
	return filepath.Join("nac-states", strings.Join([]string{benchmark, id.Arch, id.ModelHash[:min(12, len(id.ModelHash))]}, "-"))
}

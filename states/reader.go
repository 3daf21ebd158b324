package states

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"nac/coverage"
)

func sortSkipped(s []Skipped) {
	slices.SortFunc(s, func(a, b Skipped) int { return cmp.Compare(a.Position, b.Position) })
}

// Set is a complete set of a cache.
type Set struct {
	cache *Cache
	info  setInfo
}

// Set opens a set by its name and compares the shards' sizes; their contents are
// compared when they are read. The error for one that is not there wraps
// fs.ErrNotExist.
func (c *Cache) Set(name string) (*Set, error) {
	s := &Set{cache: c}
	if !goodName(name) {
		return nil, fmt.Errorf("states: %q is not a set's name", name)
	}
	path := filepath.Join(c.dir, name, setFile)
	if err := readJSON(path, &s.info); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("states: the cache in %s has no complete set %s: %w", c.dir, name, fs.ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("states: %s: %w", path, err)
	}
	return s, nil
}

func (s *Set) check() error {
	i := s.info
	made, err := madeOf(s.cache.id, i.ListHash, i.PerShard)
	if err != nil {
		return err
	}
	if i.MadeOf != made {
		return errors.New("the set was not made with this cache.json")
	}
	if p := i.Part; p != nil {
		if first, last := p.Range(p.Images); p.Validate() != nil || p.Of == 0 || p.First != first || i.Images != last-first {
			return fmt.Errorf("%d images are not shard %v of %d", i.Images, p.Shard, p.Images)
		}
	}
	if i.PerShard < 1 || i.Images < 1 || len(i.Shards) != (i.Images+i.PerShard-1)/i.PerShard {
		return fmt.Errorf("%d images in %d shards of %d", i.Images, len(i.Shards), i.PerShard)
	}
	rows := 0
	for n, f := range i.Shards {
		if f.File != shardName(n) {
			return fmt.Errorf("shard %d is called %q", n, f.File)
		}
		info, err := os.Stat(filepath.Join(s.cache.dir, i.Set, f.File))
		if err != nil {
			return err
		}
		if info.Size() != f.Bytes {
			return fmt.Errorf("%s has %d bytes, not %d", f.File, info.Size(), f.Bytes)
		}
		if f.Rows < 0 || f.Rows > i.PerShard {
			return fmt.Errorf("%s has %d rows", f.File, f.Rows)
		}
		rows += f.Rows
	}
	if rows != i.Rows || i.Rows+len(i.Skipped) != i.Images {
		return fmt.Errorf("%d rows in shards, %d in all, %d skipped, of %d images", rows, i.Rows, len(i.Skipped), i.Images)
	}
	return nil
}

// Name is the set's name.
func (s *Set) Name() string { return s.info.Set }

// Group is what the set is for: see List.
func (s *Set) Group() string { return s.info.Group }

// Images is the number of images that the set has: those of the list without the
// skipped ones.
func (s *Set) Images() int { return s.info.Rows }

// Skipped returns the images that could not be read.
func (s *Set) Skipped() []Skipped { return s.info.Skipped }

// Part says which shard of a longer list the set is of; nil if it is of a whole one.
func (s *Set) Part() *Part { return s.info.Part }

// Bytes is the size of the shards.
func (s *Set) Bytes() (n int64) {
	for _, f := range s.info.Shards {
		n += f.Bytes
	}
	return n
}

// Serves tells why the set cannot stand in for a list, or returns nil.
func (s *Set) Serves(l List) error {
	want := setInfo{Images: len(l.Items), ListHash: l.Hash(), Part: l.Part}
	if s.info.Images != want.Images || s.info.ListHash != want.ListHash || !samePart(s.info.Part, l.Part) {
		return fmt.Errorf("set %s is of %s", s.info.Set, otherList(s.info, want))
	}
	return nil
}

// Want says what to read of each image.
type Want struct {
	Logits, Feature bool
	Layers          []string
	Gradients       bool
}

// all is everything that a cache of this identity holds.
func (id Identity) all() Want {
	want := Want{Logits: true, Feature: true, Gradients: id.Gradients}
	for _, l := range id.Layers {
		want.Layers = append(want.Layers, l.Name)
	}
	return want
}

// Read gives the set's images to f, a shard at a time, in the order of the list.
// Every tensor that is read is verified: shape, checksum, finite values. Positions,
// labels, predictions and whether they are correct are always there. The batch is
// valid until f returns. Memory is that of three shards.
func (s *Set) Read(ctx context.Context, want Want, f func(*Batch) error) error {
	columns := s.cache.id.columns()
	for _, l := range want.Layers {
		if !slices.ContainsFunc(s.cache.id.Layers, func(have Layer) bool { return have.Name == l }) {
			return fmt.Errorf("states: the cache in %s lacks layer %s", s.cache.dir, l)
		}
	}
	if want.Gradients && len(want.Layers) > 0 && !s.cache.id.Gradients {
		return fmt.Errorf("states: the cache in %s holds no gradients", s.cache.dir)
	}
	type result struct {
		b   *Batch
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	ready := make(chan result, 1)
	free := make(chan *Batch, 3)
	for range 3 {
		free <- &Batch{}
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Add(1)
	go func() {
		defer wait.Done()
		defer close(ready)
		var buf []byte
		for n := range s.info.Shards {
			var r result
			select {
			case r.b = <-free:
			case <-ctx.Done():
				return
			}
			buf, r.err = s.shard(n, columns, want, r.b, buf)
			select {
			case ready <- r:
			case <-ctx.Done():
				return
			}
			if r.err != nil {
				return
			}
		}
	}()
	for r := range ready {
		if r.err != nil {
			return fmt.Errorf("states: %w", r.err)
		}
		if err := f(r.b); err != nil {
			return err
		}
		free <- r.b // has room for all
	}
	return ctx.Err()
}

// shard reads a shard into b.
func (s *Set) shard(n int, columns []column, want Want, b *Batch, buf []byte) ([]byte, error) {
	first := n * s.info.PerShard
	info := shardInfo{
		set: s.info.Set, number: n, first: first, count: min(s.info.PerShard, s.info.Images-first), madeOf: s.info.MadeOf,
	}
	f, err := openShard(filepath.Join(s.cache.dir, s.info.Set, shardName(n)), info, columns)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	if f.info.rows() != s.info.Shards[n].Rows {
		return buf, fmt.Errorf("%s: %d rows, set.json has %d", f.path, f.info.rows(), s.info.Shards[n].Rows)
	}
	b.N = f.info.rows()
	for _, c := range []struct {
		name string
		to   *[]int
	}{{"positions", &b.Positions}, {"labels", &b.Labels}, {"predictions", &b.Predictions}} {
		if buf, err = f.bytes(c.name, buf); err != nil {
			return buf, err
		}
		*c.to = f.ints(buf, *c.to)
	}
	if err := s.positions(f, b); err != nil {
		return buf, err
	}
	if buf, err = f.bytes("correct", buf); err != nil {
		return buf, err
	}
	b.Correct = b.Correct[:0]
	for _, v := range buf {
		b.Correct = append(b.Correct, v != 0)
	}
	read := func(name string, wanted bool, to *[]float32) {
		if err != nil || !wanted {
			return
		}
		if buf, err = f.bytes(name, buf); err == nil {
			*to, err = f.float32s(name, buf, *to)
		}
	}
	read("logits", want.Logits, &b.Logits)
	read("feature", want.Feature, &b.Feature)
	if len(b.States) != len(want.Layers) {
		b.States = make([]coverage.States, len(want.Layers))
	}
	for i, l := range want.Layers {
		b.States[i].Layer = l
		read(zName(l), true, &b.States[i].Z)
		read(gName(l), want.Gradients, &b.States[i].G)
	}
	return buf, err
}

// positions checks that a shard's rows are the images that were not skipped.
func (s *Set) positions(f *opened, b *Batch) error {
	at, skip := f.info.first, f.info.skip
	for _, p := range b.Positions {
		for len(skip) > 0 && skip[0].Position == at {
			at, skip = at+1, skip[1:]
		}
		if p != at {
			return fmt.Errorf("%s: a row of position %d, want %d", f.path, p, at)
		}
		at++
	}
	return nil
}

// Verify reads everything and compares the SHA-256 of whole shards too.
func (s *Set) Verify(ctx context.Context) error {
	if err := s.Read(ctx, s.cache.id.all(), func(*Batch) error { return nil }); err != nil {
		return err
	}
	for _, file := range s.info.Shards {
		path := filepath.Join(s.cache.dir, s.info.Set, file.File)
		_, sum, err := hashFile(path)
		if err != nil {
			return fmt.Errorf("states: %w", err)
		}
		if sum != file.Hash {
			return fmt.Errorf("states: %s: its SHA-256 is not that of set.json: the file was damaged", path)
		}
	}
	return nil
}

// ReaderMemory is about what reading a set holds, in bytes.
const ReaderMemory = 4 * shardBytes

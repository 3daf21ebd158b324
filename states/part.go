package states

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nac/shard"
)

func samePart(a, b *Part) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// Joined is a set whose shards are in caches of their own, read as one.
type Joined struct {
	sets []*Set // in the order of the list
	part Part   // of the first
}

// Join finds the shards of the named set. The caches must be of one identity, and
// every shard must be there once, except such as have no images; the error
// names those that are missing and the first difference.
func Join(caches []*Cache, name string) (*Joined, error) {
	var sets []*Set
	var shards []shard.Shard
	var dirs []string
	for _, c := range caches {
		if err := caches[0].id.same(c.id); err != nil {
			return nil, fmt.Errorf("states: %s and %s cannot be put together: the first is of another network or transform: %w", caches[0].dir, c.dir, err)
		}
		s, err := c.Set(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p := s.info.Part
		if p == nil {
			return nil, fmt.Errorf("states: set %s in %s is whole, no shard of a list", name, c.dir)
		}
		if first := sets; len(first) > 0 {
			if o := first[0].info.Part; o.Images != p.Images || o.ListHash != p.ListHash || first[0].info.Group != s.info.Group {
				return nil, fmt.Errorf("states: set %s: the shards in %s and %s are of different lists (%d and %d images; SHA-256 %.12s... and %.12s...)",
					name, dirs[0], c.dir, o.Images, p.Images, o.ListHash, p.ListHash)
			}
		}
		sets, shards, dirs = append(sets, s), append(shards, p.Shard), append(dirs, c.dir)
	}
	if len(sets) == 0 {
		return nil, fmt.Errorf("states: no complete shard of a set %s: %w", name, fs.ErrNotExist)
	}
	j := &Joined{part: *sets[0].info.Part}
	for i := range j.part.Of {
		none := shard.Shard{Index: i, Of: j.part.Of}
		if first, last := none.Range(j.part.Images); first == last {
			sets, shards, dirs = append(sets, nil), append(shards, none), append(dirs, "an empty shard")
		}
	}
	places, err := shard.Place(shards, dirs)
	if err != nil {
		return nil, fmt.Errorf("states: set %s: %w", name, err)
	}
	for _, p := range places {
		if sets[p] != nil {
			j.sets = append(j.sets, sets[p])
		}
	}
	return j, nil
}

// Identity is what all shards were made of.
func (j *Joined) Identity() Identity { return j.sets[0].cache.id }

// List returns the whole list; sizes of files are not known.
func (j *Joined) List() (List, error) {
	l := List{Name: j.sets[0].info.Set, Group: j.sets[0].info.Group, hash: j.part.ListHash}
	for _, s := range j.sets {
		items, err := s.items()
		if err != nil {
			return l, fmt.Errorf("states: %w", err)
		}
		l.Items = append(l.Items, items...)
	}
	return l, nil
}

// Skipped returns the images that could not be read.
func (j *Joined) Skipped() (all []Skipped) {
	for _, s := range j.sets {
		for _, k := range s.info.Skipped {
			all = append(all, Skipped{k.Position + s.info.Part.First, k.Reason})
		}
	}
	return all
}

// Read is Set.Read of the whole list.
func (j *Joined) Read(ctx context.Context, want Want, f func(*Batch) error) error {
	for _, s := range j.sets {
		err := s.Read(ctx, want, func(b *Batch) error {
			for i := range b.Positions {
				b.Positions[i] += s.info.Part.First
			}
			return f(b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// items reads list.txt.
func (s *Set) items() ([]Item, error) {
	path := filepath.Join(s.cache.dir, s.info.Set, listFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var items []Item
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: line %d is cut off: %w", path, len(items)+1, err)
		}
		cut := strings.LastIndexByte(line, ' ')
		label, err := strconv.Atoi(strings.TrimSuffix(line[cut+1:], "\n"))
		if cut < 0 || err != nil {
			return nil, fmt.Errorf("%s: line %d is not \"path label\"", path, len(items)+1)
		}
		items = append(items, Item{Path: line[:cut], Bytes: -1, Label: label})
	}
	if len(items) != s.info.Images {
		return nil, fmt.Errorf("%s: %d images, set.json has %d", path, len(items), s.info.Images)
	}
	return items, nil
}

// Merge writes the sets of which the caches hold shards to a cache in dir, whole:
// the same bytes as if one process had extracted all images. A run that was killed is
// taken up when called again. progress, if not nil, is told of images done.
func Merge(ctx context.Context, dir string, caches []*Cache, progress func(set string, done, of int)) (*Cache, error) {
	if len(caches) == 0 {
		return nil, errors.New("states: nothing to merge")
	}
	var names []string
	for _, c := range caches {
		of, err := c.Sets()
		if err != nil {
			return nil, err
		}
		names = append(names, of...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("states: no complete set in %s", caches[0].dir)
	}
	joined := make([]*Joined, len(names))
	for i, name := range names {
		var err error
		if joined[i], err = Join(caches, name); err != nil {
			return nil, err
		}
	}
	to, err := Create(dir, caches[0].id)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	for i, j := range joined {
		report := func(done int) {
			if progress != nil {
				progress(names[i], done, j.part.Images)
			}
		}
		list, err := j.List()
		if err != nil {
			return nil, err
		}
		w, err := to.Begin(list, Options{})
		if err != nil {
			return nil, err
		}
		report(0)
		if err := j.copyTo(ctx, w, report); err != nil {
			return nil, err
		}
	}
	return Open(dir)
}

// copyTo writes the set, except what an earlier run has left.
func (j *Joined) copyTo(ctx context.Context, w *Writer, report func(done int)) error {
	skipped := j.Skipped()
	// skip notes the images before the one at position.
	skip := func(position int) error {
		for ; len(skipped) > 0 && skipped[0].Position < position; skipped = skipped[1:] {
			if w.lacks(skipped[0].Position) {
				if err := w.Skip(skipped[0].Position, skipped[0].Reason); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := j.Read(ctx, w.cache.id.all(), func(b *Batch) error {
		for from := 0; from < b.N; {
			if err := skip(b.Positions[from]); err != nil {
				return err
			}
			if !w.lacks(b.Positions[from]) {
				from++
				continue
			}
			to := from + 1
			for to < b.N && b.Positions[to] == b.Positions[to-1]+1 && w.lacks(b.Positions[to]) {
				to++
			}
			if err := w.Add(b.Rows(from, to)); err != nil {
				return err
			}
			from = to
		}
		if b.N > 0 {
			report(b.Positions[b.N-1] + 1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := skip(j.part.Images); err != nil {
		return err
	}
	report(j.part.Images)
	return w.End()
}

// lacks tells whether the image at position has not come yet.
func (w *Writer) lacks(position int) bool { return !w.done[position/w.info.PerShard] }

// Rows returns rows first to last, not included, of the batch.
func (b *Batch) Rows(first, last int) *Batch {
	part := func(v []float32) []float32 {
		width := len(v) / b.N
		return v[first*width : last*width]
	}
	r := &Batch{
		N: last - first, Positions: b.Positions[first:last], Predictions: b.Predictions[first:last],
		Logits: part(b.Logits), Feature: part(b.Feature),
	}
	if b.Labels != nil {
		r.Labels = b.Labels[first:last]
	}
	if b.Correct != nil {
		r.Correct = b.Correct[first:last]
	}
	for _, s := range b.States {
		s.Z, s.G = part(s.Z), part(s.G)
		r.States = append(r.States, s)
	}
	return r
}

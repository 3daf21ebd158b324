package states

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/shard"
)

// writeShards writes each of n shards of the toy lists to a cache of its own.
func writeShards(t *testing.T, n int, o Options, skipped ...int) (caches []*Cache) {
	t.Helper()
	for i := range n {
		c := create(t, t.TempDir())
		for _, set := range killed.sets {
			whole := toyList(set, killed.images)
			l, err := whole.Shard(shard.Shard{Index: i, Of: n})
			if err != nil {
				t.Fatal(err)
			}
			if err := writePart(c, l, o, skipped); err != nil {
				t.Fatal(err)
			}
		}
		caches = append(caches, c)
	}
	return caches
}

// writePart is write of a shard: what an image yields depends on its place in the
// whole list.
func writePart(c *Cache, l List, o Options, skipped []int) error {
	w, err := c.Begin(l, o)
	if err != nil {
		return err
	}
	for _, p := range w.Missing() {
		at := p + l.Part.First
		if slices.Contains(skipped, at) {
			err = w.Skip(p, fmt.Sprintf("image %d is broken", at))
		} else {
			b := toyBatch(c.Identity(), []int{at})
			b.Positions = []int{p}
			err = w.Add(b)
		}
		if err != nil {
			return err
		}
	}
	return w.End()
}

// Merged shards are the bytes of one run, however they were divided, in
// whatever order they come and wherever an earlier merge was killed.
func TestMergedShardsAreOneRun(t *testing.T) {
	one := create(t, t.TempDir())
	for _, set := range killed.sets {
		if err := write(one, toyList(set, killed.images), Options{}, 5, killed.skipped...); err != nil {
			t.Fatal(err)
		}
	}
	want := files(t, one.Dir())
	delete(want, lockFile)
	for _, n := range []int{1, 2, 7} {
		caches := writeShards(t, n, Options{7}, killed.skipped...)
		slices.Reverse(caches)
		dir := filepath.Join(t.TempDir(), "sum")
		for range 2 { // the second time it finds all done
			c, err := Merge(t.Context(), dir, caches, nil)
			if err != nil {
				t.Fatal(err)
			}
			set, err := c.Set("val")
			if err != nil {
				t.Fatal(err)
			}
			if err := set.Serves(toyList("val", killed.images)); err != nil {
				t.Error(err)
			}
			got := files(t, dir)
			delete(got, lockFile)
			if !maps.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("%d shards: other files than those of one run", n)
			}
		}
		if err := os.Remove(filepath.Join(dir, "val", setFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Merge(t.Context(), dir, caches, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A merge that was killed goes on with the shards that are not there.
func TestMergeGoesOn(t *testing.T) {
	caches := writeShards(t, 3, Options{7}, killed.skipped...)
	for _, c := range caches {
		if err := os.RemoveAll(filepath.Join(c.Dir(), "train")); err != nil {
			t.Fatal(err)
		}
	}
	j, err := Join(caches, "val")
	if err != nil {
		t.Fatal(err)
	}
	list, err := j.List()
	if err != nil {
		t.Fatal(err)
	}
	to := create(t, t.TempDir())
	w, err := to.Begin(list, Options{20})
	if err != nil {
		t.Fatal(err)
	}
	// Shards of 20 images; the third and the last but one are there.
	copyTo := func(w *Writer) {
		t.Helper()
		if err := j.copyTo(t.Context(), w, func(int) {}); err != nil {
			t.Fatal(err)
		}
	}
	copyTo(w)
	want := files(t, to.Dir())
	for i := range 11 {
		if i != 2 && i != 9 {
			if err := os.Remove(filepath.Join(to.Dir(), "val", shardName(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if w, err = to.Begin(list, Options{20}); err != nil {
		t.Fatal(err)
	}
	if len(w.Missing()) != 163 {
		t.Fatalf("%d missing", len(w.Missing()))
	}
	copyTo(w)
	if got := files(t, to.Dir()); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Error("other files than before")
	}
}

func TestJoinRefuses(t *testing.T) {
	refused := func(what, says string, caches []*Cache) {
		t.Helper()
		_, err := Merge(t.Context(), filepath.Join(t.TempDir(), "sum"), caches, nil)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
	}
	caches := writeShards(t, 4, Options{})
	refused("none", "nothing", nil)
	refused("missing shards", "2 of 4 shards missing: 1/4, 3/4", []*Cache{caches[0], caches[2]})
	refused("a shard twice", "both shard 2/4", append(slices.Clone(caches), caches[2]))
	refused("shards of other numbers", "number of shards", append(slices.Clone(caches), writeShards(t, 3, Options{})[0]))

	half := writeShards(t, 4, Options{})
	if err := os.Remove(filepath.Join(half[1].Dir(), "val", setFile)); err != nil {
		t.Fatal(err)
	}
	refused("a shard that is not complete", "1 of 4 shards missing: 1/4", half)

	cut := writeShards(t, 4, Options{})
	path := filepath.Join(cut[3].Dir(), "train", shardName(0))
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	refused("a shard that is cut off", path[len(cut[3].Dir())+1+len("train/"):], cut)

	lines := writeShards(t, 4, Options{})
	path = filepath.Join(lines[0].Dir(), "val", listFile)
	if err := os.Truncate(path, 30); err != nil {
		t.Fatal(err)
	}
	refused("a list that is cut off", listFile, lines)

	whole := create(t, t.TempDir())
	if err := write(whole, toyList("val", 9), Options{}, 3); err != nil {
		t.Fatal(err)
	}
	refused("no shards", "whole", []*Cache{whole})

	id := made
	id.ModelHash = "another"
	other, err := Create(t.TempDir(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	refused("another model", "another checkpoint", append(slices.Clone(caches[:3]), other))

	longer := create(t, t.TempDir())
	var l List
	for _, set := range killed.sets {
		if l, err = toyList(set, 204).Shard(shard.Shard{Index: 3, Of: 4}); err != nil {
			t.Fatal(err)
		}
		if err := writePart(longer, l, Options{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	refused("another list", "203 and 204 images", append(slices.Clone(caches[:3]), longer))

	// A folder of one shard is not taken up for another, nor read as the whole.
	if l, err = toyList("val", killed.images).Shard(shard.Shard{Index: 1, Of: 4}); err != nil {
		t.Fatal(err)
	}
	if _, err := caches[0].Begin(l, Options{}); err == nil || !strings.Contains(err.Error(), "shard 0/4, not 1/4") {
		t.Errorf("another shard in the same place: %v", err)
	}
	set, err := caches[0].Set("val")
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Serves(toyList("val", killed.images)); err == nil || !strings.Contains(err.Error(), "shard 0/4, not of the whole list") {
		t.Errorf("a shard in place of the whole: %v", err)
	}
}

package states

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
	"nac/weights"
)

// made is what a small network of two layers yields.
var made = Identity{
	Arch: "toy", Checkpoint: "toy.pth", ModelHash: "abc", Classes: 3, Features: 2,
	Layers: []Layer{{"deep", 4}, {"shallow", 2}}, Gradients: true, Transform: "resize 2", Kernel: "portable",
}

func toyList(name string, n int) List {
	l := List{Name: name, Group: "val"}
	for i := range n {
		l.Items = append(l.Items, Item{Path: fmt.Sprintf("%s/%d.png", name, i), Bytes: int64(100 + i), Label: i%4 - 1})
	}
	return l
}

// toyBatch is what the network yields for images at the positions: a function of
// each position alone.
func toyBatch(id Identity, positions []int) *Batch {
	b := &Batch{N: len(positions), Positions: positions}
	fill := func(salt, width int) (v []float32) {
		for _, p := range positions {
			for i := range width {
				v = append(v, float32(math.Sin(float64(1000*salt+37*p+i))))
			}
		}
		return v
	}
	b.Logits, b.Feature = fill(1, id.Classes), fill(2, id.Features)
	for i, l := range id.Layers {
		s := coverage.States{Layer: l.Name, Z: fill(3+2*i, l.Channels)}
		if id.Gradients {
			s.G = fill(4+2*i, l.Channels)
		}
		b.States = append(b.States, s)
	}
	for _, p := range positions {
		b.Predictions = append(b.Predictions, p%id.Classes)
	}
	return b
}

// write adds what is missing of a set, in batches, leaving out the skipped positions.
func write(c *Cache, l List, o Options, batch int, skipped ...int) error {
	w, err := c.Begin(l, o)
	if err != nil {
		return err
	}
	var positions []int
	flush := func() error {
		b := toyBatch(c.Identity(), positions)
		positions = nil
		return w.Add(b)
	}
	for _, p := range w.Missing() {
		if slices.Contains(skipped, p) {
			if err := flush(); err != nil {
				return err
			}
			if err := w.Skip(p, fmt.Sprintf("image %d is broken", p)); err != nil {
				return err
			}
			continue
		}
		if positions = append(positions, p); len(positions) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return w.End()
}

func create(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := Create(dir, made)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func all(id Identity) Want {
	w := Want{Logits: true, Feature: true, Gradients: id.Gradients}
	for _, l := range id.Layers {
		w.Layers = append(w.Layers, l.Name)
	}
	return w
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		images, perShard, batch int
		skipped                 []int
	}{
		{1, 0, 1, nil},
		{10, 3, 4, nil},
		{12, 4, 5, []int{0, 5, 11}},
		{9, 3, 2, []int{3, 4, 5}}, // a whole shard
		{7, 100, 100, []int{6}},
	} {
		cache := create(t, t.TempDir())
		list := toyList("val", c.images)
		if err := write(cache, list, Options{c.perShard}, c.batch, c.skipped...); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		opened, err := Open(cache.Dir())
		if err != nil {
			t.Fatal(err)
		}
		set, err := opened.Set("val")
		if err != nil {
			t.Fatal(err)
		}
		if set.Images() != c.images-len(c.skipped) || len(set.Skipped()) != len(c.skipped) || set.Group() != "val" {
			t.Errorf("%+v: %d images, %d skipped", c, set.Images(), len(set.Skipped()))
		}
		if err := set.Serves(list); err != nil {
			t.Error(err)
		}
		var positions []int
		err = set.Read(t.Context(), all(made), func(b *Batch) error {
			want := toyBatch(made, b.Positions)
			if !slices.Equal(b.Logits, want.Logits) || !slices.Equal(b.Feature, want.Feature) || !slices.Equal(b.Predictions, want.Predictions) {
				t.Errorf("%+v: other logits, features or predictions at %v", c, b.Positions)
			}
			for i, s := range b.States {
				if w := want.States[i]; s.Layer != w.Layer || !slices.Equal(s.Z, w.Z) || !slices.Equal(s.G, w.G) {
					t.Errorf("%+v: other states of %s at %v", c, s.Layer, b.Positions)
				}
			}
			for i, p := range b.Positions {
				label := list.Items[p].Label
				if b.Labels[i] != label || b.Correct[i] != (label == b.Predictions[i]) {
					t.Errorf("%+v: label %d, correct %v at %d", c, b.Labels[i], b.Correct[i], p)
				}
			}
			positions = append(positions, b.Positions...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var want []int
		for p := range c.images {
			if !slices.Contains(c.skipped, p) {
				want = append(want, p)
			}
		}
		if !slices.Equal(positions, want) {
			t.Errorf("%+v: positions %v, want %v", c, positions, want)
		}
		if err := set.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestReadsOnlyWhatIsWanted(t *testing.T) {
	cache := create(t, t.TempDir())
	if err := write(cache, toyList("val", 10), Options{4}, 3); err != nil {
		t.Fatal(err)
	}
	set, err := cache.Set("val")
	if err != nil {
		t.Fatal(err)
	}
	err = set.Read(t.Context(), Want{Layers: []string{"shallow"}}, func(b *Batch) error {
		if len(b.Logits) > 0 || len(b.Feature) > 0 || len(b.States) != 1 || len(b.States[0].Z) != 2*b.N || b.States[0].G != nil {
			t.Errorf("read %d logits, %d features, %d layers", len(b.Logits), len(b.Feature), len(b.States))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := set.Read(t.Context(), Want{Layers: []string{"middle"}}, nil); err == nil || !strings.Contains(err.Error(), "middle") {
		t.Errorf("a layer that is not there: %v", err)
	}
	stop := errors.New("stop")
	if err := set.Read(t.Context(), Want{}, func(*Batch) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the function's error is lost: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := set.Read(ctx, Want{}, func(*Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Identity)
		says   string
	}{
		{"architecture", func(i *Identity) { i.Arch = "other" }, "toy, not a other"},
		{"checkpoint", func(i *Identity) { i.ModelHash = "def" }, "another checkpoint (toy.pth"},
		{"transform", func(i *Identity) { i.Transform = "resize 3" }, "resize 2; here resize 3"},
		{"kernel", func(i *Identity) { i.Kernel = "avx2" }, "portable, not avx2"},
		{"layer", func(i *Identity) { i.Layers = []Layer{{"deep", 4}, {"middle", 1}} }, "lacks layer middle (it has deep, shallow)"},
		{"channels", func(i *Identity) { i.Layers = []Layer{{"deep", 5}} }, "lacks layer deep"},
	} {
		want := made
		c.change(&want)
		if err := made.Serves(want); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("another %s: %v", c.name, err)
		}
		dir := t.TempDir()
		create(t, dir).Close()
		if _, err := Create(dir, want); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("adding to a cache of another %s: %v", c.name, err)
		}
	}
	less := made
	less.Layers, less.Gradients, less.Kernel = made.Layers[:1], false, ""
	if err := made.Serves(less); err != nil {
		t.Errorf("fewer layers: %v", err)
	}
	if err := less.Serves(made); err == nil {
		t.Error("a cache without gradients serves one with them")
	}

	cache := create(t, t.TempDir())
	list := toyList("val", 10)
	if err := write(cache, list, Options{4}, 3); err != nil {
		t.Fatal(err)
	}
	set, err := cache.Set("val")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*List)
		says   string
	}{
		{"number", func(l *List) { l.Items = l.Items[:9] }, "10 images, not 9"},
		{"path", func(l *List) { l.Items[3].Path = "x" }, "another list"},
		{"label", func(l *List) { l.Items[3].Label++ }, "another list"},
		{"size", func(l *List) { l.Items[3].Bytes++ }, "another list"},
		{"order", func(l *List) { slices.Reverse(l.Items) }, "another list"},
	} {
		other := toyList("val", 10)
		c.change(&other)
		if err := set.Serves(other); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("another %s: %v", c.name, err)
		}
		if _, err := cache.Begin(other, Options{4}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("another %s, written: %v", c.name, err)
		}
	}
	// A set that was begun with another list, but has no set.json yet.
	if err := os.Remove(filepath.Join(cache.Dir(), "val", setFile)); err != nil {
		t.Fatal(err)
	}
	other := toyList("val", 10)
	other.Items[0].Label++
	if _, err := cache.Begin(other, Options{4}); err == nil || !strings.Contains(err.Error(), "another cache") {
		t.Errorf("shards of another list: %v", err)
	}
	if _, err := Create(cache.Dir(), made); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two writers: %v", err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(foreign, made); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("a folder of other files: %v", err)
	}
	if _, err := Open(foreign); !errors.Is(err, ErrNone) {
		t.Errorf("no cache: %v", err)
	}
	if _, err := cache.Set("absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no set: %v", err)
	}
	if _, err := cache.Set("../val"); err == nil {
		t.Error("a set outside of the cache")
	}
}

func TestWriterRefusesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Batch)
		says   string
	}{
		{"NaN", func(b *Batch) { b.States[1].G[2] = float32(math.NaN()) }, "shallow.g of val/1.png is NaN"},
		{"infinity", func(b *Batch) { b.Logits[0] = float32(math.Inf(-1)) }, "logits of val/0.png is -Inf"},
		{"a missing layer", func(b *Batch) { b.States = b.States[:1] }, "shallow.z"},
		{"missing gradients", func(b *Batch) { b.States[0].G = nil }, "deep.g"},
		{"too few logits", func(b *Batch) { b.Logits = b.Logits[1:] }, "logits"},
		{"an image out of turn", func(b *Batch) { b.Positions = []int{0, 2} }, "position 2"},
		{"too many images", func(b *Batch) { *b = *toyBatch(made, []int{0, 1, 2, 3}) }, "position 3"},
		{"a prediction beyond the classes", func(b *Batch) { b.Predictions[0] = 3 }, "prediction 3"},
	} {
		cache := create(t, t.TempDir())
		w, err := cache.Begin(toyList("val", 3), Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := toyBatch(made, []int{0, 1})
		c.change(b)
		if err := w.Add(b); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := w.End(); c.name != "too many images" && err == nil {
			t.Errorf("%s: a set with images missing is complete", c.name)
		}
	}
}

// Every single byte of a cache matters.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	cache := create(t, dir)
	if err := write(cache, toyList("val", 5), Options{3}, 5, 1); err != nil {
		t.Fatal(err)
	}
	check := func() error {
		c, err := Open(dir)
		if err != nil {
			return err
		}
		s, err := c.Set("val")
		if err != nil {
			return err
		}
		return s.Verify(t.Context())
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	shards, err := filepath.Glob(filepath.Join(dir, "val", "*.safetensors"))
	if err != nil || len(shards) != 2 {
		t.Fatal(shards, err)
	}
	for _, path := range shards {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			bad := slices.Clone(whole)
			bad[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := check(); err == nil || !strings.Contains(err.Error(), filepath.Base(path)) {
				t.Fatalf("byte %d of %s changed: %v", i, path, err)
			}
		}
		if err := os.WriteFile(path, whole[:len(whole)-1], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := check(); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%s cut off: %v", path, err)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A shard in the place of another.
	if err := os.Rename(shards[0], shards[1]); err != nil {
		t.Fatal(err)
	}
	if err := check(); err == nil {
		t.Error("a missing shard goes unseen")
	}
	// Resuming finds damage too: it must not build on it.
	if _, err := cache.Begin(toyList("val", 5), Options{3}); err == nil || !strings.Contains(err.Error(), "00001") {
		t.Errorf("resumed over a wrong shard: %v", err)
	}
}

func TestHashModel(t *testing.T) {
	model := func(names string, value float32) *weights.StateDict {
		sd := weights.New("test")
		for _, n := range names {
			sd.Set(string(n), weights.Tensor{Shape: []int{2}, Data: []float32{1, value}})
		}
		return sd
	}
	one := HashModel(model("abc", 2))
	if one != HashModel(model("cab", 2)) {
		t.Error("the order of tensors changes the hash")
	}
	for _, other := range []*weights.StateDict{model("ab", 2), model("abd", 2), model("abc", 2.0000002)} {
		if one == HashModel(other) {
			t.Errorf("the hash of %v is that of another model", other.Names())
		}
	}
}

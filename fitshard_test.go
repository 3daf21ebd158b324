package nac

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/shard"
)

// fitShards fits in n shards and returns their folders.
func fitShards(t *testing.T, m *Model, images imageset.List, o FitOptions, n int) (dirs []string) {
	t.Helper()
	for i := range n {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := FitShard(t.Context(), m, images, o, shard.Shard{Index: i, Of: n}, dir); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

func saved(t *testing.T, d *Detector) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "detector.nac")
	if err := d.Save(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// someImages are n of the built-in ones, two of which cannot be read.
func someImages(t *testing.T, n int) imageset.List {
	t.Helper()
	list := fashionList(t, "main_train_fashion")
	list.Items = slices.Clone(list.Items[:n])
	for _, i := range []int{n / 3, n - 1} {
		list.Items[i].Path = filepath.Join(fashion(t), "absent", fmt.Sprintf("%d.png", i))
	}
	return list
}

var nacSettings = detector.Settings{Layers: []coverage.LayerSettings{
	{Layer: "avgpool", M: 50, O: 5, Alpha: 100}, {Layer: "layer2", M: 20, O: 3, Alpha: 1000},
}}

// Whatever is fitted, in however many shards: the file is the one of a single run.
func TestShardsFitTheSameDetector(t *testing.T) {
	m := fashionModel(t)
	for _, c := range []struct {
		name   string
		n      int
		change func(*FitOptions)
	}{
		{"nac_auto", 3, func(*FitOptions) {}},
		{"nac by the rule", 2, func(o *FitOptions) { o.Detector = "nac" }},
		{"nac with settings", 3, func(o *FitOptions) { o.Detector, o.Settings = "nac", nacSettings }},
		{"nac_auto, chosen", 2, func(o *FitOptions) { o.ValOOD = fashionList(t, "test_mnist"); o.ValOOD.Items = o.ValOOD.Items[:40] }},
		{"nac, chosen", 1, func(o *FitOptions) {
			o.Detector, o.ValOOD = "nac", fashionList(t, "test_mnist")
			o.ValOOD.Items = o.ValOOD.Items[:40]
		}},
		{"temp_scaling", 2, func(o *FitOptions) { o.Detector = "temp_scaling" }},
		{"knn", 2, func(o *FitOptions) {
			o.Detector = "knn"
			o.Transform.Mean, o.Transform.Std = [3]float32{}, [3]float32{}
		}},
		{"more shards than calibration images", 12, func(o *FitOptions) { o.Detector, o.Settings = "nac", nacSettings }},
	} {
		t.Run(c.name, func(t *testing.T) {
			images := someImages(t, 230)
			if c.n > 10 {
				images = someImages(t, 50)
			}
			o := fashionOptions()
			o.OnError, o.Rate = imageset.Skip, 0.1
			c.change(&o)
			whole, err := Fit(t.Context(), m, images, o)
			if err != nil {
				t.Fatal(err)
			}
			dirs := fitShards(t, m, images, o, c.n)
			slices.Reverse(dirs)
			sum, err := FitShards(t.Context(), m, dirs)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := whole.Info(), sum.Info(); text(a) != text(b) {
				t.Errorf("one run: %s\nin shards: %s", text(a), text(b))
			}
			if !bytes.Equal(saved(t, whole), saved(t, sum)) {
				t.Error("other bytes than those of one run")
			}
		})
	}
}

// contents are all files below the folders but the locks.
func contents(t *testing.T, dirs ...string) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range dirs {
		for _, pattern := range []string{"*", "*/*", "*/*/*"} {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if info, err := os.Stat(f); err != nil || info.IsDir() {
					continue
				}
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&b, "%s %x\n", f, data)
			}
		}
	}
	return b.String()
}

// A shard that is done twice, or again after it was interrupted, ends in the same
// files.
func TestShardAgain(t *testing.T) {
	m, images := fashionModel(t), someImages(t, 120)
	o := fashionOptions()
	o.OnError, o.Rate = imageset.Skip, 0.1
	for _, key := range []string{"nac", "nac_auto"} {
		o.Detector, o.Settings = key, detector.Settings{}
		if key == "nac" {
			o.Settings = nacSettings
		}
		dirs := fitShards(t, m, images, o, 2)
		want := contents(t, dirs[1])
		again := func() {
			t.Helper()
			if err := FitShard(t.Context(), m, images, o, shard.Shard{Index: 1, Of: 2}, dirs[1]); err != nil {
				t.Fatal(err)
			}
			if contents(t, dirs[1]) != want {
				t.Errorf("%s: done again, the shard is another", key)
			}
		}
		again()
		lost := shardCounts
		if key == "nac_auto" {
			lost = filepath.Join(shardStates, trainSet, "set.json")
		}
		if err := os.Remove(filepath.Join(dirs[1], lost)); err != nil {
			t.Fatal(err)
		}
		if _, err := FitShards(t.Context(), m, dirs); err == nil || !strings.Contains(err.Error(), "shard 1/2 in "+dirs[1]+" is not complete") {
			t.Errorf("half a shard: %v", err)
		}
		again()
	}
}

func TestFitShardsRefuses(t *testing.T) {
	m, images := fashionModel(t), someImages(t, 60)
	images.Items = images.Items[:len(images.Items)-1]
	images.Items[20] = images.Items[0]
	o := fashionOptions()
	o.Detector, o.Settings, o.Rate = "nac", nacSettings, 0.1
	dirs := fitShards(t, m, images, o, 3)
	refused := func(what, says string, dirs ...string) {
		t.Helper()
		if _, err := FitShards(t.Context(), m, dirs); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
	}
	other := func(change func(*FitOptions, *imageset.List)) string {
		t.Helper()
		o, images := o, images
		change(&o, &images)
		dir := t.TempDir()
		if err := FitShard(t.Context(), m, images, o, shard.Shard{Index: 2, Of: 3}, dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	refused("none", "no shards")
	refused("a missing shard", "1 of 3 shards missing: 1/3", dirs[0], dirs[2])
	refused("a shard twice", "are both shard 0/3", dirs[0], dirs[0], dirs[1], dirs[2])
	refused("no folder", "absent", dirs[0], "absent")
	refused("other settings", `another settings: {"layers"`, dirs[0], dirs[1], other(func(o *FitOptions, _ *imageset.List) {
		o.Settings = detector.Settings{Layers: nacSettings.Layers[:1]}
	}))
	refused("another seed", "another images", dirs[0], dirs[1], other(func(o *FitOptions, _ *imageset.List) { o.Seed = 2 }))
	refused("other images", "another images", dirs[0], dirs[1], other(func(_ *FitOptions, l *imageset.List) { l.Items = l.Items[1:] }))
	refused("another rate", "another false-alarm rate: 0.1 against 0.2", dirs[0], dirs[1], other(func(o *FitOptions, _ *imageset.List) { o.Rate = 0.2 }))
	refused("another transform", "another transform", dirs[0], dirs[1], other(func(o *FitOptions, _ *imageset.List) { o.Transform.Mean[1] = 0 }))
	refused("another detector", "another detector", dirs[0], dirs[1], other(func(o *FitOptions, _ *imageset.List) { o.Detector = "msp" }))

	elsewhere := fashionModel(t)
	elsewhere.hash = known("another")
	if _, err := FitShards(t.Context(), elsewhere, dirs); err == nil || !strings.Contains(err.Error(), "another model") {
		t.Errorf("another model: %v", err)
	}
	dir := t.TempDir()
	if err := FitShard(t.Context(), elsewhere, images, o, shard.Shard{Index: 2, Of: 3}, dir); err != nil {
		t.Fatal(err)
	}
	refused("a shard of another model", "another model: weights", dirs[0], dirs[1], dir)
	if err := FitShard(t.Context(), m, images, o, shard.Shard{Index: 1, Of: 3}, dirs[0]); err == nil || !strings.Contains(err.Error(), "shard 0/3, not 1/3") {
		t.Errorf("another shard in the same folder: %v", err)
	}
	o.Detector, o.Settings = "odin", detector.Settings{}
	if err := FitShard(t.Context(), m, images, o, shard.Shard{Index: 1, Of: 3}, t.TempDir()); err == nil || !strings.Contains(err.Error(), "odin") {
		t.Errorf("odin: %v", err)
	}

	path := filepath.Join(dirs[1], shardCounts)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 9, len(data) / 2, len(data) - 1} {
		if err := os.WriteFile(path, data[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		refused("counts that are cut off", path, dirs...)
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := FitShards(t.Context(), m, dirs); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 5, 300} {
		if err := os.Truncate(filepath.Join(dirs[1], shardFile), int64(n)); err != nil {
			t.Fatal(err)
		}
		refused("a cut fit.json", shardFile, dirs...)
	}
}

// Rows that come from elsewhere, in any order, some twice, make the same detector.
func TestFinishedPlanIsTheSameDetector(t *testing.T) {
	m := fashionModel(t)
	images := someImages(t, 150)
	for _, key := range []string{"nac", "nac_auto"} {
		o := fashionOptions()
		o.Detector, o.OnError, o.Rate = key, imageset.Skip, 0.1
		if key == "nac" {
			o.Settings = nacSettings
		}
		whole, err := Fit(t.Context(), m, images, o)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := PlanFit(t.Context(), m, images, o)
		if err != nil {
			t.Fatal(err)
		}
		x, err := m.Extractor(plan.Yield())
		if err != nil {
			t.Fatal(err)
		}
		var rows []FitRow
		var counts *coverage.Coverage
		settings, channels := plan.Coverage()
		if settings != nil {
			if counts, err = coverage.New(settings, channels); err != nil {
				t.Fatal(err)
			}
		}
		for _, set := range plan.Sets() {
			err := x.Run(t.Context(), nil, plan.Items(set), func(i int, r FitRow) error {
				r.Set, r.Position = set, i
				if !plan.Counted(set) {
					rows = append(rows, r)
				} else if r.Reason == "" {
					return counts.Add(r.States, 1)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		slices.Reverse(rows)
		less := slices.Delete(slices.Clone(rows), 3, 4)
		d, err := plan.Finish(t.Context(), append(rows, rows[:9]...), counts)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(saved(t, d), saved(t, whole)) {
			t.Errorf("%s: another detector than that of Fit", key)
		}
		if _, err := plan.Finish(t.Context(), less, counts); err == nil || !strings.Contains(err.Error(), "has not come") {
			t.Errorf("%s: a missing image: %v", key, err)
		}
	}
}

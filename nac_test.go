package nac

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"

	"nac/detector"
	"nac/imageset"
	"nac/quickstart"
)

// embedded lays out the built-in network and images, once for all tests.
var embedded = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nac-test-")
	if err != nil {
		return "", err
	}
	return dir, quickstart.Extract(dir)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := embedded(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func fashion(t testing.TB) string {
	t.Helper()
	dir, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func fashionModel(t testing.TB) *Model {
	t.Helper()
	m, err := Open(filepath.Join(fashion(t), quickstart.Checkpoint), quickstart.Arch)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func fashionList(t testing.TB, name string) imageset.List {
	t.Helper()
	dir := fashion(t)
	l, err := imageset.ReadList(filepath.Join(dir, "benchmark_imglist", quickstart.Benchmark, name+".txt"), filepath.Join(dir, "images_classic"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func fashionOptions() FitOptions {
	t := imageset.Transform{Resize: 32, Crop: 32}
	for c := range 3 {
		t.Mean[c], t.Std[c] = quickstart.Mean, quickstart.Std
	}
	return FitOptions{Transform: t}
}

func TestFitSaveLoadScore(t *testing.T) {
	ctx := context.Background()
	m := fashionModel(t)
	o := fashionOptions()
	o.Calibration = fashionList(t, "val_fashion")
	d, err := Fit(ctx, m, fashionList(t, "main_train_fashion"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", d.Info())
	path := filepath.Join(t.TempDir(), "detector.nac")
	if err := d.Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(path, m)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(loaded.Info(), d.Info()) {
		t.Errorf("saved\n%+v, loaded\n%+v", d.Info(), loaded.Info())
	}
	rate := func(name string) float64 {
		list := fashionList(t, name)
		list.Items = list.Items[:200]
		flagged := 0
		for _, item := range list.Items {
			r, err := d.ScoreFile(ctx, item.Path)
			if err != nil {
				t.Fatal(err)
			}
			again, err := loaded.ScoreFile(ctx, item.Path)
			if err != nil || again != r {
				t.Fatalf("%s: %+v, loaded %+v, %v", item.Path, r, again, err)
			}
			if r.OOD {
				flagged++
			}
		}
		return float64(flagged) / float64(len(list.Items))
	}
	id, ood := rate("test_fashion"), rate("test_ankle_boot")
	t.Logf("flagged: ID %v, ankle boots %v", id, ood)
	if id > 0.12 || ood < 2*id {
		t.Errorf("flagged: %v of ID images, %v of ankle boots", id, ood)
	}
}

// Every way to tell Fit of a detector's layers, and the one of telling nothing.
func TestFitNamedDetector(t *testing.T) {
	ctx := context.Background()
	m := fashionModel(t)
	images := fashionList(t, "main_train_fashion")
	images.Items = images.Items[:400]
	for _, c := range []struct {
		detector string
		layers   []string
		settings detector.Settings
		want     []string
	}{
		{detector: "nac_auto", want: m.network.Suggested()},
		{detector: "nac_auto", layers: []string{"layer2"}, want: []string{"layer2"}},
		{detector: "nac_auto", layers: []string{"layer1"}, settings: detector.Settings{LayerNames: []string{"layer2"}}, want: []string{"layer2"}},
		{detector: "nac_fusion", want: m.network.Suggested()},
	} {
		o := fashionOptions()
		o.Detector, o.Layers, o.Settings = c.detector, c.layers, c.settings
		d, err := Fit(ctx, m, images, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Info().Settings.LayerNames; !slices.Equal(got, c.want) {
			t.Errorf("%s: layers %v, want %v", c.detector, got, c.want)
		}
		path := filepath.Join(t.TempDir(), "detector.nac")
		if err := d.Save(path); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(path, m)
		if err != nil {
			t.Fatal(err)
		}
		image := fashionList(t, "test_ankle_boot").Items[0].Path
		a, err := d.ScoreFile(ctx, image)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := loaded.ScoreFile(ctx, image); err != nil || a != b {
			t.Errorf("%s: %+v, loaded %+v, %v", c.detector, a, b, err)
		}
	}
}

// How a model is to be used changes neither verdicts nor, but for the rounding of other
// convolutions, scores.
func TestModelPlans(t *testing.T) {
	ctx := context.Background()
	m := fashionModel(t)
	images := fashionList(t, "main_train_fashion")
	images.Items = images.Items[:200]
	o := fashionOptions()
	o.Detector = "mls"
	d, err := Fit(ctx, m, images, o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "detector.nac")
	if err := d.Save(path); err != nil {
		t.Fatal(err)
	}
	const n = 20
	tensors := tensorsOf(t, d, images.Items[:n])
	want, got := make([]Result, n), make([]Result, n)
	if err := d.ScoreTensors(ctx, tensors, want); err != nil {
		t.Fatal(err)
	}
	for _, plan := range []struct {
		name      string
		model     *Model
		tolerance float64 // relative
	}{
		{"lone images", m.WithBatch(1), 1e-5},
		{"one worker", m.WithWorkers(1), 0},
		{"three workers", m.WithWorkers(3), 0},
		{"all processors", m.WithWorkers(-1), 0},
	} {
		other, err := Load(path, plan.model)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.ScoreTensors(ctx, tensors, got); err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if g := got[i]; math.Abs(g.Score-w.Score) > plan.tolerance*math.Abs(w.Score) || g.Class != w.Class || g.Score == 0 {
				t.Errorf("%s, image %d: %+v, want %+v", plan.name, i, g, w)
			}
		}
	}
}

// tensorsOf decodes and transforms images as a detector does.
func tensorsOf(t *testing.T, d *Detector, items []imageset.Item) (tensors []float32) {
	t.Helper()
	for _, item := range items {
		img, err := imageset.Decode(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		one := make([]float32, d.engine.size)
		if err := d.Info().Transform.Apply(img, one); err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, one...)
	}
	return tensors
}

// Halves of a detector, and both and the whole at once, give what the whole gives, also
// where images are passed through the network more than once.
func TestSplit(t *testing.T) {
	ctx := context.Background()
	m := fashionModel(t)
	images := fashionList(t, "main_train_fashion")
	images.Items = images.Items[:200]
	for _, name := range []string{"nac_auto", "odin", "ash", "rankfeat"} {
		o := fashionOptions()
		o.Detector = name
		d, err := Fit(ctx, m, images, o)
		if err != nil {
			t.Fatal(err)
		}
		const n = 12
		tensors := tensorsOf(t, d, images.Items[:n])
		want := make([]Result, n)
		if err := d.ScoreTensors(ctx, tensors, want); err != nil {
			t.Fatal(err)
		}
		parts := d.Split()
		if want := min(runtime.GOMAXPROCS(0), 2); len(parts) != want {
			t.Errorf("%s: %d parts, want %d", name, len(parts), want)
		}
		if again := parts[0].Split(); len(again) != 1 || again[0] != parts[0] {
			t.Errorf("%s: a half was split", name)
		}
		var wait sync.WaitGroup
		for i, part := range append(parts, d) {
			wait.Go(func() {
				got := make([]Result, n)
				for k := 1; k <= n; k += i + 1 {
					if err := part.ScoreTensors(ctx, tensors, got[:k]); err != nil || !slices.Equal(got[:k], want[:k]) {
						t.Errorf("%s, part %d, %d images: %+v, %v, want %+v", name, i, k, got[:k], err, want[:k])
					}
				}
			})
		}
		wait.Wait()
	}
}

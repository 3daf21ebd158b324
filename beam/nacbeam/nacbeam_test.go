package nacbeam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"

	"nac"
	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/metric"
	"nac/quickstart"
)

// embedded lays out nac's built-in network and images, once for all tests.
var embedded = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nac-beam-")
	if err != nil {
		return "", err
	}
	return dir, quickstart.Extract(dir)
})

func TestMain(m *testing.M) {
	beam.Init()
	code := m.Run()
	if dir, err := embedded(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

type data struct{ model, images, lists string }

func builtIn(t *testing.T) data {
	t.Helper()
	dir, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	return data{filepath.Join(dir, filepath.FromSlash(quickstart.Checkpoint)), filepath.Join(dir, "images_classic"), filepath.Join(dir, "benchmark_imglist", quickstart.Benchmark)}
}

// part writes lines of a list to a file, and one of an image that is not there.
func (d data) part(t *testing.T, list string, n int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.lists, list+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")[:n]
	lines = slices.Insert(lines, n/3, "absent.png 1\n")
	file := filepath.Join(t.TempDir(), list+".txt")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

func options(key string) nac.FitOptions {
	o := nac.FitOptions{Detector: key, Rate: 0.1, OnError: imageset.Skip, Transform: imageset.Transform{Resize: 32, Crop: 32}}
	for c := range 3 {
		o.Transform.Mean[c], o.Transform.Std[c] = quickstart.Mean, quickstart.Std
	}
	if key == "nac" {
		o.Settings = detector.Settings{Layers: []coverage.LayerSettings{
			{Layer: "avgpool", M: 50, O: 5, Alpha: 100}, {Layer: "layer2", M: 20, O: 3, Alpha: 1000},
		}}
	}
	return o
}

func run(t *testing.T, p *beam.Pipeline) {
	t.Helper()
	if _, err := beam.Run(t.Context(), "prism", p); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// local fits on this machine alone.
func local(t *testing.T, d data, list, key string) string {
	t.Helper()
	m, err := nac.Open(d.model, quickstart.Arch)
	if err != nil {
		t.Fatal(err)
	}
	images, err := imageset.Read(list, d.images)
	if err != nil {
		t.Fatal(err)
	}
	det, err := nac.Fit(t.Context(), m, images, options(key))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "local.nac")
	if err := det.Save(file); err != nil {
		t.Fatal(err)
	}
	return file
}

// A detector fitted on Beam is the file of one that was fitted locally: counts, scores,
// threshold and all.
func TestFitIsLocalFit(t *testing.T) {
	d := builtIn(t)
	list := d.part(t, "main_train_fashion", 150)
	for _, key := range []string{"nac", "nac_auto"} {
		file := filepath.Join(t.TempDir(), "beam.nac")
		p, s := beam.NewPipelineWithRoot()
		o := options(key)
		c := FitConfig{
			Model: d.model, Arch: quickstart.Arch, ID: list, Root: d.images,
			Detector: o.Detector, Settings: o.Settings, Transform: o.Transform, Rate: o.Rate,
		}
		fitted, failed, err := Fit(t.Context(), s, c, file)
		if err != nil {
			t.Fatal(err)
		}
		passert.Count(s, failed, "failed", 1)
		passert.Equals(s, fitted, Fitted{file})
		run(t, p)
		if !bytes.Equal(read(t, file), read(t, local(t, d, list, key))) {
			t.Errorf("%s: another detector than that of one machine", key)
		}
	}
}

// Scores are those of one machine to the last bit, in files in the order of the list;
// dead letters are there with their reason.
func TestScoreIsLocalScore(t *testing.T) {
	d := builtIn(t)
	file := local(t, d, d.part(t, "main_train_fashion", 120), "nac_auto")
	list := d.part(t, "test_fashion", 130)
	dir := t.TempDir()
	p, s := beam.NewPipelineWithRoot()
	scored, failed := Score(s, ReadImages(s, "test", []string{list}, d.images), Detector{File: file})
	WriteScores(s, scored, failed, dir)
	WriteFailures(s, failed, dir)
	run(t, p)

	det, err := Detector{File: file}.open()
	if err != nil {
		t.Fatal(err)
	}
	images, err := imageset.Read(list, d.images)
	if err != nil {
		t.Fatal(err)
	}
	got := json.NewDecoder(bytes.NewReader(read(t, filepath.Join(dir, "scores-00000.jsonl"))))
	n := 0
	for want, err := range det.ScoreAll(t.Context(), nil, images.All()) {
		if err != nil {
			t.Fatal(err)
		}
		var row struct {
			Scored
			Error string
		}
		if err := got.Decode(&row); err != nil {
			t.Fatal(err)
		}
		if row.Path != want.Path || row.Error != "" != (want.Err != nil) || row.Score != want.Score || row.PValue != want.PValue ||
			int(row.Class) != want.Class || row.Probability != want.Probability || row.Verdict == "OOD" != want.OOD {
			t.Fatalf("image %d: %+v, want %+v", n, row, want)
		}
		n++
	}
	if n != 131 || got.More() {
		t.Errorf("%d rows", n)
	}
	if text := string(read(t, filepath.Join(dir, "failures-00000.jsonl"))); !strings.Contains(text, "absent.png") || strings.Count(text, "\n") != 1 {
		t.Errorf("dead letters: %s", text)
	}
}

// Metrics by the distributed sort are those of metric.OOD to the last bit, ties included, and
// the sketch's bounds hold.
func TestEvaluateIsExact(t *testing.T) {
	var id, ood []float64
	for i := range 3000 {
		id = append(id, float64(i*i%977)/977)
		ood = append(ood, float64(i*i%1013)/1013-0.3)
		if i%3 == 0 {
			id, ood = append(id, float64(i%10)/10), append(ood, float64(i%7)/10)
		}
	}
	want, err := metric.OOD(id, ood)
	if err != nil {
		t.Fatal(err)
	}
	var points []Point
	for i := range id {
		points = append(points, Point{id[i], false}, Point{ood[i], true})
	}
	var sketch metric.Sketch
	for _, p := range points {
		if err := sketch.Add(p.Score, p.OOD); err != nil {
			t.Fatal(err)
		}
	}
	low, high, err := sketch.AUROC()
	if err != nil {
		t.Fatal(err)
	}
	if want.AUROC < low || want.AUROC > high || high-low > 0.01 {
		t.Errorf("AUROC %v, bounds %v to %v", want.AUROC, low, high)
	}
	p, s := beam.NewPipelineWithRoot()
	report := Evaluate(s, "odd", beam.Reshuffle(s, beam.CreateList(s, points)))
	passert.Equals(s, report, Report{"odd", want.FPR95, want.AUROC, want.AUPRIn, want.AUPROut, low, high})
	run(t, p)
}

// Members of tar archives and images of folders are read as those of lists are.
func TestReadImages(t *testing.T) {
	d := builtIn(t)
	folder := filepath.Join(d.images, "fashion")
	if _, err := os.Stat(folder); err != nil {
		t.Fatal(err)
	}
	var want []string
	for item, err := range imageset.Find(&imageset.Shards{Keep: 1}, "", folder) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, item.Path)
	}
	p, s := beam.NewPipelineWithRoot()
	images := ReadImages(s, "x", []string{folder}, "")
	passert.Count(s, images, "images", len(want))
	run(t, p)
	if len(want) < 100 {
		t.Errorf("only %d images", len(want))
	}
}

// Counts survive their coder, and wrong ones are refused.
func TestCountsCoder(t *testing.T) {
	settings := options("nac").Settings.Layers
	c, err := coverage.New(settings, map[string]int{"avgpool": 3, "layer2": 2})
	if err != nil {
		t.Fatal(err)
	}
	row := []coverage.States{{Layer: "avgpool", Z: []float32{1, 2, 3}, G: []float32{.1, -.1, .2}}, {Layer: "layer2", Z: []float32{1, 2}, G: []float32{3, 4}}}
	if err := c.Add(row, 1); err != nil {
		t.Fatal(err)
	}
	for _, counts := range []Counts{{}, {Coverage: c}, {Coverage: c, Err: "why"}} {
		data, err := encodeCounts(counts)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeCounts(data)
		if err != nil || again.Err != counts.Err {
			t.Fatalf("%+v, %v", again, err)
		}
		if !reflect.DeepEqual(counts.Coverage, again.Coverage) {
			t.Error("other counts")
		}
		for n := range len(data) - 1 {
			if _, err := decodeCounts(data[:n]); err == nil && n != 1+len(counts.Err) {
				t.Fatalf("%d of %d bytes are read", n, len(data))
			}
		}
	}
}

// A bundle of any size holds a bounded number of images: what a worker keeps of 6,000 is what it
// keeps of 600.
func TestMemoryIsBoundedByBatches(t *testing.T) {
	d := builtIn(t)
	file := local(t, d, d.part(t, "main_train_fashion", 60), "msp")
	list, err := imageset.ReadList(filepath.Join(d.lists, "test_fashion.txt"), d.images)
	if err != nil {
		t.Fatal(err)
	}
	f := &scoreFn{Detector: Detector{File: file}}
	if err := f.Setup(); err != nil {
		t.Fatal(err)
	}
	heap := func(n int) uint64 {
		scores := 0
		emit, failed := func(Scored) { scores++ }, func(f Failure) { t.Error(f) }
		f.StartBundle(t.Context(), emit, failed)
		for i := range n {
			item := list.Items[i%500]
			if err := f.ProcessElement(t.Context(), Image{Set: "x", Position: int64(i), Path: item.Path}, emit, failed); err != nil {
				t.Fatal(err)
			}
			if len(f.batch.images) >= batchImages {
				t.Fatalf("%d images wait", len(f.batch.images))
			}
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		if err := f.FinishBundle(t.Context(), emit, failed); err != nil {
			t.Fatal(err)
		}
		if scores != n {
			t.Errorf("%d scores of %d images", scores, n)
		}
		return m.HeapAlloc
	}
	heap(200)
	few, many := heap(600), heap(6000)
	if many > few+4<<20 {
		t.Errorf("%d bytes after 6,000 images of a bundle, %d after 600", many, few)
	}
	t.Log(fmt.Sprintf("%.1f and %.1f MB", float64(few)/1e6, float64(many)/1e6))
}

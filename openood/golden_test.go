package openood

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"nac/arch"
	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/internal/safetensors"
	"nac/internal/shareddata"
	"nac/metric"
	"nac/probe"
	"nac/search"
	"nac/states"
	"nac/weights"
)

// The reference numbers of this file were made by the NAC reference in PyTorch,
// with public CIFAR-10 checkpoints on real images.

var (
	imageNetMean = [3]float32{0.485, 0.456, 0.406}
	imageNetStd  = [3]float32{0.229, 0.224, 0.225}
)

var realNetworks = []struct {
	arch, checkpoint, golden string
}{
	{"resnet20", "resnet20-12fca82f.th", "real_cifar10_resnet20"},
	{"resnet32", "resnet32-d509ac18.th", "real_cifar10_resnet32"},
}

// realTables are the rows of FPR@95, AUROC, AUPR with OOD and with ID positive,
// in percent.
type realTables struct {
	Counts  map[string]int
	Methods map[string]struct {
		Rows map[string]json.RawMessage
	}
}

func (r realTables) row(t *testing.T, method, set string) metric.Result {
	t.Helper()
	var v []float64
	if err := json.Unmarshal(r.Methods[method].Rows[set], &v); err != nil || len(v) != 4 {
		t.Fatalf("no reference row for %s on %s", method, set)
	}
	return metric.Result{FPR95: v[0] / 100, AUROC: v[1] / 100, AUPROut: v[2] / 100, AUPRIn: v[3] / 100}
}

func tables(t *testing.T, golden string) (r realTables) {
	t.Helper()
	readJSON(t, shareddata.Path(t, "golden", golden+".json"), &r)
	return r
}

type setup struct {
	model   *arch.Model
	network detector.Network
	probe   *probe.Probe
	methods []Method
}

// newSetup makes NAC of four layers, NAC of one, and the baselines.
func newSetup(t *testing.T, architecture, checkpoint string) setup {
	t.Helper()
	sd, err := weights.Open(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	m, err := arch.Load(architecture, sd)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Lookup("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	s := setup{model: m}
	for _, method := range []struct {
		name, key string
		layers    []string
	}{
		{"nac", "nac", b.LayerNames()}, {"nac[avgpool]", "nac", []string{"avgpool"}},
		{"msp", "msp", nil}, {"mls", "mls", nil}, {"ebo", "ebo", nil},
	} {
		d, err := detector.New(method.key, detector.Settings{Layers: b.LayerSettings(method.layers)})
		if err != nil {
			t.Fatal(err)
		}
		s.methods = append(s.methods, Method{method.name, d})
	}
	var detectors []detector.Detector
	for _, method := range s.methods {
		detectors = append(detectors, method.Detector)
	}
	if s.probe, err = probe.New(m, probe.For(detectors...), probe.Options{MaxBatch: 64, Std: imageNetStd}); err != nil {
		t.Fatal(err)
	}
	s.network = s.probe.Network()
	return s
}

// realPixels returns a function that returns a set's images, normalised, from
// the pixels that the reference decoded.
func realPixels(t *testing.T) func(t *testing.T, set string) (images []float32, n int) {
	t.Helper()
	file, err := safetensors.Read(shareddata.Path(t, "golden", "real_cifar10_pixels.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return func(t *testing.T, set string) ([]float32, int) {
		t.Helper()
		data, shape, err := file.Uint8s(set + ".pixels")
		if err != nil {
			t.Fatal(err)
		}
		images := make([]float32, len(data))
		plane := shape[2] * shape[3]
		for i, v := range data {
			c := i / plane % 3
			images[i] = (float32(v)/255 - imageNetMean[c]) / imageNetStd[c]
		}
		return images, shape[0]
	}
}

// From the reference's own pixels everything after decoding must agree.
func TestRealNetworksFromPixels(t *testing.T) {
	pixels := realPixels(t)
	dir := shareddata.Unpacked(t)
	source := func(t *testing.T, name string) Source {
		images, n := pixels(t, name)
		return Tensors(name, images, make([]int, n), 64)
	}
	for _, net := range realNetworks {
		t.Run(net.arch, func(t *testing.T) {
			want, err := safetensors.Read(shareddata.Path(t, "golden", net.golden+".safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			s := newSetup(t, net.arch, filepath.Join(dir, "checkpoints", net.checkpoint))
			data := &Data{
				Train: source(t, "main_train"), Val: source(t, "val"), Test: source(t, "val"),
				Near: []Images{{"ood_val", source(t, "ood_val")}},
			}
			report, err := Run(context.Background(), data, s.probe, s.methods, nil)
			if err != nil {
				t.Fatal(err)
			}
			// The tables that the reference's scores and logits give.
			k := s.model.Classes
			expected := map[string]func(set string) []float64{
				"nac": func(set string) []float64 { return widen(float32s(t, want, set+".score")) },
			}
			for _, key := range []string{"msp", "mls", "ebo"} {
				expected[key] = func(set string) []float64 {
					d, err := detector.New(key, detector.Settings{})
					if err != nil {
						t.Fatal(err)
					}
					if err := d.Begin(s.network); err != nil {
						t.Fatal(err)
					}
					logits := float32s(t, want, set+".logits")
					scores := make([]float64, len(logits)/k)
					if err := d.Score(&detector.Inputs{N: len(scores), Logits: logits}, scores); err != nil {
						t.Fatal(err)
					}
					return scores
				}
			}
			for _, m := range report.Methods {
				f, ok := expected[m.Key]
				if !ok {
					continue
				}
				ref, err := metric.OOD(f("val"), f("ood_val"))
				if err != nil {
					t.Fatal(err)
				}
				compareRow(t, m.Key+" on ood_val", m.Near[0].Result, ref, 0.05)
			}
		})
	}
}

func float32s(t *testing.T, f *safetensors.File, name string) []float32 {
	t.Helper()
	v, _, err := f.Float32s(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func widen(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// rounding is by how much float32 may move a pooled gradient, relative to the
// largest of its layer: the tolerance that extraction itself is held to. (States
// are a hundred times more exact and make no difference.)
const rounding = 3e-5

// band is what a layer's scores may be if every gradient is moved by rounding.
// A state within rounding of a bin's edge may fall on either side, and a training
// state that does changes what all images with that bin score. The reference's own
// float32 scores differ from those of a float64 run by more than 1e-4 in one image
// of nine for this reason.
type band struct {
	settings  coverage.LayerSettings
	channels  int
	low, high []int // counts, [channel][bin]
}

func moved(g []float32, by float64) []float32 {
	top := 0.0
	for _, v := range g {
		top = max(top, math.Abs(float64(v)))
	}
	m := make([]float32, len(g))
	for i, v := range g {
		m[i] = float32(float64(v) + by*top)
	}
	return m
}

// edges returns the bins of each state moved down and up.
func edges(t *testing.T, s coverage.LayerSettings, states arch.LayerStates, n int) (a, b []int32) {
	t.Helper()
	l, err := coverage.NewLayer(s, states.Channels)
	if err != nil {
		t.Fatal(err)
	}
	a, b = make([]int32, n*states.Channels), make([]int32, n*states.Channels)
	if err := l.Bins(states.Z, moved(states.G, -rounding), n, a); err != nil {
		t.Fatal(err)
	}
	if err := l.Bins(states.Z, moved(states.G, rounding), n, b); err != nil {
		t.Fatal(err)
	}
	for i := range a {
		a[i], b[i] = min(a[i], b[i]), max(a[i], b[i])
	}
	return a, b
}

func newBand(t *testing.T, s coverage.LayerSettings, train arch.LayerStates, n int) *band {
	d := &band{settings: s, channels: train.Channels}
	d.low, d.high = make([]int, s.M*d.channels), make([]int, s.M*d.channels)
	a, b := edges(t, s, train, n)
	for i := range a {
		c := i % d.channels
		for bin := max(a[i], 0); bin <= b[i]; bin++ {
			d.high[c*s.M+int(bin)]++
			if a[i] == b[i] {
				d.low[c*s.M+int(bin)]++
			}
		}
	}
	return d
}

// add adds the least and the greatest score of each image, times weight.
func (d *band) add(t *testing.T, states arch.LayerStates, weight float64, low, high []float64) {
	a, b := edges(t, d.settings, states, len(low))
	for i := range a {
		c := i % d.channels
		least, most := 1.0, 0.0
		for bin := a[i]; bin <= b[i]; bin++ {
			l, h := 0.0, 0.0
			if bin >= 0 {
				l = min(float64(d.low[c*d.settings.M+int(bin)])/float64(d.settings.O), 1)
				h = min(float64(d.high[c*d.settings.M+int(bin)])/float64(d.settings.O), 1)
			}
			least, most = min(least, l), max(most, h)
		}
		low[i/d.channels] += weight * least / float64(d.channels)
		high[i/d.channels] += weight * most / float64(d.channels)
	}
}

// A unit whose ReLU input is zero to rounding passes its whole gradient or none,
// which moves a pooled gradient by more than rounding. PyTorch's float32 run
// differs from its float64 run for this reason in 13 of the 1,000 val images, and
// the reference's and ours are two such runs.
const (
	flipped = 1.0 / 40 // at most of the images
	flip    = 0.02     // and their scores by no more than that: a neuron of layer1 is 1/64
)

// TestRealScoresFromPixels compares NAC's score of every image: equal to 1e-4
// where no state lies near an edge, else within what those states allow.
func TestRealScoresFromPixels(t *testing.T) {
	pixels := realPixels(t)
	dir := shareddata.Unpacked(t)
	for _, net := range realNetworks {
		t.Run(net.arch, func(t *testing.T) {
			want, err := safetensors.Read(shareddata.Path(t, "golden", net.golden+".safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			s := newSetup(t, net.arch, filepath.Join(dir, "checkpoints", net.checkpoint))
			b, err := Lookup("cifar10")
			if err != nil {
				t.Fatal(err)
			}
			run := func(set string) *arch.Batch {
				images, n := pixels(t, set)
				e, err := s.model.NewExtractor(arch.Request{Layers: b.LayerNames(), Gradients: true}, n, 0)
				if err != nil {
					t.Fatal(err)
				}
				out, err := e.Run(images, n)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			train, val, ood := run("main_train"), run("val"), run("ood_val")
			t.Run("sweep", func(t *testing.T) { compareSweep(t, net.arch, net.golden, s.network.Channels, train, val, ood) })
			var bands []*band
			for i, settings := range b.LayerSettings(b.LayerNames()) {
				bands = append(bands, newBand(t, settings, train.States[i], train.N))
			}
			for set, out := range map[string]*arch.Batch{"val": val, "ood_val": ood} {
				scores := float32s(t, want, set+".score")
				low, high := make([]float64, out.N), make([]float64, out.N)
				for i, d := range bands {
					d.add(t, out.States[i], 1/float64(len(bands)), low, high)
				}
				width, off := 0.0, 0
				for i, w := range scores {
					w := float64(w)
					width += (high[i] - low[i]) / float64(len(scores))
					if outside := max(low[i]-w, w-high[i]); outside > 1e-4*w {
						off++
						if outside > flip {
							t.Errorf("%s: score of image %d is between %v and %v, want %v", set, i, low[i], high[i], w)
						}
					}
				}
				t.Logf("%s: %d of %d scores are outside; mean width %.2g", set, off, len(scores), width)
				if float64(off) > flipped*float64(len(scores)) {
					t.Errorf("%s: %d of %d scores are off, at most one in %v may be", set, off, len(scores), 1/flipped)
				}
			}
		})
	}
}

// inMemory is a set of states that a search reads.
type inMemory struct{ *arch.Batch }

func (m inMemory) Images() int { return m.N }

func (m inMemory) Read(_ context.Context, _ states.Want, f func(*states.Batch) error) error {
	b := &states.Batch{N: m.N}
	for _, s := range m.States {
		b.States = append(b.States, coverage.States{Layer: s.Name, Z: s.Z, G: s.G})
	}
	return f(b)
}

// By how many points the AUROCs of the 256 combinations may be off from those of float64
// states (bench/real), at most and on average. Neurons near the edge of a bin move
// when the network is rounded to float32, and one of a thousand training images that leaves a
// bin of few takes what all images with that bin score. PyTorch's own float32 runs are off by
// up to 0.117 (version 2.9) and 0.078 (1.13, the reference's) for resnet20, 0.065 and 0.092 for resnet32, on
// average by 0.018 and 0.014, 0.019 and 0.021. Given the same states all AUROCs are
// the reference's to 0.02: search's TestReferenceSweep.
const (
	sweepMargin     = 0.1
	sweepMeanMargin = 0.025
)

// compareSweep compares all combinations of the reference's parameter search with float64's,
// and with the reference's own float32 figures, which are as far off on their side; and the
// winner.
func compareSweep(t *testing.T, architecture, golden string, channels map[string]int, train, val, ood *arch.Batch) {
	space, err := search.Lookup("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	table, err := search.Score(t.Context(), space, search.Sets{Train: inMemory{train}, Val: inMemory{val}, ValOOD: inMemory{ood}}, channels, search.ScoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := table.Search(t.Context(), search.Options{Method: search.Grid})
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		APS struct {
			Sweep map[string][]struct {
				O, M   int
				Alpha  float64            `json:"sig_alpha"`
				Method coverage.StateFunc `json:"method"`
			}
			Combinations [][3]json.RawMessage // choices, FPR@95, AUROC in percent
		}
	}
	readJSON(t, shareddata.Path(t, "golden", golden+".json"), &want)
	exact := float64Figures(t, architecture).Sweep
	if len(r.Outcomes) != 256 || len(want.APS.Combinations) != 256 || len(exact) != 256 {
		t.Fatalf("%d combinations, the reference has %d, float64 %d", len(r.Outcomes), len(want.APS.Combinations), len(exact))
	}
	ours := map[[4]coverage.LayerSettings]search.Outcome{}
	for _, o := range r.Outcomes {
		ours[[4]coverage.LayerSettings(r.Settings(o))] = o
	}
	var winner [4]coverage.LayerSettings
	var fromExact, fromReference, exactFromReference spread
	best := 0.0
	for _, c := range want.APS.Combinations {
		var index [4]int
		var auroc float64
		if err := errors.Join(json.Unmarshal(c[0], &index), json.Unmarshal(c[2], &auroc)); err != nil {
			t.Fatal(err)
		}
		var s [4]coverage.LayerSettings
		for i, l := range space.LayerNames() {
			h := want.APS.Sweep[l][index[i]]
			s[i] = coverage.LayerSettings{Layer: l, M: h.M, O: h.O, Alpha: h.Alpha, Func: h.Method}
		}
		o, ok := ours[s]
		if !ok {
			t.Fatalf("the reference has the combination %+v", s)
		}
		fromExact.add(100*o.AUROC - exact[o.Index])
		fromReference.add(100*o.AUROC - auroc)
		exactFromReference.add(exact[o.Index] - auroc)
		if auroc > best {
			best, winner = auroc, s
		}
	}
	t.Logf("256 combinations: from float64 %v; from the reference %v; float64 from the reference %v", fromExact, fromReference, exactFromReference)
	if fromExact.worst > sweepMargin || fromExact.mean > sweepMeanMargin {
		t.Errorf("AUROCs are off from float64's by %v", fromExact)
	}
	if worst, mean := sweepMargin+exactFromReference.worst, sweepMeanMargin+exactFromReference.mean; fromReference.worst > worst || fromReference.mean > mean {
		t.Errorf("AUROCs are off from the reference's by %v, which is more than its own %v from float64 explains", fromReference, exactFromReference)
	}
	if got := [4]coverage.LayerSettings(r.Settings(r.Best)); got != winner {
		t.Errorf("the best is %+v with %.4f, the reference's is %+v with %.4f (here %.4f)", got, 100*r.Best.AUROC, winner, best, 100*ours[winner].AUROC)
	}
	// One layer at a time and successive halving find it too.
	for _, method := range []string{search.Coordinate, search.Halving} {
		c, err := table.Search(t.Context(), search.Options{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if c.Best.Index != r.Best.Index || len(c.Outcomes) > 128 {
			t.Errorf("%s search found %+v by %d combinations, the grid %+v", method, c.Best, len(c.Outcomes), r.Best)
		}
	}
}

// spread is of the differences of 256 AUROCs in points.
type spread struct{ worst, mean float64 }

func (s *spread) add(difference float64) {
	s.worst, s.mean = max(s.worst, math.Abs(difference)), s.mean+math.Abs(difference)/256
}

func (s spread) String() string { return fmt.Sprintf("%.3f points, %.3f on average", s.worst, s.mean) }

func compareRow(t *testing.T, what string, got, want metric.Result, points float64) {
	t.Helper()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"FPR@95", got.FPR95, want.FPR95}, {"AUROC", got.AUROC, want.AUROC},
		{"AUPR-In", got.AUPRIn, want.AUPRIn}, {"AUPR-Out", got.AUPROut, want.AUPROut},
	} {
		if d := 100 * math.Abs(c.got-c.want); !(d <= points) {
			t.Errorf("%s: %s is %.3f, want %.3f", what, c.name, 100*c.got, 100*c.want)
		}
	}
}

// From the files, all of it: 30,000 images through decoding, network, detectors
// and metrics.
func TestRealNetworksFromFiles(t *testing.T) {
	dir := shareddata.Unpacked(t)
	for _, net := range realNetworks {
		t.Run(net.arch, func(t *testing.T) {
			want := tables(t, net.golden)
			s := newSetup(t, net.arch, filepath.Join(dir, "checkpoints", net.checkpoint))
			b, err := Lookup("cifar10")
			if err != nil {
				t.Fatal(err)
			}
			transform, err := imageset.Preset(b.Preset)
			if err != nil {
				t.Fatal(err)
			}
			transform.Mean, transform.Std = imageNetMean, imageNetStd
			ctx := context.Background()
			data, err := Open(ctx, b, Layout{Dir: dir}, imageset.LoadOptions{Transform: transform}, 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(data.Absent); got != "[cifar100 svhn places365]" {
				t.Errorf("absent sets are %s", got)
			}
			record := newRecorder(t)
			report, err := Run(ctx, data, s.probe, append(s.methods, Method{"recorder", record}), nil)
			if err != nil {
				t.Fatal(err)
			}
			report.Methods = report.Methods[:len(s.methods)]
			compareBaselines(t, record, s.network, report, want)
			var acc float64
			if err := json.Unmarshal(want.Methods["nac"].Rows["acc"], &acc); err != nil {
				t.Fatal(err)
			}
			if d := 100*report.Accuracy.Test - acc; math.Abs(d) > 0.1 {
				t.Errorf("ID accuracy is %.2f %%, want %.2f", 100*report.Accuracy.Test, acc)
			}
			t.Logf("ID accuracy over all 10,000: %.2f %%", 100*report.Accuracy.All())
			worst := 0.0
			for _, m := range report.Methods {
				for _, row := range append(append([]Row(nil), m.Near...), m.Far...) {
					ref := want.row(t, m.Key, row.Set)
					compareRow(t, m.Key+" on "+row.Set, row.Result, ref, 0.3)
					worst = max(worst, 100*math.Abs(row.Result.AUROC-ref.AUROC), 100*math.Abs(row.Result.FPR95-ref.FPR95))
				}
				compareRow(t, m.Key+" near mean", *m.NearMean, want.row(t, m.Key, "nearood"), 0.3)
				compareRow(t, m.Key+" far mean", *m.FarMean, want.row(t, m.Key, "farood"), 0.3)
			}
			t.Logf("largest difference of an AUROC or FPR@95: %.4f points", worst)
			compareFloat64(t, net.arch, report)
		})
	}
}

// compareFloat64 compares NAC's rows with those of the network in PyTorch's
// float64 (bench/real). The reference's own table is float32 and so up to 0.15 points
// from it, where a ReLU or a bin's edge hangs on rounding.
func compareFloat64(t *testing.T, arch string, report *Report) {
	t.Helper()
	want := float64Figures(t, arch)
	compared := 0
	for _, m := range report.Methods {
		if m.Key != "nac" {
			continue
		}
		for _, row := range append(append([]Row(nil), m.Near...), m.Far...) {
			w, ok := want.NAC[row.Set]
			if !ok {
				continue // not computed: the sets are of very different sizes
			}
			compared++
			fpr, auroc := 100*row.Result.FPR95-w[0], 100*row.Result.AUROC-w[1]
			// FPR@95 is read at one OOD image, and of 250 the next may be 0.13 points away: of
			// two whose order hangs on rounding either will do.
			beside := slices.ContainsFunc(w[2:], func(v float64) bool { return math.Abs(100*row.Result.FPR95-v) <= 0.05 })
			if math.Abs(fpr) > 0.05 && !beside || math.Abs(auroc) > 0.05 {
				t.Errorf("%s against float64: FPR@95 off by %.3f points, AUROC by %.3f", row.Set, fpr, auroc)
			}
			t.Logf("%s against float64: FPR@95 off by %.3f points, AUROC by %.3f", row.Set, fpr, auroc)
		}
	}
	if compared != len(want.NAC) {
		t.Errorf("%d sets compared with float64, want %d", compared, len(want.NAC))
	}
}

// float64Figures are what bench/real/float64.py wrote of a network: FPR@95 and AUROC on each
// set, for resnet32 also FPR@95 at the OOD images beside the one that it is read at; and the
// sweep's AUROCs in the order of search.Outcome.Index. In percent.
func float64Figures(t *testing.T, arch string) (f struct {
	NAC   map[string][]float64
	Sweep []float64
}) {
	t.Helper()
	readJSON(t, filepath.Join("testdata", "float64_"+arch+".json"), &f)
	return f
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

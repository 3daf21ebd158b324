package probe

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"nac/arch"
	"nac/detector"
	"nac/internal/safetensors"
	"nac/internal/shareddata"
)

// reference is the network and the images that the reference's baselines ran on.
type reference struct {
	file  *safetensors.File
	model *arch.Model
}

func open(t *testing.T) *reference {
	t.Helper()
	f, err := safetensors.Read(shareddata.Path(t, "golden", "baselines.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r := &reference{file: f}
	const name, gain = "resnet18_32x32", 1.1
	sd, err := arch.Init(name, arch.InitOptions{Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range sd.Names() {
		tensor, _ := sd.Lookup(key)
		fan := 1
		for _, d := range tensor.Shape[min(1, len(tensor.Shape)):] {
			fan *= d
		}
		scale := gain * math.Sqrt(3/float64(fan))
		value := func(u float64) float64 { return 0.1 * (2*u - 1) }
		switch {
		case strings.HasPrefix(key, "fc."):
			copy(tensor.Data, r.float32s(t, key))
			continue
		case strings.HasSuffix(key, ".running_var"), strings.HasSuffix(key, ".weight") && len(tensor.Shape) == 1:
			value = func(u float64) float64 { return 0.5 + u }
		case strings.HasSuffix(key, "weight"):
			value = func(u float64) float64 { return (2*u - 1) * scale }
		}
		copy(tensor.Data, shareddata.Fill(key, len(tensor.Data), value))
	}
	if r.model, err = arch.Load(name, sd); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reference) float32s(t *testing.T, name string) []float32 {
	t.Helper()
	v, _, err := r.file.Float32s(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *reference) scores(t *testing.T, name string) (all []float64) {
	t.Helper()
	if v, _, err := r.file.Float64s(name); err == nil {
		return v
	}
	for _, v := range r.float32s(t, name) {
		all = append(all, float64(v))
	}
	return all
}

func (r *reference) labels(t *testing.T, split string) (all []int) {
	t.Helper()
	return r.ints(t, split+".label")
}

func (r *reference) ints(t *testing.T, name string) (all []int) {
	t.Helper()
	labels, _, err := r.file.Int32s(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range labels {
		all = append(all, int(l))
	}
	return all
}

// images makes n images of a split: a prototype of 4x4 pixels by class, a structure of
// 8x8, and noise. From novel on each has a prototype of its own.
func images(split string, from, n, novel int) (all []float32) {
	fill := func(name string, n int) []float32 {
		return shareddata.Fill(name, n, func(u float64) float64 { return 2*u - 1 })
	}
	for i := from; i < from+n; i++ {
		proto := fmt.Sprintf("bl.proto.%d", i%10)
		if i >= novel {
			proto = fmt.Sprintf("bl.%s.%d.p", split, i)
		}
		p := fill(proto, 3*4*4)
		s := fill(fmt.Sprintf("bl.%s.%d.s", split, i), 3*8*8)
		v := fill(fmt.Sprintf("bl.%s.%d.n", split, i), 3*32*32)
		for k := range v {
			c, y, x := k/1024, k/32%32, k%32
			v[k] = float32(float64(p[c*16+y/8*4+x/8]) + 0.5*float64(s[c*64+y/4*8+x/4]) + 0.25*float64(v[k]))
		}
		all = append(all, v...)
	}
	return all
}

// cifar10Std is the standard deviation that the reference takes for its CIFAR-10.
var cifar10Std = [3]float32{0.2470, 0.2435, 0.2616}

// Detectors that read more than logits and features give the scores of the reference's
// own classes, from the network on.
func TestBaselines(t *testing.T) {
	r := open(t)
	r.compare(t, first(1024), []golden{
		{name: "odin", want: r.scores(t, "odin.conf"), tolerance: 1e-5}, {name: "odin", want: r.scores(t, "odin.conf_f64"), tolerance: 1e-5},
		{name: "rankfeat", want: r.scores(t, "rankfeat.conf"), tolerance: 1e-4}, {name: "rankfeat", want: r.scores(t, "rankfeat.conf_f64"), tolerance: 1e-4},
		{name: "mds_ensemble", want: r.scores(t, "mds_ensemble.conf"), tolerance: 1e-3},
		{name: "gram", want: r.scores(t, "gram.conf"), tolerance: 1e-5}, {name: "gram", want: r.scores(t, "gram.conf_f64"), tolerance: 1e-5},
	})
}

// gram_newer holds out every tenth image of a class; so the images come in an order in
// which those are the ones that the reference drew.
func TestGramNewer(t *testing.T) {
	r := open(t)
	labels, drawn := r.labels(t, "train"), r.ints(t, "gram_newer.held_out")
	var of [10][2][]int // by class: images, held-out ones
	for i, l := range labels {
		of[l][drawn[i]] = append(of[l][drawn[i]], i)
	}
	var order []int
	for class := range of {
		rest, held := of[class][0], of[class][1]
		if want := len(rest) + len(held); len(held) != want/10 {
			t.Fatalf("%d of %d images of class %d are held out", len(held), want, class)
		}
		for _, h := range held {
			order = append(append(order, rest[:9]...), h)
			rest = rest[9:]
		}
		order = append(order, rest...)
	}
	r.compare(t, order, []golden{{name: "gram_newer", want: r.scores(t, "gram_newer.conf"), tolerance: 1e-3}})
}

// OpenOOD's own classes of newer methods, on the same network and images
// (bench/newer/network.py).
func TestNewerMethods(t *testing.T) {
	data, err := os.ReadFile("testdata/newer.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string][]float64
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != 17 {
		t.Errorf("%d golden cases, want 17", len(want))
	}
	var goldens []golden
	for name, scores := range want {
		if ends := func(s string) bool { return strings.HasSuffix(name, s) }; ends(" below") || ends(" above") {
			continue
		}
		g := golden{name: strings.TrimSuffix(name, " f64"), want: scores, tolerance: 1e-5}
		g.below, g.above = want[g.name+" below"], want[g.name+" above"]
		goldens = append(goldens, g)
	}
	open(t).compare(t, nil, goldens)
}

// first are the first n images of a split.
func first(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// golden are the scores of a detector, by its key and settings as key=value.
type golden struct {
	name      string
	want      []float64
	tolerance float64
	// below and above, if not nil, are the scores with a rank among the 128 validation
	// images that is two off. The score is a step function of that rank, and rounding moves
	// it: OpenOOD's float32 and float64 scores of AdaScale differ in 2 of 32 images. So a
	// few scores may lie elsewhere between those.
	below, above []float64
}

// steps is how many of 32 images may have another rank.
const steps = 4

// off is max|got-want| / max|want|, and how many scores have another rank.
func (g golden) off(got []float64) (worst float64, moved int) {
	size := 0.0
	for i, w := range g.want {
		size = max(size, math.Abs(w))
		e := math.Abs(got[i] - w)
		if g.below != nil && e > g.tolerance*math.Abs(w) {
			moved++
			low, high := min(g.below[i], g.above[i]), max(g.below[i], g.above[i])
			e = max(low-got[i], got[i]-high, 0)
		}
		if !(e <= worst) {
			worst = e
		}
	}
	return worst / size, moved
}

// compare fits detectors on training images in an order, and on all validation images, and
// compares scores of the test images.
func (r *reference) compare(t *testing.T, train []int, goldens []golden) {
	t.Helper()
	const batch, validation, test, novel = 64, 128, 32, 16
	fitted := map[string]detector.Detector{}
	var all []detector.Detector
	for _, g := range goldens {
		if fitted[g.name] != nil {
			continue
		}
		words := strings.Fields(g.name)
		s := detector.Settings{Params: map[string]float64{}}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				t.Fatal(err)
			}
			s.Params[words[0]+"."+key] = v
		}
		d, err := detector.New(words[0], s)
		if err != nil {
			t.Fatal(err)
		}
		fitted[g.name], all = d, append(all, d)
	}
	p, err := New(r.model, For(all...), Options{MaxBatch: batch, Std: cifar10Std})
	if err != nil {
		t.Fatal(err)
	}
	run := func(split string, which []int, novel int, phase detector.Phase) *detector.Inputs {
		var pixels []float32
		labels, of := r.labels(t, split), []int(nil)
		for _, i := range which {
			pixels, of = append(pixels, images(split, i, 1, novel)...), append(of, labels[i])
		}
		in, err := p.Run(pixels, len(which), phase)
		if err != nil {
			t.Fatal(err)
		}
		in.Labels = of
		return in
	}
	each := func(f func(d detector.Detector) error) {
		for _, d := range all {
			if err := f(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	each(func(d detector.Detector) error { return d.Begin(p.Network()) })
	for from := 0; from < len(train); from += batch {
		in := run("train", train[from:min(from+batch, len(train))], len(train), detector.Fitting)
		each(func(d detector.Detector) error { return d.Fit(in) })
	}
	learns := func(d detector.Detector) bool { _, ok := d.(detector.ValidationFitter); return ok }
	for from := 0; from < validation && slices.ContainsFunc(all, learns); from += batch {
		in := run("val", first(validation)[from:from+batch], validation, detector.Validating)
		each(func(d detector.Detector) error {
			if v, ok := d.(detector.ValidationFitter); ok {
				return v.FitValidation(in)
			}
			return nil
		})
	}
	each(detector.Detector.End)
	in := run("test", first(test), novel, detector.Scoring)
	for _, g := range goldens {
		got := make([]float64, in.N)
		if err := fitted[g.name].Score(in, got); err != nil {
			t.Fatal(err)
		}
		e, moved := g.off(got)
		t.Logf("%s: error %.2g, %d of another rank", g.name, e, moved)
		if !(e <= g.tolerance) || moved > steps {
			t.Errorf("%s: error %.3g, want at most %g; %d scores have another rank", g.name, e, g.tolerance, moved)
		}
	}
}

package probe

import (
	"fmt"
	"math"
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
	labels, _, err := r.file.Int32s(split + ".label")
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

// relativeError is max|got-want| / max|want|.
func relativeError(got, want []float64) float64 {
	worst, size := 0.0, 0.0
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= worst) {
			worst = d
		}
		size = max(size, math.Abs(w))
	}
	return worst / size
}

// Detectors that read more than logits and features give the scores of the reference's
// own classes, from the network on.
func TestBaselines(t *testing.T) {
	const batch, train = 64, 1024
	r := open(t)
	goldens := []struct {
		key, want string
		tolerance float64
	}{
		{"odin", "odin.conf", 1e-5}, {"odin", "odin.conf_f64", 1e-5},
		{"rankfeat", "rankfeat.conf", 1e-4}, {"rankfeat", "rankfeat.conf_f64", 1e-4},
		{"mds_ensemble", "mds_ensemble.conf", 1e-3},
		{"gram", "gram.conf", 1e-5}, {"gram", "gram.conf_f64", 1e-5},
	}
	fitted := map[string]detector.Detector{}
	var all []detector.Detector
	for _, g := range goldens {
		if fitted[g.key] != nil {
			continue
		}
		d, err := detector.New(g.key, detector.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		fitted[g.key], all = d, append(all, d)
	}
	p, err := New(r.model, For(all...), Options{MaxBatch: batch, Std: cifar10Std})
	if err != nil {
		t.Fatal(err)
	}
	run := func(split string, from, n, novel int, phase detector.Phase) *detector.Inputs {
		in, err := p.Run(images(split, from, n, novel), n, phase)
		if err != nil {
			t.Fatal(err)
		}
		in.Labels = r.labels(t, split)[from : from+n]
		return in
	}
	for _, d := range all {
		if err := d.Begin(p.Network()); err != nil {
			t.Fatal(err)
		}
	}
	for from := 0; from < train; from += batch {
		in := run("train", from, batch, train, detector.Fitting)
		for _, d := range all {
			if err := d.Fit(in); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range all {
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
	}
	in := run("test", 0, 32, 16, detector.Scoring)
	for _, g := range goldens {
		got := make([]float64, in.N)
		if err := fitted[g.key].Score(in, got); err != nil {
			t.Fatal(err)
		}
		e := relativeError(got, r.scores(t, g.want))
		t.Logf("%s: error %.2g", g.want, e)
		if !(e <= g.tolerance) {
			t.Errorf("%s: error %.3g, want at most %g", g.want, e, g.tolerance)
		}
	}
}

package openood

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/internal/safetensors"
	"nac/internal/shareddata"
	"nac/metric"
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
	data, err := os.ReadFile(shareddata.Path(t, "golden", golden+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

type setup struct {
	model   *arch.Model
	network detector.Network
	extract *arch.Extractor
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
	if s.extract, err = m.NewExtractor(arch.Request{Layers: b.LayerNames(), Gradients: true}, 64, 0); err != nil {
		t.Fatal(err)
	}
	s.network = NetworkOf(m)
	return s
}

// From the reference's own pixels everything after decoding must agree.
func TestRealNetworksFromPixels(t *testing.T) {
	pixels, err := safetensors.Read(shareddata.Path(t, "golden", "real_cifar10_pixels.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer pixels.Close()
	dir := shareddata.Unpacked(t)
	source := func(name string) Source {
		data, shape, err := pixels.Uint8s(name)
		if err != nil {
			t.Fatal(err)
		}
		images := make([]float32, len(data))
		plane := shape[2] * shape[3]
		for i, v := range data {
			c := i / plane % 3
			images[i] = (float32(v)/255 - imageNetMean[c]) / imageNetStd[c]
		}
		return Tensors(name, images, make([]int, shape[0]), 64)
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
				Train: source("main_train"), Val: source("val"), Test: source("val"),
				Near: []Images{{"ood_val", source("ood_val")}},
			}
			report, err := Run(context.Background(), data, s.network, s.extract, s.methods, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, set := range report.Scores {
				if set.Set == "test" {
					continue
				}
				compareScores(t, set.Set, set.Scores[0].Values, float32s(t, want, set.Set+".score"))
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

// compareScores allows one image in 200 to have a neuron that lies within
// rounding of a bin's edge.
func compareScores(t *testing.T, set string, got []float64, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d scores, want %d", set, len(got), len(want))
	}
	off := 0
	for i, w := range want {
		d := math.Abs(got[i] - float64(w))
		if d > 0.01 {
			t.Errorf("%s: score of image %d is %v, want %v", set, i, got[i], w)
		}
		if d > 1e-4*math.Abs(float64(w)) {
			off++
		}
	}
	t.Logf("%s: %d of %d scores are off by more than 1e-4", set, off, len(want))
	if off*200 > len(want) {
		t.Errorf("%s: %d of %d scores are off, at most one in 200 may be", set, off, len(want))
	}
}

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
			report, err := Run(ctx, data, s.network, s.extract, s.methods, nil)
			if err != nil {
				t.Fatal(err)
			}
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
		})
	}
}

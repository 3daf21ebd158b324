package dg

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nac/internal/mt19937"
	"nac/internal/safetensors"
)

// reference are numbers of the reference's own code; bench/train/dg.py ran it.
func reference(t *testing.T) *safetensors.File {
	t.Helper()
	f, err := safetensors.Read("testdata/reference.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func floats(t *testing.T, f *safetensors.File, name string) []float32 {
	t.Helper()
	v, _, err := f.Float32s(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func octets(t *testing.T, f *safetensors.File, name string) []uint8 {
	t.Helper()
	v, _, err := f.Uint8s(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAlgorithmsLikeReference(t *testing.T) {
	f := reference(t)
	const domains, classes, width = 3, 4, 5
	logits, features, weight := floats(t, f, "logits"), floats(t, f, "features"), floats(t, f, "weight")
	var labels []int
	for _, y := range octets(t, f, "labels") {
		labels = append(labels, int(y))
	}
	h := HParams{IRMLambda: 100, IRMAnneal: 500, VRExLambda: 10, VRExAnneal: 500, GroupDROEta: 0.01, MMDGamma: 0.7, MixupAlpha: 0.2}
	seen := 0
	for tag, text := range f.Metadata() {
		name, step, ok := strings.Cut(tag, ".")
		if _, known := algorithms[name]; !ok || !known {
			continue
		}
		var want struct {
			Loss float64
			Q    []float64
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		a, err := NewAlgorithm(name, h)
		if err != nil {
			t.Fatal(err)
		}
		b := &Minibatches{
			Domains: domains, Classes: classes, Labels: slices.Clone(labels), Logits: slices.Clone(logits), Features: features,
			GradLogits: make([]float32, len(logits)), GradFeatures: make([]float32, len(features)),
		}
		b.Step, _ = strconv.Atoi(step)
		per := len(labels) / domains
		switch a := a.(type) {
		case *groupDRO:
			if b.Step > 0 {
				a.q = []float64{0.2, 0.5, 0.3}
			}
		case *alignment:
			for i := range labels {
				for c := range classes {
					b.Logits[i*classes+c] = 0
					for k := range width {
						b.Logits[i*classes+c] += weight[c*width+k] * features[i*width+k]
					}
				}
			}
		case *mixup:
			a.share, a.second = []float64{0.3, 0.9, 0.05}, make([]int, len(labels))
			for i, pair := range [][2]int{{1, 2}, {2, 0}, {0, 1}} {
				copy(b.Labels[i*per:(i+1)*per], labels[pair[0]*per:])
				copy(a.second[i*per:(i+1)*per], labels[pair[1]*per:(pair[1]+1)*per])
				for k := range per * classes {
					share := float32(a.share[i])
					b.Logits[i*per*classes+k] = share*logits[pair[0]*per*classes+k] + (1-share)*logits[pair[1]*per*classes+k]
				}
			}
		}
		loss, _ := a.Loss(b)
		if math.Abs(loss-want.Loss) > 1e-6*(1+math.Abs(want.Loss)) {
			t.Errorf("%s: loss %v, want %v", tag, loss, want.Loss)
		}
		// The reference's gradient is with respect to what it was given.
		got := b.GradLogits
		switch a := a.(type) {
		case *alignment:
			got = b.GradFeatures
			for i := range labels {
				for k := range width {
					for c := range classes {
						got[i*width+k] += b.GradLogits[i*classes+c] * weight[c*width+k]
					}
				}
			}
		case *mixup:
			got = make([]float32, len(logits))
			for i, pair := range [][2]int{{1, 2}, {2, 0}, {0, 1}} {
				for k := range per * classes {
					g := b.GradLogits[i*per*classes+k]
					got[pair[0]*per*classes+k] += float32(a.share[i]) * g
					got[pair[1]*per*classes+k] += float32(1-a.share[i]) * g
				}
			}
		case *groupDRO:
			for i, q := range want.Q {
				if math.Abs(a.q[i]-q) > 1e-9 {
					t.Errorf("%s: weight %d of a domain is %v, want %v", tag, i, a.q[i], q)
				}
			}
		}
		wantGrad := floats(t, f, tag+".grad")
		scale := 0.0
		for _, w := range wantGrad {
			scale = max(scale, math.Abs(float64(w)))
		}
		for i, w := range wantGrad {
			if math.Abs(float64(got[i]-w)) > 2e-6*scale {
				t.Errorf("%s: gradient %d is %v, want %v", tag, i, got[i], w)
				break
			}
		}
		seen++
	}
	if seen != 10 {
		t.Errorf("%d cases compared", seen)
	}
}

func TestHParamsLikeReference(t *testing.T) {
	seen := 0
	for tag, text := range reference(t).Metadata() {
		parts := strings.Split(tag, ".")
		if parts[0] != "hparams" {
			continue
		}
		b, err := FindBenchmark(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		got, _ := registry(parts[1], b, mt19937.New(0))
		if parts[3] != "default" {
			seed, _ := strconv.Atoi(parts[3])
			got = RandomHParams(parts[1], b, uint32(seed))
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		have := map[string]any{}
		encoded, _ := json.Marshal(got)
		_ = json.Unmarshal(encoded, &have)
		for name, w := range want {
			if name == "grad_penalty" { // see dann
				continue
			}
			x, number := w.(float64)
			g, _ := have[name].(float64)
			if number && math.Abs(g-x) > 1e-12*math.Abs(x) || !number && have[name] != w {
				t.Errorf("%s: %s is %v, want %v", tag, name, have[name], w)
			}
		}
		seen++
	}
	if seen != 9*4*4 {
		t.Errorf("%d cases compared", seen)
	}
}

func TestDigitsLikeDomainBed(t *testing.T) {
	f := reference(t)
	d := &digits{pixels: octets(t, f, "digits.images"), labels: octets(t, f, "digits.labels")}
	for _, seed := range []uint32{0, 3} {
		for name, set := range map[string]*Dataset{"rotated": rotatedMNIST(d, seed), "colored": coloredMNIST(d, seed)} {
			for i, domain := range set.Domains {
				tag := fmt.Sprintf("%s.%d.%d", name, seed, i)
				images, labels := octets(t, f, tag+".x"), octets(t, f, tag+".y")
				size := set.Channels * digitSide * digitSide
				if domain.Samples.Len() != len(labels) {
					t.Fatalf("%s: %d images, want %d", tag, domain.Samples.Len(), len(labels))
				}
				image := make([]float32, size)
				for k, y := range labels {
					if err := domain.Samples.Image(k, nil, image); err != nil {
						t.Fatal(err)
					}
					if domain.Samples.Label(k) != int(y) {
						t.Errorf("%s: label %d is %d, want %d", tag, k, domain.Samples.Label(k), y)
					}
					for p, v := range image {
						if want := float32(images[k*size+p]) / 255; v != want {
							t.Fatalf("%s: value %d of image %d is %v, want %v", tag, p, k, v*255, want*255)
						}
					}
				}
			}
		}
	}
}

func TestSplitsLikeDomainBed(t *testing.T) {
	seen := 0
	for tag, text := range reference(t).Metadata() {
		var trial, domain, n int
		if c, _ := fmt.Sscanf(tag, "split.%d.%d.%d", &trial, &domain, &n); c != 3 {
			continue
		}
		var want struct {
			Seed           uint32
			In, Out, Sizes []int
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got := SeedHash(trial, domain); got != want.Seed {
			t.Errorf("%s: seed %d, want %d", tag, got, want.Seed)
		}
		in, out := Split(n, domain, trial, 0.2)
		if !slices.Equal([]int{len(in), len(out)}, want.Sizes) || !slices.Equal(in[:len(want.In)], want.In) || !slices.Equal(out[:len(want.Out)], want.Out) {
			t.Errorf("%s: %d and %d, from %v and %v", tag, len(in), len(out), in[:len(want.In)], out[:len(want.Out)])
		}
		seen++
	}
	if seen != 4 {
		t.Errorf("%d cases compared", seen)
	}
}

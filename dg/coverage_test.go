package dg

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"nac/arch"
	"nac/coverage"
	"nac/internal/safetensors"
	"nac/internal/shareddata"
)

// labelled are images with other labels.
type labelled struct {
	images *digitDomain
	labels []uint8
}

func (l labelled) Len() int                                       { return len(l.labels) }
func (l labelled) Label(i int) int                                { return int(l.labels[i]) }
func (l labelled) Image(i int, r *rand.Rand, dst []float32) error { return l.images.Image(i, r, dst) }

// The whole way from images to NAC-ME's number against the reference's own code: the
// layer, the gradient, the pooling, who is counted, the bins. bench/train/nacme.py ran
// it on MNIST_CNN with the same made weights.
func TestCoverageOfNetworkLikeReference(t *testing.T) {
	f, err := safetensors.Read("testdata/coverage.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sd, err := arch.Init("mnist_cnn", arch.InitOptions{Classes: 10, Channels: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sd.Names() {
		tensor, _ := sd.Lookup(name)
		if strings.Contains(name, ".bn") && strings.HasSuffix(name, ".weight") {
			copy(tensor.Data, shareddata.Fill(name, len(tensor.Data), func(u float64) float64 { return 0.5 + u }))
			continue
		}
		refill(name, tensor)
	}
	m, err := arch.Load("mnist_cnn", sd)
	if err != nil {
		t.Fatal(err)
	}
	layer := CoverageLayer(m)
	digits := &digitDomain{channels: 1}
	pixels := octets(t, reference(t), "digits.images")
	for i := range len(pixels) / (digitSide * digitSide) {
		digits.pixels = append(digits.pixels, pixels[i*digitSide*digitSide:(i+1)*digitSide*digitSide])
	}
	samples := labelled{digits, octets(t, f, "labels")}

	e, err := m.NewExtractor(arch.Request{Layers: []string{layer}, Gradients: true}, 5, 1)
	if err != nil {
		t.Fatal(err)
	}
	images := make([]float32, 5*digitSide*digitSide)
	for i := range 5 {
		if err := samples.Image(i, nil, images[i*digitSide*digitSide:]); err != nil {
			t.Fatal(err)
		}
	}
	out, err := e.Run(images, 5)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]float32{"z": out.States[0].Z, "g": out.States[0].G} {
		want, scale, worst := floats(t, f, name), 0.0, 0.0
		for i, w := range want {
			scale, worst = max(scale, math.Abs(float64(w))), max(worst, math.Abs(float64(got[i]-w)))
		}
		if !(worst <= 3e-5*scale) {
			t.Errorf("%s is off by %v of %v", name, worst, scale)
		}
	}

	seen := 0
	for tag, text := range f.Metadata() {
		var want struct {
			CoverageSettings
			Coverage, Accuracy float64
			Right              int64
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		want.Layer = layer
		l, err := coverage.NewLayer(want.LayerSettings(), 128)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Judge{Batch: 32, Workers: 1}.Coverage(context.Background(), m, samples, l, 0)
		if err != nil {
			t.Fatal(err)
		}
		if l.Samples() != want.Right || math.Abs(v.Accuracy-want.Accuracy) > 1e-12 {
			t.Errorf("%s: %d of accuracy %v are counted, want %d of %v", tag, l.Samples(), v.Accuracy, want.Right, want.Accuracy)
		}
		// A state at a threshold may fall on either side of it: 3 in 10,000 are let off.
		counts, all, moved := floats(t, f, tag+".counts"), 0.0, 0.0
		for b, w := range counts {
			got := 0.0
			for c := range 128 {
				got += float64(l.Counts()[c*(want.M-1)+b])
			}
			all += float64(w)
			moved += math.Abs(got - float64(w))
		}
		if all == 0 || moved > 3e-4*all {
			t.Errorf("%s: %v of %v states lie in other bins", tag, moved, all)
		}
		if d := math.Abs(l.Summary().Coverage - want.Coverage); !(d <= 1e-4*want.Coverage) {
			t.Errorf("%s: coverage %v, want %v", tag, l.Summary().Coverage, want.Coverage)
		}
		seen++
	}
	if seen != 3 {
		t.Errorf("%d settings compared", seen)
	}
}

// watched tells whether its images are asked for augmented.
type watched struct {
	labelled
	augmented, plain *atomic.Int64
}

func (w watched) Image(i int, r *rand.Rand, dst []float32) error {
	if r != nil {
		w.augmented.Add(1)
	} else {
		w.plain.Add(1)
	}
	return w.labelled.Image(i, r, dst)
}

// Coverage is of augmented images where that is asked for, accuracy never is.
func TestCoverageAugmented(t *testing.T) {
	for _, augment := range []bool{false, true} {
		r := toyRun(t.TempDir(), "ERM")
		r.Config.Coverage.Augment = augment
		s, err := r.start()
		if err != nil {
			t.Fatal(err)
		}
		var augmented, plain atomic.Int64
		images := 0
		for i := range s.in {
			d := s.Data.Domains[i].Samples.(*digitDomain)
			for _, part := range []*subset{s.in[i], s.out[i]} {
				part.Samples = watched{labelled{d, d.labels}, &augmented, &plain}
				images += part.Len()
			}
		}
		m, err := s.net.Model()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.judge(context.Background(), m); err != nil {
			t.Fatal(err)
		}
		want := 0
		if augment {
			want = s.in[0].Len() + s.in[2].Len() // b is left out
		}
		if augmented.Load() != int64(want) || plain.Load() != int64(images-want) {
			t.Errorf("augment %v: %d images augmented, %d not, want %d and %d", augment, augmented.Load(), plain.Load(), want, images-want)
		}
	}
}

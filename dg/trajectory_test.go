package dg

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"nac/arch"
	"nac/internal/shareddata"
	"nac/nn"
	"nac/train"
	"nac/weights"
)

// refill fills a tensor by the rule of bench/train/dg.py.
func refill(name string, t weights.Tensor) {
	bound := 0.1
	if len(t.Shape) > 1 {
		bound = 1.5 * math.Sqrt(3*float64(t.Shape[0])/float64(len(t.Data)))
	}
	copy(t.Data, shareddata.Fill(name, len(t.Data), func(u float64) float64 { return bound * (2*u - 1) }))
}

func refillAll(sd *weights.StateDict) {
	for _, name := range sd.Names() {
		t, _ := sd.Lookup(name)
		refill(name, t)
	}
}

// Whole steps, optimizers and an algorithm's own networks included, against the
// reference's classes in float64 with the same weights and images: losses of each step,
// and in the end the network's logits and the algorithm's own parameters.
func TestStepsLikeReference(t *testing.T) {
	f := reference(t)
	digits, labels := octets(t, f, "digits.images"), octets(t, f, "digits.labels")
	const n, domains = 6, 2
	batch := &train.Batch{N: n, Labels: make([]int, n), Images: make([]float32, n*digitSide*digitSide)}
	for i, v := range digits[:len(batch.Images)] {
		batch.Images[i] = float32(v) / 255
	}
	for i, y := range labels[:n] {
		batch.Labels[i] = int(y)
	}
	seen := 0
	for tag, text := range f.Metadata() {
		name, ok := strings.CutPrefix(tag, "trajectory.")
		if !ok {
			continue
		}
		var want struct {
			HParams map[string]any
			Steps   []map[string]float64
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		delete(want.HParams, "grad_penalty")
		r := toyRun(t.TempDir(), name)
		r.Data.ClassNames = strings.Split("0123456789", "")
		if err := r.HParams.Set(want.HParams); err != nil {
			t.Fatal(err)
		}
		r.HParams.BatchSize = n / domains
		r.Arch, r.Coverage.Layer = "lenet", "relu"
		sd, err := arch.Init(r.Arch, arch.InitOptions{Classes: 10, Channels: 1})
		if err != nil {
			t.Fatal(err)
		}
		refillAll(sd)
		r.Init = sd
		s, err := r.start()
		if err != nil {
			t.Fatal(err)
		}
		var own []*nn.Parameter
		if c, ok := s.algorithm.(company); ok {
			refillAll(c.tensors())
			switch a := s.algorithm.(type) {
			case *dann:
				own = a.discriminator.parameters()
			case *sagnet:
				own = a.style.parameters()
				turn := 0
				a.draw = func(_ *rand.Rand, n int) (alpha []float64, swap []int) {
					turn++
					for i := range n {
						alpha, swap = append(alpha, float64(i)/float64(n)), append(swap, (i-turn+100*n)%n)
					}
					return alpha, swap
				}
			}
		}
		for i, w := range want.Steps {
			s.state.Losses = map[string]float64{}
			if _, err := s.step(batch); err != nil {
				t.Fatal(err)
			}
			got := s.state.Losses
			got["gen_loss"] = got["loss"] // DANN's, in the network's turn
			if name == "CORAL" {
				got["loss"] = got["nll"] // the reference tells the penalty beside it
			}
			for part, v := range w {
				if d := math.Abs(got[part] - v); !(d <= 1e-5*(1+math.Abs(v))) {
					t.Errorf("%s: step %d: %s is %v, want %v", name, i, part, got[part], v)
				}
				seen++
			}
		}
		m, err := s.net.Model()
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.NewExtractor(arch.Request{}, n, 1)
		if err != nil {
			t.Fatal(err)
		}
		out, err := e.Run(batch.Images, n)
		if err != nil {
			t.Fatal(err)
		}
		near := func(what string, got, want []float32, tolerance float64) {
			if len(got) != len(want) {
				t.Fatalf("%s: %d %s, want %d", name, len(got), what, len(want))
			}
			for i, w := range want {
				if d := math.Abs(float64(got[i] - w)); !(d <= tolerance*(1+math.Abs(float64(w)))) {
					t.Errorf("%s: %s %d is %v, want %v", name, what, i, got[i], w)
					break
				}
			}
		}
		near("logits", out.Logits, floats(t, f, tag+".logits"), 1e-4)
		var values []float32
		for _, p := range own {
			values = append(values, p.Value...)
		}
		if own != nil {
			near("own parameters", values, floats(t, f, tag+".own"), 1e-4)
		}
	}
	if seen != 5*(1+2+3+1+3) {
		t.Errorf("%d losses compared", seen)
	}
}

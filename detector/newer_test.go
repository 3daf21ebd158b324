package detector

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strings"
	"testing"
)

func init() { toyParams["scale.percentile"] = 65 }

// made are the features of bench/newer/golden.py, of which testdata/newer.json holds
// the scores that OpenOOD's own classes gave.
type made struct {
	network          Network
	train, val, test *Inputs
}

// fill returns numbers in [-1, 1), of a name and the index alone.
func fill(name string, n int) []float64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	base := h.Sum64()
	v := make([]float64, n)
	for i := range v {
		v[i] = 2*float64(splitMix64(base+uint64(i))>>40)/(1<<24) - 1
	}
	return v
}

func newMade() *made {
	const classes, features = 10, 64
	proto, w, b := fill("newer.proto", classes*features), fill("newer.weight", classes*features), fill("newer.bias", classes)
	m := &made{network: Network{Classes: classes, Features: features}}
	for i := range w {
		m.network.Weight = append(m.network.Weight, float32(proto[i]+0.5*w[i])*0.25)
	}
	for _, v := range b {
		m.network.Bias = append(m.network.Bias, float32(0.1*v))
	}
	novel := fill("newer.novel", 20*features)
	set := func(name string, n int) *Inputs {
		in := &Inputs{N: n, Labels: make([]int, n)}
		noise := fill("newer."+name, n*features)
		for i := range n {
			in.Labels[i] = i % classes
			centre := proto[i%classes*features:][:features]
			if name == "test" && i >= n/2 {
				centre = novel[(i-n/2)*features:]
			}
			for f := range features {
				in.Feature = append(in.Feature, float32(max(centre[f]+0.75*noise[i*features+f], 0)))
			}
			for k := range classes {
				sum := 0.0
				for f := range features {
					sum += float64(in.Feature[i*features+f]) * float64(m.network.Weight[k*features+f])
				}
				in.Logits = append(in.Logits, float32(sum+float64(m.network.Bias[k])))
			}
		}
		return in
	}
	m.train, m.val, m.test = set("train", 300), set("val", 80), set("test", 40)
	m.test.Labels = nil
	return m
}

// The scores of OpenOOD's classes, in float32.
func TestNewerMethods(t *testing.T) {
	data, err := os.ReadFile("testdata/newer.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Check  map[string][2]float64
		Scores map[string][]float64
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	m := newMade()
	for name, in := range map[string]*Inputs{"train": m.train, "val": m.val, "test": m.test} {
		want := golden.Check[name]
		if got := sum(in.Feature); math.Abs(got-want[0]) > 1e-6 {
			t.Errorf("%s features add up to %v, want %v", name, got, want[0])
		}
		if got := sum(in.Logits); math.Abs(got-want[1]) > 1e-3 {
			t.Errorf("%s logits add up to %v, want %v", name, got, want[1])
		}
	}
	if len(golden.Scores) != 13 {
		t.Errorf("%d golden cases, want 13", len(golden.Scores))
	}
	for name, want := range golden.Scores {
		t.Run(name, func(t *testing.T) {
			words := strings.Fields(name)
			s := Settings{Params: map[string]float64{}}
			for _, w := range words[1:] {
				key, value, _ := strings.Cut(w, "=")
				var v float64
				if _, err := fmt.Sscan(value, &v); err != nil {
					t.Fatal(err)
				}
				s.Params[words[0]+"."+key] = v
			}
			d, err := New(words[0], s)
			if err != nil {
				t.Fatal(err)
			}
			fitOn(t, d, m.network, m.train, m.val, 37)
			e := relativeError(scores(t, d, m.test), want)
			t.Logf("error %.2g", e)
			if !(e <= 2e-6) {
				t.Errorf("error %.3g, want at most 2e-6", e)
			}
		})
	}
}

// What has no value in the formulas has a documented one.
func TestNewerDegenerate(t *testing.T) {
	m := newMade()
	// A feature at the mean of the training features, and one of zeros.
	constant := m.train.Rows(0, 1)
	zeros := &Inputs{N: 1, Logits: make([]float32, 10), Feature: make([]float32, 64)}
	equal := m.network
	equal.Weight = make([]float32, len(equal.Weight))
	for _, c := range []struct {
		key     string
		network Network
		in      *Inputs
		want    float64
	}{
		{"fdbd", m.network, constant, math.MaxFloat64},
		{"nci", m.network, constant, 1e-4 * sum(constant.Feature)},
		{"fdbd", equal, zeros, 0}, // no boundary at all
		{"scale", m.network, zeros, math.NaN()},
		{"nnguide", m.network, zeros, math.NaN()},
		{"relation", m.network, zeros, 0},
		{"vra", m.network, zeros, math.NaN()},
		{"entropy", m.network, zeros, -math.Log(10)},
	} {
		d, err := New(c.key, Settings{Params: map[string]float64{"nnguide.K": 1}})
		if err != nil {
			t.Fatal(err)
		}
		fitOn(t, d, c.network, constant, constant, 1)
		got := scores(t, d, c.in)[0]
		if math.IsNaN(c.want) {
			if math.IsNaN(got) || math.IsInf(got, 0) {
				t.Errorf("%s: %v, want a number", c.key, got)
			}
		} else if math.Abs(got-c.want) > 1e-9*(1+math.Abs(c.want)) {
			t.Errorf("%s: %v, want %v", c.key, got, c.want)
		}
	}
	for key, says := range map[string]string{"nnguide": "K is 100", "vra": "no ID validation images", "relation": "no training images"} {
		d, _ := New(key, Settings{})
		train := m.train.Rows(0, 50)
		if key == "relation" {
			train = &Inputs{}
		}
		if err := tryFit(d, m.network, train, &Inputs{}, 64); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error saying %q", key, err, says)
		}
	}
	if _, err := New("vra", Settings{Params: map[string]float64{"vra.percentile_low": 95}}); err == nil {
		t.Error("vra: thresholds that cross are accepted")
	}
}

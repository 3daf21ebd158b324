package detector

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
)

// Inputs that a detector may be given by mistake or by poor data. Each must end in an
// error that says what is wrong or in finite scores: no panic, no NaN. The cases
// with a fault named must fail; whether the others do is up to the method and listed in
// docs/detector.md.
func TestHostileInputs(t *testing.T) {
	r := func() toy { return toy{rand.New(rand.NewPCG(11, 12))} }
	without := func(in *Inputs, keep func(label, seen int) bool) *Inputs {
		var seen [toyClasses]int
		out := &Inputs{Labels: []int{}, States: []coverage.States{{Layer: toyLayer}, {Layer: toyEarly}, {Layer: toyMiddle}}}
		for i, l := range in.Labels {
			if !keep(l, seen[l]) {
				continue
			}
			seen[l]++
			p := part(in, i, i+1)
			out.N++
			out.Labels = append(out.Labels, l)
			out.Logits, out.Feature = append(out.Logits, p.Logits...), append(out.Feature, p.Feature...)
			for k, s := range p.States {
				out.States[k].Z, out.States[k].G = append(out.States[k].Z, s.Z...), append(out.States[k].G, s.G...)
			}
		}
		return out
	}
	set := func(in *Inputs, v float32, where ...string) *Inputs {
		out := in.clone()
		for _, w := range where {
			switch w {
			case "logits":
				out.Logits[toyClasses+1] = v
			case "features":
				out.Feature[toyFeatures+1] = v
			}
		}
		return out
	}
	constant := func(in *Inputs) *Inputs {
		out := in.clone()
		for _, v := range append([][]float32{out.Feature}, out.States[0].Z, out.States[0].G, out.States[1].Z, out.States[2].Z) {
			for i := range v {
				v[i] = 0.5
			}
		}
		for i := range out.Logits {
			out.Logits[i] = float32(i % toyClasses)
		}
		return out
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name       string
		train, val func(in *Inputs) *Inputs
		score      func(in *Inputs) *Inputs
		must       func(key string) bool // be refused
	}{
		{name: "a class without images", train: func(in *Inputs) *Inputs {
			return without(in, func(l, _ int) bool { return l != 2 })
		}},
		{name: "a class of one image", train: func(in *Inputs) *Inputs {
			return without(in, func(l, seen int) bool { return l != 2 || seen < 1 })
		}},
		{name: "one class alone", train: func(in *Inputs) *Inputs {
			return without(in, func(l, _ int) bool { return l == 2 })
		}},
		{name: "fewer images than features", train: func(in *Inputs) *Inputs { return part(in, 0, toyFeatures/2) }},
		{name: "one image", train: func(in *Inputs) *Inputs { return part(in, 0, 1) },
			must: func(key string) bool { return key == "knn" || key == "nnguide" || key == fusionKey }},
		{name: "no images", train: func(in *Inputs) *Inputs { return part(in, 0, 0) }, val: func(in *Inputs) *Inputs { return part(in, 0, 0) },
			must: func(key string) bool {
				return !fitsNothing(key) && !slices.Contains([]string{"ash", "ash_s", "ash_p", "scale", "gen", "gradnorm"}, key)
			}},
		{name: "constant features", train: constant, val: constant},
		{name: "constant features, other images", train: constant},
		{name: "labels out of range", train: func(in *Inputs) *Inputs {
			out := in.clone()
			out.Labels[3] = toyClasses
			return out
		}},
		{name: "NaN logits in training", train: func(in *Inputs) *Inputs { return set(in, nan, "logits") },
			must: func(key string) bool { return key != "nac" && !fitsNothing(key) }},
		{name: "infinite logits in training", train: func(in *Inputs) *Inputs { return set(in, inf, "logits") },
			must: func(key string) bool { return key != "nac" && !fitsNothing(key) }},
		{name: "NaN features in training", train: func(in *Inputs) *Inputs { return set(in, nan, "features") },
			must: func(key string) bool { return key != "nac" && !fitsNothing(key) }},
		{name: "NaN logits", score: func(in *Inputs) *Inputs { return set(in, nan, "logits") },
			must: func(key string) bool { return key != "nac" }},
		{name: "infinite logits", score: func(in *Inputs) *Inputs { return set(in, -inf, "logits") },
			must: func(key string) bool { return key != "nac" }},
		{name: "huge features and logits", score: func(in *Inputs) *Inputs {
			out := in.clone()
			for i := range out.Feature {
				out.Feature[i] *= 1e15
			}
			for i := range out.Logits {
				out.Logits[i] *= 1e15
			}
			return out
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := r()
			train, val, id := in.batch(300, true), in.batch(60, true), in.batch(40, true)
			for from, f := range map[**Inputs]func(*Inputs) *Inputs{&train: c.train, &val: c.val, &id: c.score} {
				if f != nil {
					*from = f(*from)
				}
			}
			var refused []string
			for _, key := range Keys() {
				why := tryAll(t, key, in.network(), toySettings(), train, val, id)
				if why != nil {
					refused = append(refused, key)
					if !strings.HasPrefix(why.Error(), "detector: ") {
						t.Errorf("%s: the error does not say where it is from: %v", key, why)
					}
				} else if c.must != nil && c.must(key) {
					t.Errorf("%s takes it", key)
				}
			}
			t.Logf("refused by %s", strings.Join(refused, ", "))
		})
	}
}

// fitsNothing tells whether a method does not look at training images at all.
func fitsNothing(key string) bool {
	return slices.Contains([]string{"msp", "mls", "ebo", "entropy", "odin", "iodin", "rankfeat"}, key)
}

// tryAll fits and scores. Scores that are not finite fail the test.
func tryAll(t *testing.T, key string, n Network, s Settings, train, val, in *Inputs) (err error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s panics: %v", key, p)
		}
	}()
	d, err := New(key, s)
	if err != nil {
		return err
	}
	if err := tryFit(d, n, train, val, 64); err != nil {
		return err
	}
	dst := make([]float64, in.N)
	if err := d.Score(see(d, in, Scoring), dst); err != nil {
		return err
	}
	for i, v := range dst {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s: the score of image %d is %v", key, i, v)
			break
		}
	}
	return nil
}

// Networks of two classes, and of one.
func TestFewClasses(t *testing.T) {
	in := toy{rand.New(rand.NewPCG(13, 14))}
	for classes := 1; classes <= 2; classes++ {
		n := in.network()
		n.Classes, n.Weight, n.Bias = classes, n.Weight[:classes*toyFeatures], n.Bias[:classes]
		few := func(count int, id bool) *Inputs {
			b := in.batch(count, id)
			var logits []float32
			for i := range b.N {
				logits = append(logits, b.Logits[i*toyClasses:][:classes]...)
				b.Labels[i] %= classes
			}
			b.Logits = logits
			return b
		}
		train, val, id := few(200, true), few(60, true), few(20, true)
		for _, key := range Keys() {
			if err := tryAll(t, key, n, toySettings(), train, val, id); err != nil {
				t.Logf("%d classes: %v", classes, err)
				if classes == 2 {
					t.Errorf("two classes: %v", err)
				}
			}
		}
	}
}

// More neighbours than training images.
func TestTooManyNeighbours(t *testing.T) {
	in := toy{rand.New(rand.NewPCG(15, 16))}
	train, val, id := in.batch(30, true), in.batch(10, true), in.batch(5, true)
	for _, m := range Methods() {
		for _, p := range m.Params {
			if p.Name != "K" {
				continue
			}
			s := toySettings()
			s.Params = map[string]float64{m.Key + ".K": 31}
			if err := tryAll(t, m.Key, in.network(), s, train, val, id); err == nil || !strings.Contains(err.Error(), "K is 31, but there are only 30 training images") {
				t.Errorf("%s: %v", m.Key, err)
			}
		}
	}
}

// One fit with a late setting is as good as one made with it.
func TestSweepVariants(t *testing.T) {
	in := toy{rand.New(rand.NewPCG(17, 18))}
	train, val, id := in.batch(300, true), in.batch(60, true), in.batch(20, true)
	for _, key := range Keys() {
		all, err := SweepVariants(key, toySettings())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			if err := tryFit(v.Detector, in.network(), train, val, 64); err != nil {
				continue // no setting for this network
			}
			for i, s := range v.Settings {
				v.Use(i)
				got, want := make([]float64, id.N), make([]float64, id.N)
				err := v.Detector.Score(see(v.Detector, id, Scoring), got)
				d, alone := New(key, s)
				if alone == nil {
					alone = tryFit(d, in.network(), train, val, 64)
				}
				if alone == nil {
					alone = d.Score(see(d, id, Scoring), want)
				}
				if (err == nil) != (alone == nil) || err == nil && !slices.Equal(got, want) {
					t.Errorf("%s %v: %v and %v differ from those of a detector of its own (%v, %v)", key, s.Params, got[:2], want[:2], err, alone)
				}
			}
		}
	}
}

// The size that is told is that of what is saved.
func TestStateBytes(t *testing.T) {
	in := toy{rand.New(rand.NewPCG(19, 20))}
	train, val := in.batch(300, true), in.batch(60, true)
	for _, key := range Keys() {
		d := fitted(t, key, train, val, 64)
		got, err := StateBytes(d)
		if err != nil {
			t.Fatal(err)
		}
		tensors, err := Tensors(d)
		if err != nil {
			t.Fatal(err)
		}
		if want := bytesOf(tensors); got != want || got == 0 {
			t.Errorf("%s: %d bytes, its tensors have %d", key, got, want)
		}
	}
}

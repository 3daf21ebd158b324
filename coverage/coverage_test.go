package coverage

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newLayer(t testing.TB, s LayerSettings, channels int) *Layer {
	t.Helper()
	l, err := NewLayer(s, channels)
	must(t, err)
	return l
}

// wants checks that err says each of the words.
func wants(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one about %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func paper(layer string) LayerSettings {
	return LayerSettings{Layer: layer, M: 50, O: 50, Alpha: 100, Func: SigmoidOG}
}

func TestValidate(t *testing.T) {
	must(t, paper("layer4").Validate())
	for _, c := range []struct {
		change func(*LayerSettings)
		words  []string
	}{
		{func(s *LayerSettings) { s.M = 51 }, []string{`"layer4"`, "M = 51", "odd", "50 or 52"}},
		{func(s *LayerSettings) { s.M = 3 }, []string{"M = 3"}},
		{func(s *LayerSettings) { s.M = 2 }, []string{"M = 2"}},
		{func(s *LayerSettings) { s.M = 1 }, []string{"M = 1", "M < 2"}},
		{func(s *LayerSettings) { s.M = -4 }, []string{"M = -4"}},
		{func(s *LayerSettings) { s.M = MaxThresholds + 2 }, []string{"at most"}},
		{func(s *LayerSettings) { s.O = 0 }, []string{"O = 0", "at least 1"}},
		{func(s *LayerSettings) { s.O = math.MaxInt64 }, []string{"at most"}},
		{func(s *LayerSettings) { s.Alpha = 0 }, []string{"alpha = 0"}},
		{func(s *LayerSettings) { s.Alpha = -1 }, []string{"alpha = -1"}},
		{func(s *LayerSettings) { s.Alpha = math.NaN() }, []string{"alpha is NaN"}},
		{func(s *LayerSettings) { s.Alpha = math.Inf(1) }, []string{"float32"}},
		{func(s *LayerSettings) { s.Alpha = 1e-50 }, []string{"float32"}},
		{func(s *LayerSettings) { s.Layer = "" }, []string{"no name"}},
		{func(s *LayerSettings) { s.Func = 99 }, []string{"99"}},
		{func(s *LayerSettings) { s.Weight = -1 }, []string{"weight = -1"}},
		{func(s *LayerSettings) { s.Weight = math.NaN() }, []string{"weight = NaN"}},
		{func(s *LayerSettings) { s.M, s.O = 5, 0 }, []string{"M = 5", "O = 0"}},
	} {
		s := paper("layer4")
		c.change(&s)
		wants(t, s.Validate(), c.words...)
		if _, err := NewLayer(s, 3); err == nil {
			t.Errorf("NewLayer accepts %+v", s)
		}
	}
}

func TestStateFuncNames(t *testing.T) {
	for f := range StateFunc(len(stateFuncNames)) {
		p, err := ParseStateFunc(f.String())
		if err != nil || p != f {
			t.Errorf("%v parses as %v, %v", f, p, err)
		}
	}
	_, err := ParseStateFunc("relu")
	wants(t, err, "relu", "sigmoid(o*g_kl)", "tanh(o*g_kl)")
}

// naiveBin compares with every threshold, as the reference does.
func naiveBin(s LayerSettings, th []float64, z, g float32) int32 {
	state := float64(s.Func.State(s.Alpha, z, g))
	for i := range len(th) - 1 {
		if state >= th[i] && state < th[i+1] {
			return int32(i)
		}
	}
	return -1
}

// TestBinsMatchComparison compares the table with comparing states, at every
// place where they could part: around each pulled-back threshold, at special
// values and at random bits.
func TestBinsMatchComparison(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for f := range StateFunc(len(stateFuncNames)) {
		for _, m := range []int{4, 6, 50, 500, 1000} {
			for _, alpha := range []float64{1e-30, 0.001, 1, 7.3, 100, 3000, 1e8, 3e38} {
				if alpha != 1 && (f == O || f == G || f == OG) {
					continue
				}
				if m >= 500 && (f == SigmoidO || f == SigmoidG || alpha != 1 && alpha != 0.001 && alpha != 3000) {
					continue // enough, and comparing is slow
				}
				s := LayerSettings{Layer: "x", M: m, O: 1, Alpha: alpha, Func: f}
				l := newLayer(t, s, 1)
				var x []float32
				around := int64(20)
				if m > 50 {
					around = 2
				}
				for _, k := range l.look.keys {
					for d := -around; d <= around; d++ {
						if at := int64(k) + d; at >= 0 && at <= math.MaxUint32 {
							x = append(x, unkey(uint32(at)))
						}
					}
				}
				for _, b := range []uint32{0, 1 << 31, 1, 1<<31 + 1, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7f7fffff, 0xff7fffff} {
					x = append(x, math.Float32frombits(b))
				}
				for range 200 {
					x = append(x, math.Float32frombits(r.Uint32()), float32(r.NormFloat64()/alpha), float32(r.NormFloat64()))
				}
				one := slices.Repeat([]float32{1}, len(x))
				z, g := x, one
				if f == G || f == SigmoidG {
					z, g = one, x
				}
				bins := make([]int32, len(x))
				must(t, l.Bins(z, g, len(x), bins))
				th := thresholds(m)
				for i := range x {
					if want := naiveBin(s, th, z[i], g[i]); bins[i] != want {
						t.Fatalf("%v, M=%d, alpha=%v: %v (%08x) in bin %d, by comparison %d", f, m, alpha, x[i], math.Float32bits(x[i]), bins[i], want)
					}
				}
			}
		}
	}
}

// TestManyThresholds has several thresholds per cell, and some that no float32
// tells apart.
func TestManyThresholds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, f := range []StateFunc{O, SigmoidOG} {
		s := LayerSettings{Layer: "x", M: MaxThresholds, O: 1, Alpha: 2, Func: f}
		l := newLayer(t, s, 1)
		if l.look.single {
			t.Errorf("%v: no cell holds two thresholds; the case is not tested", f)
		}
		th := thresholds(s.M)
		x := make([]float32, 300)
		one := slices.Repeat([]float32{1}, len(x))
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		bins := make([]int32, len(x))
		must(t, l.Bins(x, one, len(x), bins))
		for i := range x {
			if want := naiveBin(s, th, x[i], 1); bins[i] != want {
				t.Fatalf("%v: %v in bin %d, by comparison %d", f, x[i], bins[i], want)
			}
		}
	}
}

func normal(r *rand.Rand, n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * scale)
	}
	return v
}

// TestSplits adds the same samples in one call, in uneven batches, and in
// shards merged in another order: the files must be equal byte for byte, and
// so must the scores however they are batched.
func TestSplits(t *testing.T) {
	const n, channels = 203, 41
	r := rand.New(rand.NewPCG(5, 6))
	for _, s := range []LayerSettings{
		paper("a"),
		{Layer: "a", M: 1000, O: 1, Alpha: 3, Func: SigmoidOG},
		{Layer: "a", M: 50, O: 300, Alpha: 3, Func: TanhOG},
		{Layer: "a", M: 500, O: 70000, Alpha: 3, Func: OG},
	} {
		z, g := normal(r, n*channels, 1), normal(r, n*channels, 0.1)
		z[7], g[99] = float32(math.NaN()), float32(math.Inf(1))
		build := func(cuts ...int) *Coverage {
			t.Helper()
			c, err := New([]LayerSettings{s}, map[string]int{"a": channels})
			must(t, err)
			from := 0
			for _, to := range append(cuts, n) {
				must(t, c.Add([]States{{"a", z[from*channels : to*channels], g[from*channels : to*channels]}}, to-from))
				from = to
			}
			return c
		}
		whole := build()
		want := encoded(t, whole)
		if !bytes.Equal(want, encoded(t, build(1, 2, 64, 64, 200))) {
			t.Errorf("%+v: batches change the counts", s)
		}
		for range 5 {
			shards := make([]*Coverage, 4)
			for i := range shards {
				c, err := New([]LayerSettings{s}, map[string]int{"a": channels})
				must(t, err)
				shards[i] = c
			}
			for i := range n {
				must(t, shards[r.IntN(4)].Add([]States{{"a", z[i*channels : (i+1)*channels], g[i*channels : (i+1)*channels]}}, 1))
			}
			for _, i := range r.Perm(3) {
				must(t, shards[3].Merge(shards[i]))
			}
			if !bytes.Equal(want, encoded(t, shards[3])) {
				t.Errorf("%+v: shards merge to other counts", s)
			}
		}
		scores, single := make([]float32, n), make([]float32, n)
		must(t, whole.Layers[0].Score(z, g, n, scores))
		for i := range n {
			must(t, whole.Layers[0].Score(z[i*channels:(i+1)*channels], g[i*channels:(i+1)*channels], 1, single[i:i+1]))
		}
		if !slices.Equal(scores, single) {
			t.Errorf("%+v: scores depend on the batch", s)
		}
		if slices.Max(scores) == slices.Min(scores) {
			t.Errorf("%+v: all scores are %v", s, scores[0])
		}
	}
}

// TestScoreFollowsCounts checks scores against the definition, with states
// that are also added after a first scoring.
func TestScoreFollowsCounts(t *testing.T) {
	const n, channels = 64, 300
	r := rand.New(rand.NewPCG(7, 8))
	for _, o := range []int{1, 3, 255, 256, 65535, 65536} {
		s := LayerSettings{Layer: "a", M: 6, O: o, Alpha: 1, Func: SigmoidOG}
		l := newLayer(t, s, channels)
		z, g := normal(r, n*channels, 1), normal(r, n*channels, 1)
		scores, neurons := make([]float32, n), make([]float32, n*channels)
		bins := make([]int32, n*channels)
		must(t, l.Bins(z, g, n, bins))
		for range 3 {
			must(t, l.Add(z, g, n))
			must(t, l.Score(z, g, n, scores))
			must(t, l.ScoreNeurons(z, g, n, neurons))
			counts := l.Counts()
			for i, got := range scores {
				var sum, mean float64
				for c := range channels {
					if b := bins[i*channels+c]; b >= 0 {
						sum += math.Min(float64(counts[c*(s.M-1)+int(b)])/float64(o), 1)
					}
					mean += float64(neurons[i*channels+c])
				}
				if math.Abs(sum/channels-float64(got)) > 1e-7 || math.Abs(mean/channels-float64(got)) > 1e-6 {
					t.Fatalf("O=%d: score %d = %v, by the counts %v, by neurons %v", o, i, got, sum/channels, mean/channels)
				}
			}
		}
	}
}

// TestWithMinActivations: the copy scores as if made with that O, and adding to
// it leaves the original alone.
func TestWithMinActivations(t *testing.T) {
	const n, channels = 50, 16
	r := rand.New(rand.NewPCG(13, 14))
	z, g := normal(r, n*channels, 1), normal(r, n*channels, 0.05)
	l := newLayer(t, paper("a"), channels)
	must(t, l.Add(z, g, n))
	got, err := l.WithMinActivations(3)
	must(t, err)
	s := paper("a")
	s.O = 3
	want := newLayer(t, s, channels)
	must(t, want.Add(z, g, n))
	a, b := make([]float32, n), make([]float32, n)
	must(t, got.Score(z, g, n, a))
	must(t, want.Score(z, g, n, b))
	if !slices.Equal(a, b) || got.Settings() != s || got.Samples() != n {
		t.Errorf("scores %v, want %v; %+v", a, b, got.Settings())
	}
	before := l.Counts()
	must(t, got.Add(z, g, n))
	if !slices.Equal(before, l.Counts()) || l.Samples() != n {
		t.Error("the original has changed")
	}
	_, err = l.WithMinActivations(0)
	wants(t, err, "O = 0")
}

// TestWeights: the score is the weighted mean of the layers' scores, and equal
// weights, whatever they are, do not change it.
func TestWeights(t *testing.T) {
	const n, channels = 40, 16
	r := rand.New(rand.NewPCG(17, 18))
	var states []States
	for _, name := range []string{"a", "b", "c"} {
		states = append(states, States{name, normal(r, n*channels, 1), normal(r, n*channels, 0.05)})
	}
	score := func(weights ...float64) (all []float32, layers [][]float64) {
		var settings []LayerSettings
		size := map[string]int{}
		for i, w := range weights {
			s := paper(states[i].Layer)
			s.O, s.Weight = 3, w
			settings, size[s.Layer] = append(settings, s), channels
		}
		c, err := New(settings, size)
		must(t, err)
		must(t, c.Add(states, n))
		all = make([]float32, n)
		must(t, c.Score(states, n, all))
		for i, l := range c.Layers {
			one := make([]float64, n)
			must(t, l.ScoreFloat64(states[i].Z, states[i].G, n, one))
			layers = append(layers, one)
		}
		return all, layers
	}
	plain, _ := score(0, 0, 0)
	for _, w := range []float64{1, 2, 0.25} {
		if got, _ := score(w, w, w); !slices.Equal(got, plain) {
			t.Errorf("weights of %v change the plain mean", w)
		}
	}
	got, layers := score(3, 0, 0.5)
	if slices.Equal(got, plain) {
		t.Error("weights change nothing")
	}
	for i := range got {
		if want := float32((3*layers[0][i] + layers[1][i] + 0.5*layers[2][i]) / 4.5); math.Abs(float64(got[i]-want)) > 1e-7 {
			t.Fatalf("score %d is %v, want %v", i, got[i], want)
		}
	}
}

func TestConcurrentScore(t *testing.T) {
	const n, channels = 32, 64
	r := rand.New(rand.NewPCG(9, 10))
	l := newLayer(t, paper("a"), channels)
	z, g := normal(r, n*channels, 1), normal(r, n*channels, 0.01)
	must(t, l.Add(z, g, n))
	results := make([][]float32, 8)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			results[i] = make([]float32, n)
			if err := l.Score(z, g, n, results[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, got := range results[1:] {
		if !slices.Equal(got, results[0]) {
			t.Error("concurrent callers get different scores")
		}
	}
}

func TestRefusals(t *testing.T) {
	l := newLayer(t, paper("avgpool"), 3)
	x := make([]float32, 6)
	wants(t, l.Add(x[:5], x, 2), `"avgpool"`, "5 activations", "6")
	wants(t, l.Add(x, nil, 2), `"avgpool"`, "0 gradients", "6")
	wants(t, l.Add(x, x, -1), "-1 samples")
	wants(t, l.Score(x, x, 2, x[:1]), "room for 1")
	if l.Samples() != 0 {
		t.Errorf("%d samples after refusals", l.Samples())
	}
	_, err := NewLayer(paper("avgpool"), 0)
	wants(t, err, "0 channels")
	_, err = NewLayer(paper("avgpool"), math.MaxInt)
	wants(t, err, "too many")
	for want, change := range map[string]func(*LayerSettings){
		"M = 50 against 52":                      func(s *LayerSettings) { s.M = 52 },
		"O = 50 against 51":                      func(s *LayerSettings) { s.O = 51 },
		"alpha = 100 against 101":                func(s *LayerSettings) { s.Alpha = 101 },
		"sigmoid(o*g_kl) against o":              func(s *LayerSettings) { s.Func = O },
		"weight 1 against 2":                     func(s *LayerSettings) { s.Weight = 2 },
		`layer "avgpool" against "layer4"`:       func(s *LayerSettings) { s.Layer = "layer4" },
		`"avgpool": 3 channels against 4`:        nil,
		`cannot merge layer "avgpool": O = 50 a`: func(s *LayerSettings) { s.O = 7 },
	} {
		s, channels := paper("avgpool"), 4
		if change != nil {
			change(&s)
			channels = 3
		}
		wants(t, l.Merge(newLayer(t, s, channels)), want)
	}
	_, err = New(nil, nil)
	wants(t, err, "no layers")
	_, err = New([]LayerSettings{paper("a"), paper("a")}, map[string]int{"a": 1})
	wants(t, err, `"a" is there twice`)
	_, err = New([]LayerSettings{paper("a")}, nil)
	wants(t, err, `"a" is not given`)
	c, err := New([]LayerSettings{paper("a"), paper("b")}, map[string]int{"a": 1, "b": 2})
	must(t, err)
	wants(t, c.Add([]States{{"a", x[:2], x[:2]}}, 2), `no states of layer "b"`)
	wants(t, c.Add([]States{{"a", x[:2], x[:2]}, {"b", x[:2], x[:2]}}, 2), `"b"`, "need 4")
	wants(t, c.Add([]States{{"a", x[:2], x[:2]}, {"a", x[:2], x[:2]}, {"b", x[:4], x[:4]}}, 2), "twice")
	if c.Samples() != 0 || c.Layer("b").Samples() != 0 {
		t.Error("something was counted in spite of an error")
	}
	other, err := New([]LayerSettings{paper("a")}, map[string]int{"a": 1})
	must(t, err)
	wants(t, c.Merge(other), "2 layers against 1")
}

func TestTooManySamples(t *testing.T) {
	l := newLayer(t, paper("a"), 1)
	l.samples = maxSamples
	wants(t, l.Add([]float32{1}, []float32{1}, 1), "limit")
	more := newLayer(t, paper("a"), 1)
	must(t, more.Add([]float32{1}, []float32{1}, 1))
	wants(t, l.Merge(more), "limit")
}

// TestUnusedArguments: a function that does not read z or g needs none, and is
// not disturbed by NaN in it.
func TestUnusedArguments(t *testing.T) {
	nan := []float32{float32(math.NaN())}
	bins := make([]int32, 1)
	for f, zg := range map[StateFunc][2][]float32{O: {{0.3}, nil}, SigmoidO: {{0.3}, nan}, G: {nil, {0.3}}, SigmoidG: {nan, {0.3}}} {
		s := paper("a")
		s.Func = f
		l := newLayer(t, s, 1)
		must(t, l.Bins(zg[0], zg[1], 1, bins))
		if bins[0] < 0 {
			t.Errorf("%v: no bin", f)
		}
	}
}

func encoded(t testing.TB, c *Coverage) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, c.Encode(&b))
	return b.Bytes()
}

func TestSaveLoad(t *testing.T) {
	const n, channels = 40, 7
	r := rand.New(rand.NewPCG(11, 12))
	settings := []LayerSettings{paper("layer4.1/x"), {Layer: "b", M: 1000, O: 3, Alpha: 0.1, Func: TanhOG}}
	c, err := New(settings, map[string]int{"layer4.1/x": channels, "b": channels})
	must(t, err)
	states := []States{{"b", normal(r, n*channels, 1), normal(r, n*channels, 1)}, {"layer4.1/x", normal(r, n*channels, 1), normal(r, n*channels, 1)}}
	must(t, c.Add(states, n))
	path := filepath.Join(t.TempDir(), "c.safetensors")
	must(t, c.Save(path))
	got, err := Load(path)
	must(t, err)
	if fmt.Sprint(got.Settings()) != fmt.Sprint(settings) || got.Samples() != n {
		t.Errorf("settings %v, %d samples", got.Settings(), got.Samples())
	}
	if !bytes.Equal(encoded(t, got), encoded(t, c)) {
		t.Error("another file after loading")
	}
	a, b := make([]float32, n), make([]float32, n)
	must(t, c.Score(states, n, a))
	must(t, got.Score(states, n, b))
	if !slices.Equal(a, b) {
		t.Error("other scores after loading")
	}
	must(t, got.Merge(c))
	if got.Samples() != 2*n {
		t.Errorf("%d samples after merging", got.Samples())
	}
	_, err = Load(filepath.Join(t.TempDir(), "absent"))
	wants(t, err, "absent")
	wants(t, c.Save(filepath.Join(t.TempDir(), "no", "folder")), "folder")
}

// Samples of which the bins alone are kept score as the samples themselves did, and
// as they would after more were added.
func TestScoreBins(t *testing.T) {
	const n, channels = 33, 7
	r := rand.New(rand.NewPCG(8, 1))
	first, second := paper("a"), paper("b")
	first.M, first.Weight = 300, 0.3
	second.O = 3
	c, err := New([]LayerSettings{first, second}, map[string]int{"a": channels, "b": channels})
	must(t, err)
	draw := func() []States {
		var s []States
		for _, l := range []string{"a", "b"} {
			s = append(s, States{l, normal(r, n*channels, 1), normal(r, n*channels, 0.05)})
		}
		return s
	}
	test := draw()
	test[0].Z[5] = float32(math.NaN())
	for range 3 {
		must(t, c.Add(draw(), n))
		want, got := make([]float32, n), make([]float32, n)
		must(t, c.Score(test, n, want))
		bins := make([][]int16, len(c.Layers))
		for i, l := range c.Layers {
			wide := make([]int32, n*channels)
			must(t, l.Bins(test[i].Z, test[i].G, n, wide))
			for _, b := range wide {
				bins[i] = append(bins[i], int16(b))
			}
		}
		must(t, c.ScoreBins(bins, n, got))
		if !slices.Equal(got, want) {
			t.Fatalf("by bins %v, by states %v", got, want)
		}
		bins[1][0] = 49
		wants(t, c.ScoreBins(bins, n, got), `"b"`, "bin 49 of 49")
		wants(t, c.ScoreBins(bins, n+1, make([]float32, n+1)), `"a"`, "34 samples")
		wants(t, c.ScoreBins(bins[:1], n, got), "1 layers")
	}
}

// Samples count together as they do one by one, and score so.
func TestTogether(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for f := range StateFunc(len(stateFuncNames)) {
		for _, c := range []struct{ m, channels, n int }{
			{50, 1, tallyRows}, {50, 8, tallyRows}, {4, 23, 40}, {50, 300, 33}, {1000, 17, tallyMost}, {50, tallyWidth + 9, tallyMost + 20},
		} {
			settings := LayerSettings{Layer: "a", M: c.m, O: 3, Alpha: 100, Func: f}
			together, single := newLayer(t, settings, c.channels), newLayer(t, settings, c.channels)
			z, g := normal(r, c.n*c.channels, 1), normal(r, c.n*c.channels, 0.02)
			z[r.IntN(len(z))] = float32(math.NaN())
			for range 2 {
				must(t, together.Add(z, g, c.n))
				for i := range c.n {
					from, to := i*c.channels, (i+1)*c.channels
					must(t, single.Add(z[from:to], g[from:to], 1))
				}
			}
			if !slices.Equal(together.counts, single.counts) || together.Samples() != single.Samples() {
				t.Errorf("%v, M=%d, %d channels: %d samples count differently together and one by one", f, c.m, c.channels, c.n)
			}
			for _, o := range []int{3, 3000, 1 << 20} { // tables of all widths
				l, err := single.WithMinActivations(o)
				must(t, err)
				got, want := make([]float64, c.n), make([]float64, c.n)
				must(t, l.ScoreFloat64(z, g, c.n, got))
				for i := range c.n {
					from, to := i*c.channels, (i+1)*c.channels
					must(t, l.ScoreFloat64(z[from:to], g[from:to], 1, want[i:i+1]))
				}
				if !slices.Equal(got, want) {
					t.Errorf("%v, M=%d, O=%d, %d channels: %d samples score %v together, %v one by one", f, c.m, o, c.channels, c.n, got, want)
				}
			}
		}
	}
}

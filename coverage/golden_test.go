package coverage

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"nac/internal/safetensors"
	"nac/internal/shareddata"
)

// golden is the reference's coverage.safetensors.
type golden struct {
	t     testing.TB
	file  *safetensors.File
	notes map[string]json.RawMessage
}

// goldenCase is one set of settings of the reference.
type goldenCase struct {
	tag    string
	M, O   int
	Alpha  float64 `json:"sig_alpha"`
	Method string
}

func (c goldenCase) settings(t testing.TB) LayerSettings {
	t.Helper()
	f, err := ParseStateFunc(c.Method)
	if err != nil {
		t.Fatal(err)
	}
	return LayerSettings{Layer: c.tag, M: c.M, O: c.O, Alpha: c.Alpha, Func: f}
}

func openGolden(t testing.TB) *golden {
	t.Helper()
	f, err := safetensors.Read(shareddata.Path(t, "golden", "coverage.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	g := &golden{t: t, file: f}
	if err := json.Unmarshal([]byte(f.Metadata()["notes"]), &g.notes); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *golden) f32(name string) []float32 {
	g.t.Helper()
	v, _, err := g.file.Float32s(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

func (g *golden) f64(name string) []float64 {
	g.t.Helper()
	v, _, err := g.file.Float64s(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

func (g *golden) i32(name string) []int32 {
	g.t.Helper()
	v, _, err := g.file.Int32s(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

func (g *golden) cases() []goldenCase {
	g.t.Helper()
	var cases []goldenCase
	for _, name := range g.file.Names() {
		tag, ok := strings.CutSuffix(name, ".t_act")
		if !ok || strings.HasPrefix(tag, "edge") {
			continue
		}
		c := goldenCase{tag: tag}
		if err := json.Unmarshal(g.notes[tag], &c); err != nil {
			g.t.Fatalf("%s: %v", tag, err)
		}
		cases = append(cases, c)
	}
	if len(cases) != 13 {
		g.t.Fatalf("%d cases, want 13", len(cases))
	}
	return cases
}

const (
	goldenTrain    = 300
	goldenTest     = 50
	goldenChannels = 37
)

func TestGoldenThresholds(t *testing.T) {
	g := openGolden(t)
	for _, m := range []int{4, 6, 50, 100, 500, 1000} {
		want := g.f64(fmt.Sprintf("thresh.M%d", m))
		got, err := Thresholds(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != m || len(want) != m {
			t.Fatalf("M=%d: %d thresholds, reference %d", m, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("M=%d: threshold %d = %.17g, reference %.17g", m, i, got[i], want[i])
			}
		}
	}
	// What the reference makes of an odd M has M-1 values.
	for _, m := range []int{5, 51, 501} {
		odd := g.f64(fmt.Sprintf("thresh_odd.M%d", m))
		even, err := Thresholds(m - 1)
		if err != nil || !slices.Equal(odd, even) {
			t.Errorf("M=%d: %v, %v; reference %v", m-1, even, err, odd)
		}
		_, err = Thresholds(m)
		wants(t, err, "odd")
	}
}

func TestGoldenStateFunctions(t *testing.T) {
	g := openGolden(t)
	x := g.f32("sigmoid.x")
	for _, a := range []float64{0.001, 1, 100, 3000} {
		sigmoid, tanh := g.f32(fmt.Sprintf("sigmoid.a%v", a)), g.f32(fmt.Sprintf("tanh.a%v", a))
		for i, v := range x {
			sameBits(t, fmt.Sprintf("sigmoid(%v*%v)", a, v), SigmoidO.State(a, v, 0), sigmoid[i])
			withinUlp(t, fmt.Sprintf("tanh(%v*%v)", v, a), TanhOG.State(a, v, 1), tanh[i])
		}
	}
	for _, c := range g.cases() {
		s := c.settings(t)
		for _, set := range []string{"train", "test"} {
			o, kl, want := g.f32(set+".o"), g.f32(set+".g_kl"), g.f32(c.tag+"."+set+"_state")
			for i := range want {
				what := fmt.Sprintf("%s %s state %d", c.tag, set, i)
				got := s.Func.State(s.Alpha, o[i], kl[i])
				if s.Func == TanhOG {
					withinUlp(t, what, got, want[i])
				} else {
					sameBits(t, what, got, want[i])
				}
			}
		}
	}
}

func sameBits(t *testing.T, what string, got, want float32) {
	t.Helper()
	if math.Float32bits(got) != math.Float32bits(want) && (got == got || want == want) {
		t.Errorf("%s = %v (%08x), reference %v (%08x)", what, got, math.Float32bits(got), want, math.Float32bits(want))
	}
}

func withinUlp(t *testing.T, what string, got, want float32) {
	t.Helper()
	if got != got && want != want {
		return
	}
	d := int64(key(math.Float32bits(got))) - int64(key(math.Float32bits(want)))
	if d < -1 || d > 1 || got != got || want != want {
		t.Errorf("%s = %v, reference %v", what, got, want)
	}
}

// TestGoldenCoverage runs every case twice: from the reference's states, and
// from its activations and gradients. Both must give the reference's counts,
// bins and scores; states follow the same float32 arithmetic, so no share of
// moved states has to be allowed.
func TestGoldenCoverage(t *testing.T) {
	g := openGolden(t)
	o, kl := g.f32("train.o"), g.f32("train.g_kl")
	testO, testKL := g.f32("test.o"), g.f32("test.g_kl")
	for _, c := range g.cases() {
		t.Run(c.tag, func(t *testing.T) {
			s := c.settings(t)
			plain := s
			plain.Func = O
			t.Run("states", func(t *testing.T) {
				g.check(t, plain, g.f32(c.tag+".train_state"), nil, g.f32(c.tag+".test_state"), nil)
			})
			t.Run("activations", func(t *testing.T) { g.check(t, s, o, kl, testO, testKL) })
		})
	}
}

func (g *golden) check(t *testing.T, s LayerSettings, z, kl, testZ, testKL []float32) {
	t.Helper()
	l := newLayer(t, s, goldenChannels)
	must(t, l.Add(z, kl, goldenTrain))
	want := g.i32(s.Layer + ".t_act")
	for i, v := range l.Counts() {
		channel, bin := i/(s.M-1), i%(s.M-1)
		if w := want[bin*goldenChannels+channel]; int64(v) != int64(w) {
			t.Fatalf("channel %d, bin %d: count %d, reference %d", channel, bin, v, w)
		}
	}
	scores := make([]float32, goldenTest)
	must(t, l.Score(testZ, testKL, goldenTest, scores))
	nearAll(t, "score", scores, g.f32(s.Layer+".score"), 1e-6)
	perNeuron := make([]float32, goldenTest*goldenChannels)
	must(t, l.ScoreNeurons(testZ, testKL, goldenTest, perNeuron))
	for i, w := range g.f32(s.Layer + ".score_per_neuron") {
		sameBits(t, fmt.Sprintf("score of sample %d, neuron %d", i/goldenChannels, i%goldenChannels), perNeuron[i], w)
	}
	sum := l.Summary()
	nearAll(t, "coverage_mean", []float32{float32(sum.Coverage)}, g.f32(s.Layer+".coverage_mean"), 1e-6)
	perBin := make([]float32, s.M) // the reference appends a 0
	for i, v := range sum.PerBin {
		perBin[i] = float32(v)
	}
	nearAll(t, "t_cov", perBin, g.f32(s.Layer+".t_cov"), 1e-6)
}

func nearAll(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, reference %d", what, len(got), len(want))
	}
	for i := range got {
		if !(math.Abs(float64(got[i])-float64(want[i])) <= tolerance) {
			t.Errorf("%s %d = %v, reference %v", what, i, got[i], want[i])
		}
	}
}

func TestGoldenEdges(t *testing.T) {
	g := openGolden(t)
	for _, m := range []int{4, 50, 500} {
		states := g.f32(fmt.Sprintf("edge.M%d.state", m))
		l := newLayer(t, LayerSettings{Layer: "edge", M: m, O: 1, Alpha: 1, Func: O}, 1)
		bins := make([]int32, len(states))
		must(t, l.Bins(states, nil, len(states), bins))
		for i, want := range g.i32(fmt.Sprintf("edge.M%d.bin", m)) {
			if bins[i] != want {
				t.Errorf("M=%d: state %v in bin %d, reference %d", m, states[i], bins[i], want)
			}
		}
		must(t, l.Add(states, nil, len(states)))
		counts := l.Counts()
		for i, want := range g.i32(fmt.Sprintf("edge.M%d.t_act", m)) {
			if int64(counts[i]) != int64(want) {
				t.Errorf("M=%d, bin %d: count %d, reference %d", m, i, counts[i], want)
			}
		}
	}
}

func TestGoldenSeveralLayers(t *testing.T) {
	g := openGolden(t)
	c, states, testStates := goldenSeveral(t, g)
	must(t, c.Add(states, goldenTrain))
	scores := make([]float32, goldenTest)
	must(t, c.Score(testStates, goldenTest, scores))
	nearAll(t, "multi.score", scores, g.f32("multi.score"), 1e-6)
}

// goldenSeveral makes the three layers behind multi.score, all fed the same
// activations and gradients.
func goldenSeveral(t *testing.T, g *golden) (c *Coverage, train, test []States) {
	t.Helper()
	byTag := map[string]goldenCase{}
	for _, k := range g.cases() {
		byTag[k.tag] = k
	}
	var settings []LayerSettings
	channels := map[string]int{}
	for _, tag := range []string{"m50_o", "m50_sog", "m500_sog"} {
		settings = append(settings, byTag[tag].settings(t))
		channels[tag] = goldenChannels
		train = append(train, States{tag, g.f32("train.o"), g.f32("train.g_kl")})
		test = append(test, States{tag, g.f32("test.o"), g.f32("test.g_kl")})
	}
	c, err := New(settings, channels)
	if err != nil {
		t.Fatal(err)
	}
	return c, train, test
}

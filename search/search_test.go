package search

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
	"nac/internal/shareddata"
	"nac/metric"
	"nac/states"
)

// memory is a Set in memory, read in batches of a few images.
type memory struct {
	n      int
	states []coverage.States
	reads  int
}

func (m *memory) Images() int { return m.n }

func (m *memory) Read(_ context.Context, want states.Want, f func(*states.Batch) error) error {
	m.reads++
	for from := 0; from < m.n; from += 300 {
		to := min(from+300, m.n)
		b := &states.Batch{N: to - from}
		for _, s := range m.states {
			if slices.Contains(want.Layers, s.Layer) {
				width := len(s.Z) / m.n
				b.States = append(b.States, coverage.States{Layer: s.Layer, Z: s.Z[from*width : to*width], G: s.G[from*width : to*width]})
			}
		}
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

var toyChannels = map[string]int{"deep": 24, "middle": 16, "shallow": 8}

// toySet is of states that differ by shift from those of other sets.
func toySet(seed uint64, n int, shift float64) *memory {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &memory{n: n}
	for i, l := range []string{"deep", "middle", "shallow"} {
		s := coverage.States{Layer: l}
		for range n * toyChannels[l] {
			s.Z = append(s.Z, float32(math.Abs(r.NormFloat64()+shift/float64(1+i))))
			s.G = append(s.G, float32(0.02*r.NormFloat64()))
		}
		m.states = append(m.states, s)
	}
	return m
}

func toySets() Sets {
	return Sets{Train: toySet(1, 400, 0), Val: toySet(2, 650, 0), ValOOD: toySet(3, 350, 0.4), SubTrain: toySet(4, 310, 0.02)}
}

func toySpace() Space {
	return Space{Name: "toy", Layers: []LayerSpace{
		{Layer: "deep", O: []int{2, 20}, M: []int{10, 50}, Alpha: []float64{10, 100}},
		{Layer: "middle", O: []int{5}, M: []int{50}, Alpha: []float64{50}, Func: []coverage.StateFunc{coverage.SigmoidOG, coverage.SigmoidO}, Weight: []float64{1, 3}},
		{Layer: "shallow", O: []int{3, 9}, M: []int{20}, Alpha: []float64{1}, Optional: true},
	}}
}

func toyTable(t *testing.T, space Space, o ScoreOptions) *Table {
	t.Helper()
	table, err := Score(t.Context(), space, toySets(), toyChannels, o)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// Each outcome is what fitting and scoring with its settings gives.
func TestGridAgainstCoverage(t *testing.T) {
	data := toySets()
	r, err := toyTable(t, toySpace(), ScoreOptions{}).Search(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != Grid || r.Combinations != 8*4*3 || len(r.Outcomes) != 8*4*3 {
		t.Fatalf("%s of %d combinations, %d outcomes", r.Method, r.Combinations, len(r.Outcomes))
	}
	all := func(s Set) (b *states.Batch) {
		m := s.(*memory)
		return &states.Batch{N: m.n, States: m.states}
	}
	best := r.Outcomes[0]
	for i, o := range r.Outcomes {
		if o.Index != uint64(i) {
			t.Fatalf("outcome %d has index %d", i, o.Index)
		}
		c, err := coverage.New(r.Settings(o), toyChannels)
		if err != nil {
			t.Fatal(err)
		}
		train := all(data.Train)
		if err := c.Add(train.States, train.N); err != nil {
			t.Fatal(err)
		}
		scores := func(s Set) (wide []float64) {
			b := all(s)
			v := make([]float32, b.N)
			if err := c.Score(b.States, b.N, v); err != nil {
				t.Fatal(err)
			}
			for _, x := range v {
				wide = append(wide, float64(x))
			}
			return wide
		}
		id := scores(data.Val)
		ood, err := metric.OOD(id, scores(data.ValOOD))
		if err != nil {
			t.Fatal(err)
		}
		sub, err := metric.OOD(id, scores(data.SubTrain))
		if err != nil {
			t.Fatal(err)
		}
		if o.AUROC != ood.AUROC || o.FPR95 != ood.FPR95 || *o.TrainAUROC != sub.AUROC || *o.TrainFPR95 != sub.FPR95 {
			t.Fatalf("%+v: %+v %v %v, by coverage %+v and %+v", r.Settings(o), o, *o.TrainAUROC, *o.TrainFPR95, ood, sub)
		}
		if o.AUROC > best.AUROC {
			best = o
		}
	}
	if r.Best.Index != best.Index {
		t.Errorf("the best is %+v, want %+v", r.Best, best)
	}
}

// madeSet are states of a CIFAR ResNet's widths by a formula; those of val_ood are larger.
func madeSet(name string, images int) *memory {
	m := &memory{n: images}
	more := 1.0
	if name == "val_ood" {
		more = 1.25
	}
	for _, l := range []struct {
		layer    string
		channels int
		z, g     float64 // the greatest activation and gradient
	}{{"avgpool", 64, 1, 0.05}, {"layer3", 64, 1, 0.005}, {"layer2", 32, 100, 50}, {"layer1", 16, 100, 30}} {
		fill := func(kind string, f func(u float64) float64) []float32 {
			return shareddata.Fill("sweep."+name+"."+l.layer+"."+kind, images*l.channels, f)
		}
		z, g := l.z*more, l.g*more
		m.states = append(m.states, coverage.States{
			Layer: l.layer,
			Z:     fill("z", func(u float64) float64 { return u * u * z }),
			G: fill("g", func(u float64) float64 {
				s := 2*u - 1
				return s * s * s * g
			}),
		})
	}
	return m
}

// Given the same states, the sweep is that of the reference's own code
// (bench/search/compare.py --made): every AUROC to 0.02 points, and the same winner. The
// reference adds scores up in float32, which orders a few images otherwise.
func TestReferenceSweep(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "reference_sweep.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		AUROC      []float64 `json:"auroc"`
		TrainAUROC []float64 `json:"train_auroc"`
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	space, err := Lookup("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string) Set { return madeSet(name, 500) }
	channels := map[string]int{"avgpool": 64, "layer3": 64, "layer2": 32, "layer1": 16}
	table, err := Score(t.Context(), space, Sets{Train: set("train"), Val: set("val"), ValOOD: set("val_ood"), SubTrain: set("sub_train")}, channels, ScoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := table.Search(t.Context(), Options{Method: Grid})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Outcomes) != 256 || len(want.AUROC) != 256 || len(want.TrainAUROC) != 256 {
		t.Fatalf("%d combinations, the reference has %d", len(r.Outcomes), len(want.AUROC))
	}
	worst, winner := 0.0, 0
	for i, o := range r.Outcomes {
		worst = max(worst, math.Abs(100*o.AUROC-want.AUROC[i]), math.Abs(100**o.TrainAUROC-want.TrainAUROC[i]))
		if want.AUROC[i] > want.AUROC[winner] {
			winner = i
		}
	}
	t.Logf("AUROCs of %.2f to %.2f, off by %.4f points at most", slices.Min(want.AUROC), slices.Max(want.AUROC), worst)
	if worst > 0.02 {
		t.Errorf("AUROCs are off by up to %.4f points", worst)
	}
	if int(r.Best.Index) != winner {
		t.Errorf("combination %d is the best, the reference's is %d", r.Best.Index, winner)
	}
}

// The sweep's order is the reference's: O of the first layer varies fastest, then its
// M, alpha and function, then the next layer's.
func TestOrder(t *testing.T) {
	r, err := toyTable(t, toySpace(), ScoreOptions{}).Search(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{
		0: "2 10 10, 5 sigmoid(o*g_kl) 1, 3", 1: "20 10 10, 5 sigmoid(o*g_kl) 1, 3", 2: "2 50 10, 5 sigmoid(o*g_kl) 1, 3",
		4: "2 10 100, 5 sigmoid(o*g_kl) 1, 3", 8: "2 10 10, 5 sigmoid(o) 1, 3", 16: "2 10 10, 5 sigmoid(o*g_kl) 3, 3",
		32: "2 10 10, 5 sigmoid(o*g_kl) 1, 9", 64: "2 10 10, 5 sigmoid(o*g_kl) 1, 0",
	} {
		c := r.Choices(r.Outcomes[i])
		if got := fmt.Sprint(c[0].O, c[0].M, c[0].Alpha) + ", " + fmt.Sprint(c[1].O, c[1].Func, c[1].Weight) + ", " + fmt.Sprint(c[2].O); got != want {
			t.Errorf("combination %d is %s, want %s", i, got, want)
		}
		if c[2].LeftOut != (i >= 64) || len(r.Settings(r.Outcomes[i])) != 3-i/64 {
			t.Errorf("combination %d: %+v", i, c)
		}
	}
}

// Of equal outcomes the first wins, and the way the work is cut up changes nothing.
func TestNothingElseMatters(t *testing.T) {
	space := toySpace()
	space.Layers[0].O = []int{20, 20, 2} // twice the same
	want, err := toyTable(t, space, ScoreOptions{Workers: 1}).Search(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := digits(want.choices, want.Best.Index); d[0]%3 == 1 {
		t.Errorf("the best is the later of two equal ones: %v", d)
	}
	data := toySets()
	table, err := Score(t.Context(), space, data, toyChannels, ScoreOptions{Workers: 5, MemoryBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := data.Val.(*memory).reads; n != 4+2+1 {
		t.Errorf("with room for one histogram a set is read %d times, want 7", n)
	}
	got, err := table.Search(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("memory or workers change the result")
	}
}

func TestCoordinate(t *testing.T) {
	space := toySpace().WithSubsets().WithWeights([]float64{1, 2, 4})
	table := toyTable(t, space, ScoreOptions{})
	grid, err := table.Search(t.Context(), Options{Method: Grid})
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(grid.Outcomes)) != space.Combinations()-1 {
		t.Errorf("%d outcomes of %d combinations, one of which has no layer", len(grid.Outcomes), space.Combinations())
	}
	got, err := table.Search(t.Context(), Options{Method: Coordinate})
	if err != nil {
		t.Fatal(err)
	}
	if got.Best.AUROC != grid.Best.AUROC {
		t.Errorf("found %+v, the grid %+v", got.Best, grid.Best)
	}
	if 2*len(got.Outcomes) > len(grid.Outcomes) {
		t.Errorf("%d of %d combinations evaluated", len(got.Outcomes), len(grid.Outcomes))
	}
	seen := map[uint64]bool{}
	for _, o := range got.Outcomes {
		if seen[o.Index] {
			t.Fatalf("combination %d is there twice", o.Index)
		}
		seen[o.Index] = true
	}
	// No change of one layer helps.
	for layer, choices := range table.choices {
		d := digits(table.choices, got.Best.Index)
		for c := range choices {
			d[layer] = c
			if o := newEvaluator(table).outcome(table.index(d)); o.AUROC > got.Best.AUROC {
				t.Errorf("changing layer %d helps: %+v", layer, o)
			}
		}
	}
}

// Successive halving finds what the grid finds, looking at a quarter of the combinations
// or fewer on all images.
func TestHalving(t *testing.T) {
	space := toySpace().WithSubsets().WithWeights([]float64{1, 2, 4})
	data := Sets{Train: toySet(1, 400, 0), Val: toySet(2, 1300, 0), ValOOD: toySet(3, 1000, 0.4), SubTrain: toySet(4, 310, 0.02)}
	table, err := Score(t.Context(), space, data, toyChannels, ScoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	grid, err := table.Search(t.Context(), Options{Method: Grid})
	if err != nil {
		t.Fatal(err)
	}
	got, err := table.Search(t.Context(), Options{Method: Halving})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Best, grid.Best) {
		t.Errorf("found %+v, the grid %+v", got.Best, grid.Best)
	}
	if n := len(got.Outcomes); n < leastCombinations || reduction*(n-1) > len(grid.Outcomes) {
		t.Errorf("%d of %d combinations evaluated on all images", n, len(grid.Outcomes))
	}
	for _, o := range got.Outcomes {
		i := slices.IndexFunc(grid.Outcomes, func(g Outcome) bool { return g.Index == o.Index })
		if !reflect.DeepEqual(o, grid.Outcomes[i]) {
			t.Errorf("%+v, by the grid %+v", o, grid.Outcomes[i])
		}
	}
	table.workers = 3
	again, err := table.Search(t.Context(), Options{Method: Halving})
	if err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("another number of workers gives another result: %v", err)
	}
}

// A combination that is best by far is found by as many rounds as images allow.
func TestHalvingRounds(t *testing.T) {
	const images, choices, best = 4096, 64, 777
	table := &Table{workers: 2, images: [sets]int{images, images, 0}}
	r := rand.New(rand.NewPCG(7, 7))
	for range 2 {
		table.space.Layers = append(table.space.Layers, LayerSpace{Layer: fmt.Sprint(len(table.choices)), O: make([]int, choices), M: []int{50}, Alpha: []float64{1}})
		table.choices = append(table.choices, make([]Choice, choices))
		table.scores = append(table.scores, make([]*vectors, choices))
	}
	// Only the right choice of both layers together tells ID from OOD: each has the
	// difference hidden below a noise that the other takes back.
	noise := make([]float64, images)
	for i := range noise {
		noise[i] = 10 * r.NormFloat64()
	}
	for layer := range 2 {
		for c := range choices {
			v := &vectors{make([]float64, images), make([]float64, images)}
			for i := range images {
				v[val][i], v[valOOD][i] = 10*r.NormFloat64(), 10*r.NormFloat64()
				if c == digits(table.choices, best)[layer] {
					sign := float64(1 - 2*layer)
					v[val][i], v[valOOD][i] = 1+sign*noise[i]+r.NormFloat64(), sign*noise[i]+r.NormFloat64()
				}
			}
			table.scores[layer][c] = v
		}
	}
	got, err := table.Search(t.Context(), Options{Method: Halving})
	if err != nil {
		t.Fatal(err)
	}
	// 4,096 combinations on 256 images, 1,024 on 1,024, the rest on all.
	if len(got.Outcomes) != 256 || got.Best.Index != best {
		t.Errorf("%d combinations on all images, the best is %+v, want number %d", len(got.Outcomes), got.Best, best)
	}
	if coordinate, err := table.Search(t.Context(), Options{Method: Coordinate}); err != nil || coordinate.Best.AUROC > got.Best.AUROC {
		t.Errorf("one layer at a time finds %+v: %v", coordinate.Best, err)
	}
}

func TestWithoutSubTrain(t *testing.T) {
	data := toySets()
	data.SubTrain = nil
	table, err := Score(t.Context(), toySpace(), data, toyChannels, ScoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := table.Search(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Best.TrainAUROC != nil || r.Best.TrainFPR95 != nil {
		t.Errorf("a sanity check of nothing: %+v", r.Best)
	}
}

func TestScoreRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Space, *Sets)
		says   string
	}{
		{"a layer without states", func(s *Space, _ *Sets) { s.Layers[1].Layer = "lost" }, `"lost"`},
		{"no OOD", func(_ *Space, d *Sets) { d.ValOOD = nil }, "needed"},
		{"a set of no images", func(_ *Space, d *Sets) { d.Val = &memory{} }, "score val: 0 images"},
		{"a layer twice", func(s *Space, _ *Sets) { s.Layers[1].Layer = "deep" }, "twice"},
		{"no O", func(s *Space, _ *Sets) { s.Layers[0].O = nil }, `"deep": no O`},
		{"an odd M", func(s *Space, _ *Sets) { s.Layers[0].M = []int{51} }, "odd"},
		{"no weight", func(s *Space, _ *Sets) { s.Layers[0].Weight = []float64{0} }, "optional"},
		{"no layers", func(s *Space, _ *Sets) { s.Layers = nil }, "no layers"},
		{"too many choices", func(s *Space, _ *Sets) { s.Layers[0].O = make([]int, maxChoices) }, "at most"},
	} {
		space, data := toySpace(), toySets()
		c.change(&space, &data)
		if _, err := Score(t.Context(), space, data, toyChannels, ScoreOptions{}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	table := toyTable(t, toySpace(), ScoreOptions{})
	cancel()
	for _, m := range Methods() {
		if _, err := table.Search(ctx, Options{Method: m}); err == nil {
			t.Errorf("%s goes on after its context has ended", m)
		}
	}
	if _, err := table.Search(t.Context(), Options{Method: "luck"}); err == nil || !strings.Contains(err.Error(), "luck") {
		t.Errorf("an unknown method: %v", err)
	}
}

func TestReadSpace(t *testing.T) {
	read := func(text string) (Space, error) {
		path := filepath.Join(t.TempDir(), "space.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSpace(path)
		s.Name = "toy"
		return s, err
	}
	got, err := read(`layers:
  - {layer: deep, O: [2, 20], M: [10, 50], alpha: [10, 100]}
  - {layer: middle, O: 5, M: 50, alpha: 50, func: [sigmoid(o*g_kl), sigmoid(o)], weight: [1, 3]}
  - {layer: shallow, O: [3, 9], M: 20, alpha: 1, optional: true}
`)
	if err != nil {
		t.Fatal(err)
	}
	if want := toySpace(); !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	// The reference's form.
	got, err = read(`postprocessor:
  name: nac
  postprocessor_sweep:
    deep:
      O: [10, 50]
      M: [50]
      sig_alpha: [100]
      method: [sigmoid(o*g_kl)]
    avgpool: {O: [1], M: [50, 500], sig_alpha: [0.001], method: [o]}
`)
	if err != nil {
		t.Fatal(err)
	}
	if names := got.LayerNames(); !slices.Equal(names, []string{"deep", "avgpool"}) || got.Combinations() != 4 || !got.Gradients() {
		t.Errorf("read %+v", got)
	}
	for text, says := range map[string]string{
		"":                     "no layers",
		"layers: [{layer: a}]": "no O",
		"layer: []":            "layer",
		"layers: [{layer: a, O: 1, M: 50, alpha: 1, beta: 2}]":                         "beta",
		"layers: [{layer: a, O: 1, M: 50, alpha: steep}]":                              "steep",
		"layers: [{layer: a, O: 1, M: 50, alpha: 1, func: cosh}]":                      "cosh",
		"postprocessor: {postprocessor_sweep: {a: {O: [1], M: [50], sig_alfa: [1]}}}":  "sig_alfa",
		"postprocessor: {postprocessor_sweep: {a: {O: [1], M: [51], sig_alpha: [1]}}}": "odd",
		"\x00":      "",
		"layers: 3": "",
	} {
		if s, err := read(text); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "space.yaml") {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
	if _, err := ReadSpace(filepath.Join(t.TempDir(), "absent.yaml")); err == nil {
		t.Error("an absent file is read")
	}
}

// The numbers of combinations are those of the reference's sweeps.
func TestBuiltin(t *testing.T) {
	want := map[string]uint64{"cifar10": 256, "cifar100": 288, "imagenet-resnet50": 576, "imagenet-vit-b-16": 256}
	for _, s := range Builtin() {
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		if s.Combinations() != want[s.Name] {
			t.Errorf("%s has %d combinations, want %d", s.Name, s.Combinations(), want[s.Name])
		}
	}
	if len(Builtin()) != len(want) {
		t.Errorf("%d spaces, want %d", len(Builtin()), len(want))
	}
	if _, err := Lookup("cifar11"); err == nil || !strings.Contains(err.Error(), "cifar10, cifar100") {
		t.Error(err)
	}
	s, err := Lookup("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Only([]string{"layer1", "avgpool"}); err != nil || s.Combinations() != 32 || s.Layers[0].Layer != "layer1" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := s.Only([]string{"layer9"}); err == nil || !strings.Contains(err.Error(), "layer9") {
		t.Error(err)
	}
}

package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"nac/coverage"
	"nac/metric"
)

// The ways to go through a space.
const (
	// Auto is Grid where that takes at most GridLimit combinations, else Coordinate.
	Auto = "auto"
	// Grid evaluates every combination, as the reference does.
	Grid = "grid"
	// Coordinate improves one layer at a time, from several starts, until no change
	// of one layer helps. It evaluates a few hundred combinations where a grid
	// has millions and may miss the best of them.
	Coordinate = "coordinate"
	// Halving evaluates every combination on few of the images, the best quarter on four
	// times as many, and so on, the last ones on all images: successive halving
	// (Jamieson and Talwalkar, AISTATS 2016). It is a grid at a fraction of the
	// cost, and may miss the best combination where few images rank it low.
	Halving = "halving"
)

// Methods lists the ways to go through a space.
func Methods() []string { return []string{Auto, Grid, Coordinate, Halving} }

const (
	// GridLimit is up to where Auto evaluates every combination.
	GridLimit = 20_000
	// maxGrid is where Grid and Halving give up.
	maxGrid = 4_000_000
	// reduction is by what Halving divides the combinations from round to round. Its
	// first round has at least leastImages of either set, its last at least
	// leastCombinations. From 62 images a ResNet-20's best of 256 was missed by 1.7 points
	// of AUROC; from 250 it was found.
	reduction         = 4
	leastImages       = 250
	leastCombinations = 16
)

// Options are the settings of Table.Search; the zero value means Auto.
type Options struct {
	Method string
	// Starts is how many random combinations Coordinate starts from, besides the
	// first one and the best of each layer alone; 0 means 8.
	Starts int
	Seed   uint64
	// Advance, if not nil, is called with the number of combinations evaluated and
	// of all of them, 0 if that is not known; of Halving the last round counts.
	Advance func(done, all int)
}

// Outcome is what a combination of choices gives. Numbers are fractions.
type Outcome struct {
	// Index is the combination's place in the sweep: the first layer's choices vary
	// fastest.
	Index uint64 `json:"index"`
	// FPR95 and AUROC are of ID against OOD validation images.
	FPR95 float64 `json:"fpr95"`
	AUROC float64 `json:"auroc"`
	// TrainFPR95 and TrainAUROC are the reference's sanity check: the same with the
	// training images that were not fitted on in the place of OOD. An AUROC of
	// 0.5 is right; one far from it tells of overfitting. Nil without such images.
	TrainFPR95 *float64 `json:"train_fpr95,omitempty"`
	TrainAUROC *float64 `json:"train_auroc,omitempty"`
}

// Result is the result of a search.
type Result struct {
	Space        Space  `json:"space"`
	Method       string `json:"method"`       // Grid, Coordinate or Halving
	Combinations uint64 `json:"combinations"` // in the space
	// Best is the first of the outcomes with the highest AUROC.
	Best Outcome `json:"best"`
	// Outcomes are those that were evaluated on all images, by rising index.
	Outcomes []Outcome `json:"outcomes"`

	choices [][]Choice
}

// Choices returns the combination of an outcome: the choice of each layer.
func (r *Result) Choices(o Outcome) []Choice {
	c := make([]Choice, len(r.choices))
	for i, k := range digits(r.choices, o.Index) {
		c[i] = r.choices[i][k]
	}
	return c
}

// Settings returns NAC's settings of an outcome.
func (r *Result) Settings(o Outcome) (s []coverage.LayerSettings) {
	for _, c := range r.Choices(o) {
		if !c.LeftOut {
			s = append(s, c.LayerSettings)
		}
	}
	return s
}

// digits returns which choice of each layer the combination takes.
func digits(choices [][]Choice, index uint64) []int {
	d := make([]int, len(choices))
	for i, c := range choices {
		d[i] = int(index % uint64(len(c)))
		index /= uint64(len(c))
	}
	return d
}

func (t *Table) index(digits []int) uint64 {
	n := uint64(0)
	for i, d := range slices.Backward(digits) {
		n = n*uint64(len(t.choices[i])) + uint64(d)
	}
	return n
}

// Search looks for the best combination.
func (t *Table) Search(ctx context.Context, o Options) (*Result, error) {
	r := &Result{Space: t.space, Method: o.Method, Combinations: t.space.Combinations(), choices: t.choices}
	if o.Method == Auto || o.Method == "" {
		if r.Method = Grid; r.Combinations > GridLimit {
			r.Method = Coordinate
		}
	}
	s := newSearcher(ctx, t, o)
	var err error
	switch r.Method {
	case Grid:
		err = s.grid()
	case Coordinate:
		err = s.coordinate()
	case Halving:
		err = s.halving()
	default:
		err = fmt.Errorf("search: no method %q", r.Method)
	}
	if err != nil {
		return nil, err
	}
	if len(s.outcomes) == 0 {
		return nil, errors.New("search: every layer is left out")
	}
	r.Outcomes = s.outcomes
	slices.SortFunc(r.Outcomes, func(a, b Outcome) int { return cmp.Compare(a.Index, b.Index) })
	r.Best = r.Outcomes[0]
	for _, c := range r.Outcomes[1:] {
		if c.AUROC > r.Best.AUROC {
			r.Best = c
		}
	}
	return r, nil
}

type searcher struct {
	*Table
	ctx        context.Context
	options    Options
	evaluators []*evaluator // one a worker
	seen       map[uint64]Outcome
	outcomes   []Outcome
	all        int
}

func newSearcher(ctx context.Context, t *Table, o Options) *searcher {
	s := &searcher{Table: t, ctx: ctx, options: o, seen: map[uint64]Outcome{}}
	for range t.workers {
		s.evaluators = append(s.evaluators, newEvaluator(t))
	}
	return s
}

// evaluate returns the outcomes of the combinations; one without any layer has a
// negative AUROC.
func (s *searcher) evaluate(indices []uint64) ([]Outcome, error) {
	out := make([]Outcome, len(indices))
	free := make(chan *evaluator, len(s.evaluators))
	for _, e := range s.evaluators {
		free <- e
	}
	err := parallel(len(s.evaluators), len(indices), func(i int) error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		e := <-free
		out[i] = e.outcome(indices[i])
		free <- e
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, o := range out {
		if o.AUROC >= 0 {
			s.outcomes = append(s.outcomes, o)
		}
	}
	if s.options.Advance != nil {
		s.options.Advance(len(s.outcomes), s.all)
	}
	return out, nil
}

func (s *searcher) grid() error {
	all, err := s.every()
	if err != nil {
		return err
	}
	return s.evaluateAll(all)
}

// every lists all combinations.
func (s *searcher) every() ([]uint64, error) {
	n := s.space.Combinations()
	if n > maxGrid {
		return nil, fmt.Errorf("search: %d combinations are too many to evaluate each; let the method be %s", n, Coordinate)
	}
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i)
	}
	return all, nil
}

// evaluateAll is evaluate for many, by and by.
func (s *searcher) evaluateAll(indices []uint64) error {
	s.all = len(indices)
	for some := range slices.Chunk(indices, 1024) {
		if _, err := s.evaluate(some); err != nil {
			return err
		}
	}
	return nil
}

func (s *searcher) halving() error {
	left, err := s.every()
	if err != nil {
		return err
	}
	stride := 1
	for next := reduction; min(s.images[val], s.images[valOOD])/next >= leastImages && len(left)/next >= leastCombinations; next *= reduction {
		stride = next
	}
	for ; stride > 1; stride /= reduction {
		round := newSearcher(s.ctx, s.sample(stride), Options{})
		if err := round.evaluateAll(left); err != nil {
			return err
		}
		found := round.outcomes
		slices.SortFunc(found, func(a, b Outcome) int {
			return cmp.Or(cmp.Compare(b.AUROC, a.AUROC), cmp.Compare(a.Index, b.Index))
		})
		keep := (len(left) + reduction - 1) / reduction
		left = left[:0]
		for _, o := range found[:min(keep, len(found))] {
			left = append(left, o.Index)
		}
	}
	return s.evaluateAll(left)
}

// sample returns the table of every stride-th image, which is fair to the classes
// of a list that is ordered by them. Training images are left out.
func (t *Table) sample(stride int) *Table {
	s := &Table{space: t.space, choices: t.choices, workers: t.workers}
	for _, set := range []int{val, valOOD} {
		s.images[set] = (t.images[set] + stride - 1) / stride
	}
	done := map[*vectors]*vectors{nil: nil} // weights share them
	for _, layer := range t.scores {
		of := make([]*vectors, len(layer))
		for i, v := range layer {
			some, ok := done[v]
			if !ok {
				some = &vectors{}
				for _, set := range []int{val, valOOD} {
					for k := 0; k < t.images[set]; k += stride {
						some[set] = append(some[set], v[set][k])
					}
				}
				done[v] = some
			}
			of[i] = some
		}
		s.scores = append(s.scores, of)
	}
	return s
}

// known is evaluate with a memory.
func (s *searcher) known(indices []uint64) ([]Outcome, error) {
	var fresh []uint64
	for _, i := range indices {
		if _, ok := s.seen[i]; !ok && !slices.Contains(fresh, i) {
			fresh = append(fresh, i)
		}
	}
	found, err := s.evaluate(fresh)
	if err != nil {
		return nil, err
	}
	for i, o := range found {
		s.seen[fresh[i]] = o
	}
	out := make([]Outcome, len(indices))
	for i, index := range indices {
		out[i] = s.seen[index]
	}
	return out, nil
}

func (s *searcher) coordinate() error {
	first := make([]int, len(s.choices))
	alone, err := s.bestAlone()
	if err != nil {
		return err
	}
	starts := [][]int{alone, first}
	random := rand.New(rand.NewPCG(s.options.Seed, 0))
	n := s.options.Starts
	if n <= 0 {
		n = 8
	}
	for range n {
		d := make([]int, len(s.choices))
		for i, c := range s.choices {
			d[i] = random.IntN(len(c))
		}
		starts = append(starts, d)
	}
	for _, d := range starts {
		if err := s.descend(d); err != nil {
			return err
		}
	}
	return nil
}

// bestAlone returns the choice of each layer that is best without other layers.
func (s *searcher) bestAlone() ([]int, error) {
	best := make([]int, len(s.choices))
	for layer, choices := range s.choices {
		aurocs := make([]float64, len(choices))
		free := make(chan *evaluator, len(s.evaluators))
		for _, e := range s.evaluators {
			free <- e
		}
		err := parallel(len(s.evaluators), len(choices), func(i int) error {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			e := <-free
			aurocs[i] = e.alone(layer, i)
			free <- e
			return nil
		})
		if err != nil {
			return nil, err
		}
		for i, a := range aurocs {
			if a > aurocs[best[layer]] {
				best[layer] = i
			}
		}
	}
	return best, nil
}

// descend improves one layer at a time until that helps no more.
func (s *searcher) descend(d []int) error {
	found, err := s.known([]uint64{s.index(d)})
	if err != nil {
		return err
	}
	at := found[0]
	for still := 0; still < len(d); {
		for layer := range d {
			var indices []uint64
			for c := range s.choices[layer] {
				e := slices.Clone(d)
				e[layer] = c
				indices = append(indices, s.index(e))
			}
			found, err := s.known(indices)
			if err != nil {
				return err
			}
			still++
			for c, o := range found {
				if o.AUROC > at.AUROC {
					at, d[layer], still = o, c, 1
				}
			}
			if still == len(d) {
				break
			}
		}
	}
	return nil
}

// evaluator has room for the scores of a combination.
type evaluator struct {
	*Table
	total  []float64
	sorted [sets][]float32
	spare  []float32
}

func newEvaluator(t *Table) *evaluator {
	e := &evaluator{Table: t}
	most := 0
	for i, n := range t.images {
		e.sorted[i] = make([]float32, n)
		most = max(most, n)
	}
	e.total, e.spare = make([]float64, most), make([]float32, most)
	return e
}

func (e *evaluator) outcome(index uint64) Outcome {
	d := digits(e.choices, index)
	for set := range sets {
		if !e.combine(set, d) {
			return Outcome{Index: index, AUROC: -1}
		}
	}
	o := Outcome{Index: index, AUROC: metric.AUROCSorted(e.sorted[val], e.sorted[valOOD]), FPR95: metric.FPR95Sorted(e.sorted[val], e.sorted[valOOD])}
	if e.images[subTrain] > 0 {
		auroc, fpr := metric.AUROCSorted(e.sorted[val], e.sorted[subTrain]), metric.FPR95Sorted(e.sorted[val], e.sorted[subTrain])
		o.TrainAUROC, o.TrainFPR95 = &auroc, &fpr
	}
	return o
}

// combine sorts a set's scores by the given choices, the very float32 numbers that
// coverage.Coverage.Score gives. It returns false if every layer is left out.
func (e *evaluator) combine(set int, digits []int) bool {
	total := e.total[:e.images[set]]
	weights := 0.0
	for layer, d := range digits {
		c, v := e.choices[layer][d], e.scores[layer][d]
		if c.LeftOut {
			continue
		}
		w := c.Weight
		if w == 0 {
			w = 1
		}
		if weights == 0 {
			clear(total)
		}
		if w == 1 {
			for i, s := range v[set] {
				total[i] += s
			}
		} else {
			for i, s := range v[set] {
				total[i] += float64(w * s) // as package coverage, not fused
			}
		}
		weights += w
	}
	if weights == 0 {
		return false
	}
	for i, s := range total {
		e.sorted[set][i] = float32(s / weights)
	}
	metric.SortFloat32(e.sorted[set], e.spare)
	return true
}

// alone is the AUROC of one layer's choice, negative if the layer is left out.
func (e *evaluator) alone(layer, choice int) float64 {
	v := e.scores[layer][choice]
	if v == nil {
		return -1
	}
	for _, set := range []int{val, valOOD} {
		for i, s := range v[set] {
			e.sorted[set][i] = float32(s)
		}
		metric.SortFloat32(e.sorted[set], e.spare)
	}
	return metric.AUROCSorted(e.sorted[val], e.sorted[valOOD])
}

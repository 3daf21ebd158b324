package detector

import (
	"cmp"
	"math"
	"slices"
)

// nnGuide is nearest-neighbour guidance (Park et al., "Nearest Neighbor Guidance for
// Out-of-Distribution Detection", ICCV 2023): the image's energy times the mean of the
// K largest inner products of its feature with training features, those times their
// images' energies; all features divided by their norms. A share alpha of the
// training images is kept, drawn at random; where that is fewer than K, ten times K
// are, if there are so many.
type nnGuide struct {
	fitting
	sample sample
	kept   []guide
	bank   *bank
}

type guide struct {
	priority uint64
	row      []float32
}

var nnGuideParams = []Param{
	{Name: "K", About: "number of neighbours", Default: 100, Min: 1, Max: 1 << 20, Whole: true, Sweep: []float64{100}},
	{Name: "alpha", About: "share of the training images kept", Default: 0.01, Min: 1e-6, Max: 1, Sweep: []float64{0.01}},
}

var _ = register(Method{
	Key: "nnguide", About: "energy guided by the nearest training images", Paper: "Park, ICCV 2023",
	Params: nnGuideParams, make: newNNGuide,
})

func newNNGuide(p params) (Detector, error) {
	d := &nnGuide{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		if !s.saving {
			d.bank = newBank(d.features)
		}
		d.bank.store(s, "train")
		if !s.saving && s.err == nil && d.bank.n < d.int("K") {
			s.fail(d.errorf("K is %d, but the file holds %d training images", d.int("K"), d.bank.n))
		}
	}
	return d, nil
}

func (d *nnGuide) Begin(n Network) error {
	d.sample, d.kept, d.bank = newSample(0, 1), nil, newBank(n.Features)
	return d.begin(n)
}

// wanted is how many of n training images go into the bank.
func (d *nnGuide) wanted(n int) int {
	if share := int(math.Ceil(d.float("alpha") * float64(n))); share >= d.int("K") {
		return share
	}
	return min(n, 10*d.int("K"))
}

func (d *nnGuide) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	logits := make([]float64, d.classes)
	for i := range in.N {
		priority, take := d.sample.next()
		if !take {
			continue
		}
		row := direction(d.feature(in, i), make([]float32, d.features))
		energy := logSumExp(d.logits(in, i, logits), 1)
		for f := range row {
			row[f] = float32(float64(row[f]) * energy)
		}
		d.kept = append(d.kept, guide{priority, row})
		// Half of them are still as many as wanted, but for chance.
		if d.sample.most = 3 * d.wanted(int(d.sample.seen)); d.sample.full() {
			d.sample.halve()
			d.kept = slices.DeleteFunc(d.kept, func(g guide) bool { return !d.sample.holds(g.priority) })
		}
	}
	return nil
}

func (d *nnGuide) End() error {
	if k := d.int("K"); d.phase == begun && d.images < k {
		return d.errorf("K is %d, but there are only %d training images", k, d.images)
	}
	if err := d.endTrained(); err != nil {
		return err
	}
	slices.SortFunc(d.kept, func(a, b guide) int { return cmp.Compare(a.priority, b.priority) })
	for _, g := range d.kept[:min(len(d.kept), d.wanted(d.images))] {
		d.bank.add(g.row)
	}
	d.kept = nil
	return nil
}

func (d *nnGuide) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	queries := make([]float32, in.N*d.features)
	found := make([]nearest, in.N)
	for i := range in.N {
		direction(d.feature(in, i), queries[i*d.features:][:d.features])
		found[i] = newNearest(d.int("K"), 0)
	}
	d.bank.products(queries, in.N, func(first, vectors, from, rows int, dots []float32, stride int) {
		for i := range vectors {
			f := &found[first+i]
			for j, dot := range dots[i*stride:][:rows] {
				if key := -float64(dot); key <= f.limit {
					f.add(key, from+j)
				}
			}
		}
	})
	logits := make([]float64, d.classes)
	for i := range found {
		dst[i] = -found[i].mean() * logSumExp(d.logits(in, i, logits), 1)
	}
	return nil
}

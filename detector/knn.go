package detector

import "math"

// knn is the distance to the K-th nearest training image (Sun et al.,
// "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022): minus
// the squared Euclidean distance of features divided by their norm. All training
// features are kept. A feature of zeros has no direction and stays zeros.
//
// The search is exact: candidates are found in float32 and, where rounding could
// change their order, compared in float64.
type knn struct {
	fitting
	bank    *bank
	squares []float32 // squared norms of the bank's rows
	row     []float32
}

var _ = register(Method{
	Key: "knn", About: "distance to the K-th nearest training image", Paper: "Sun, ICML 2022",
	make: newKNN,
	Params: []Param{{
		Name: "K", About: "the neighbour whose distance counts", Default: 50, Min: 1, Max: 1 << 20, Whole: true,
		Sweep: []float64{50, 100, 200, 500, 1000}, Late: true,
	}},
})

func newKNN(p params) (Detector, error) {
	d := &knn{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		if !s.saving {
			d.bank = newBank(d.features)
		}
		d.bank.store(s, "train")
		if !s.saving && s.err == nil {
			if d.bank.n < d.int("K") {
				s.fail(d.errorf("K is %d, but the file holds %d training images", d.int("K"), d.bank.n))
			}
			d.squares = nil
			row := make([]float32, d.features)
			for i := range d.bank.n {
				d.squares = append(d.squares, square(d.bank.row(i, row)))
			}
		}
	}
	return d, nil
}

func (d *knn) Begin(n Network) error {
	d.bank, d.squares, d.row = newBank(n.Features), nil, make([]float32, max(n.Features, 0))
	return d.begin(n)
}

func (d *knn) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i := range in.N {
		d.bank.add(direction(d.feature(in, i), d.row))
		d.squares = append(d.squares, square(d.row))
	}
	return nil
}

func (d *knn) End() error {
	if k := d.int("K"); d.phase == begun && d.images < k {
		return d.errorf("K is %d, but there are only %d training images", k, d.images)
	}
	return d.endTrained()
}

// direction divides a feature by its norm, with the reference's 1e-10 on top.
func direction(feature, dst []float32) []float32 {
	sum := 0.0
	for _, v := range feature {
		sum += float64(v) * float64(v)
	}
	scale := 0.0
	if sum > 0 {
		scale = 1 / math.Sqrt(sum)
	}
	for i, v := range feature {
		dst[i] = float32(float64(v)*scale + 1e-10)
	}
	return dst
}

func square(v []float32) float32 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return float32(sum)
}

func (d *knn) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	if k := d.int("K"); k > d.bank.n {
		return d.errorf("K is %d, but there are only %d training images", k, d.bank.n)
	}
	queries := make([]float32, in.N*d.features)
	for i := range in.N {
		direction(d.feature(in, i), queries[i*d.features:][:d.features])
	}
	// A product of unit vectors of F numbers is off by at most F roundings.
	off := 2 * float64(d.features+4) * 0x1p-24
	found := make([]nearest, in.N)
	for i := range found {
		found[i] = newNearest(d.int("K"), 2*off)
	}
	d.bank.products(queries, in.N, func(first, vectors, from, rows int, dots []float32, stride int) {
		squares := d.squares[from : from+rows]
		for i := range vectors {
			f := &found[first+i]
			for j, dot := range dots[i*stride:][:rows] {
				if key := float64(squares[j] - 2*dot); key <= f.limit {
					f.add(key, from+j)
				}
			}
		}
	})
	row := make([]float32, d.features)
	for i := range found {
		dst[i] = -d.exact(&found[i], queries[i*d.features:][:d.features], off, row)
	}
	return nil
}

// exact returns the K-th smallest distance of a query, of which the candidates
// are known up to off.
func (d *knn) exact(f *nearest, query []float32, off float64, row []float32) float64 {
	kth := f.prune()
	below := 0
	var close []float64
	for i, key := range f.keys {
		if key < kth-2*off {
			below++
			continue
		}
		sum := 0.0
		for c, v := range d.bank.row(int(f.at[i]), row) {
			e := float64(v) - float64(query[c])
			sum += e * e
		}
		close = append(close, sum)
	}
	return kthSmallest(close, f.k-1-below)
}

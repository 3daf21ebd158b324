package detector

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// mdsEnsemble is the whole method of Lee et al., "A Simple Unified Framework for
// Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, as
// OpenOOD is configured to run it, which is not an ensemble: minus half the squared
// Mahalanobis distance of the stem's mean activation from the nearest class, of an
// image moved by a small noise against the sign of the gradient of that distance.
// The noise is divided by 0.5, whatever the images were normalised with.
type mdsEnsemble struct {
	fitting
	width    int
	moments  *classMoments
	distance mahalanobis
}

var _ = register(Method{
	Key: "mds_ensemble", About: "Mahalanobis distance behind the stem, of an image moved towards its class", Paper: "Lee, NeurIPS 2018",
	make: newMDSEnsemble,
	Params: []Param{{
		Name: "noise", About: "by how much pixels are moved", Default: 0.0014, Min: 0, Max: 10,
		Sweep: []float64{0.0014},
	}},
})

func newMDSEnsemble(p params) (Detector, error) {
	d := &mdsEnsemble{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		s.count("width", &d.width)
		d.distance.store(s, "class", d.width)
	}
	return d, nil
}

func (d *mdsEnsemble) Begin(n Network) error {
	if len(n.Stages) == 0 {
		return d.errorf("the network has no stages, of which it reads the first")
	}
	d.width = n.Stages[0].Channels
	d.moments = newClassMoments(n.Classes, d.width)
	return d.begin(n)
}

// stem is the mean of the first stage's activation.
var stem = Map{stageName(0), spatialMean{}}

func (d *mdsEnsemble) pass() Pass {
	size := float32(d.float("noise") / 0.5)
	return Pass{Loss: nearestClass{d}, Move: SignStep{[3]float32{size, size, size}}}
}

func (d *mdsEnsemble) Needs(n Network, p Phase) Needs {
	switch {
	case len(n.Stages) == 0:
		return Needs{}
	case p == Fitting:
		return Needs{Maps: []Map{stem}}
	case p == Scoring:
		return Needs{Passes: []Further{{Pass: d.pass(), Maps: []Map{stem}}}}
	}
	return Needs{}
}

func (d *mdsEnsemble) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	means, err := d.stem(in)
	if err != nil {
		return err
	}
	for i := range in.N {
		l, err := d.label(in, i)
		if err != nil {
			return err
		}
		d.moments.add(means[i*d.width:][:d.width], l)
	}
	return nil
}

func (d *mdsEnsemble) stem(in *Inputs) ([]float32, error) {
	means, err := in.mapValues(stem)
	if err == nil {
		err = rows("activations of the stem", means, in.N, d.width)
	}
	if err != nil {
		return nil, d.errorf("%w", err)
	}
	return means, nil
}

func (d *mdsEnsemble) End() error {
	m, err := d.endMoments(d.moments)
	if err != nil {
		return err
	}
	d.distance, d.moments = *m, nil
	return nil
}

func (d *mdsEnsemble) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	moved, err := in.pass(d.pass())
	if err != nil {
		return d.errorf("%w", err)
	}
	means, err := d.stem(moved)
	if err != nil {
		return err
	}
	d.distance.distances(means, in.N, func(i int, distances []float64) {
		dst[i] = -0.5 * slices.Min(distances)
	})
	return nil
}

// nearestClass is half the squared distance from the nearest class.
type nearestClass struct{ *mdsEnsemble }

func (nearestClass) Layer() string { return stem.Layer }
func (nearestClass) fitted()       {}

// Gradient is P (x - m), with P = a'a and m the nearest mean.
func (l nearestClass) Gradient(values, gradient []float32) {
	d := &l.distance
	x := make([]float64, d.width)
	for i, v := range values {
		x[i] = float64(v) - d.centre[i]
	}
	y := d.whiten(x, 1)
	best, nearest := math.Inf(1), 0
	for k, s := range d.squares {
		// Without |y|^2, which is the same for all.
		if e := s - 2*blas64.Dot(d.vector(y), d.vector(d.means[k*d.rows:])); e < best {
			best, nearest = e, k
		}
	}
	for i, m := range d.means[nearest*d.rows:][:d.rows] {
		y[i] -= m
	}
	a := blas64.General{Rows: d.rows, Cols: d.width, Stride: d.width, Data: d.a}
	blas64.Gemv(blas.Trans, 1, a, d.vector(y), 0, blas64.Vector{N: d.width, Data: x, Inc: 1})
	for i, v := range x {
		gradient[i] = float32(v)
	}
}

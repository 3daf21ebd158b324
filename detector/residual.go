package detector

import (
	"errors"
	"math"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// residual is the norm of what a feature has outside of the principal subspace of
// the training features (Wang et al., "ViM: Out-Of-Distribution with
// Virtual-logit Matching", CVPR 2022), negated. Features are seen from u = -pinv(W) b,
// where all logits are zero.
type residual struct {
	fitting
	head    *head
	moments *moments
	space   residualSpace
}

// dimension is that of the principal subspace.
var dimension = Param{
	Name: "dim", About: "dimension of the principal subspace; 0 means 256, or half of fewer than 512 features",
	Default: 0, Min: 0, Max: 1 << 20, Whole: true, Sweep: []float64{256, 1000},
}

var _ = register(Method{
	Key: "residual", About: "the feature's part outside of the principal subspace", Paper: "Wang, CVPR 2022",
	make:   newResidual,
	Params: []Param{dimension},
})

func newResidual(p params) (Detector, error) {
	d := &residual{fitting: fitting{params: p}}
	d.state = func(s *storage) { d.space.store(s, d.features) }
	return d, nil
}

func (d *residual) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.moments = newMoments(n.Features)
	d.head, err = d.takeHead(n)
	return err
}

func (d *residual) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i := range in.N {
		d.moments.add(d.feature(in, i))
	}
	return nil
}

func (d *residual) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	space, err := newResidualSpace(d.head, d.moments, d.int("dim"))
	if err != nil {
		d.phase = fresh
		return d.errorf("%w", err)
	}
	d.space, d.moments, d.head = *space, nil, nil
	return nil
}

func (d *residual) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	d.space.norms(in.Feature, in.N, dst)
	for i := range in.N {
		dst[i] = -dst[i]
	}
	return nil
}

// residualSpace is the complement of the principal subspace.
type residualSpace struct {
	width, rows int
	origin      []float64
	basis       []float64 // rows x width
	scale       float64   // how large features are; not stored
}

func newResidualSpace(h *head, m *moments, dim int) (*residualSpace, error) {
	if dim == 0 {
		dim = min(256, h.features/2)
	}
	if dim >= h.features {
		return nil, errors.Join(errNoResidual, errors.New("dim must be smaller than the number of features"))
	}
	origin, err := h.origin()
	if err != nil {
		return nil, err
	}
	values, vectors, err := eigen(m.about(origin))
	if err != nil {
		return nil, err
	}
	if !(values[0] > 0) {
		return nil, errConstant
	}
	s := &residualSpace{width: h.features, rows: h.features - dim, origin: origin, scale: math.Sqrt(values[0])}
	s.basis = make([]float64, s.rows*s.width)
	for r := range s.rows {
		for i := range s.width {
			s.basis[r*s.width+i] = vectors.At(i, dim+r)
		}
	}
	return s, nil
}

var errNoResidual = errors.New("nothing of the features lies outside of the principal subspace")

// origin is -pinv(W) b. Directions in which W vanishes up to the rounding of
// float32 are left out: with numpy's limit they would blow up.
func (h *head) origin() ([]float64, error) {
	w := mat.NewDense(h.classes, h.features, widen(h.weight, make([]float64, len(h.weight))))
	b := mat.NewVecDense(h.classes, widen(h.bias, make([]float64, h.classes)))
	var svd mat.SVD
	if !svd.Factorize(w, mat.SVDThin) {
		return nil, errors.New("no singular values of the last layer's weights were found")
	}
	origin := make([]float64, h.features)
	rank, values := 0, svd.Values(nil)
	for rank < len(values) && values[rank] > 1e-6*values[0] {
		rank++
	}
	if rank == 0 {
		return origin, nil
	}
	var u mat.VecDense
	svd.SolveVecTo(&u, b, rank)
	for i := range origin {
		origin[i] = -u.AtVec(i)
	}
	return origin, nil
}

// norms writes the norm of each of n features' residual into dst.
func (s *residualSpace) norms(features []float32, n int, dst []float64) {
	x, y := make([]float64, momentBlock*s.width), make([]float64, momentBlock*s.rows)
	for from := 0; from < n; from += momentBlock {
		count := min(momentBlock, n-from)
		for i := range count * s.width {
			x[i] = float64(features[from*s.width+i]) - s.origin[i%s.width]
		}
		apply(s.basis, s.rows, x, count, y)
		for i := range count {
			v := blas64.Vector{N: s.rows, Data: y[i*s.rows:][:s.rows], Inc: 1}
			dst[from+i] = math.Sqrt(blas64.Dot(v, v))
		}
	}
}

func (s *residualSpace) store(f *storage, width int) {
	s.width = width
	f.count("rows", &s.rows)
	if f.err == nil {
		f.float64s("origin", &s.origin, width)
		f.float64s("basis", &s.basis, s.rows, width)
	}
}

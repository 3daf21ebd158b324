package detector

import (
	"math"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// classMoments are the moments of features and the mean of each class.
type classMoments struct {
	all    *moments
	counts []int
	sums   []float64 // classes x width, of shifted vectors
}

func newClassMoments(classes, width int) *classMoments {
	return &classMoments{all: newMoments(width), counts: make([]int, classes), sums: make([]float64, classes*width)}
}

func (m *classMoments) add(v []float32, class int) {
	m.all.add(v)
	sums := m.sums[class*m.all.width:][:m.all.width]
	for i, s := range m.all.shift {
		sums[i] += float64(v[i]) - s
	}
	m.counts[class]++
}

// means returns the classes' means; that of a class without images is NaN.
func (m *classMoments) means() []float64 {
	means := make([]float64, len(m.sums))
	for i, s := range m.sums {
		means[i] = m.all.shift[i%m.all.width] + s/float64(m.counts[i/m.all.width])
	}
	return means
}

// within is the covariance of features about their class's mean.
func (m *classMoments) within() *mat.SymDense {
	c := m.all.about(m.all.shift)
	width, n := m.all.width, float64(m.all.n)
	d := make([]float64, width)
	for k, count := range m.counts {
		if count == 0 {
			continue
		}
		for i, s := range m.sums[k*width:][:width] {
			d[i] = s / float64(count)
		}
		c.SymRankOne(c, -float64(count)/n, mat.NewVecDense(width, d))
	}
	return c
}

// mahalanobis measures squared distances x' P x from some means, where P is the
// pseudo-inverse of a covariance.
type mahalanobis struct {
	width, rows int
	a           []float64 // rows x width: P = a'a
	centre      []float64 // subtracted first
	means       []float64 // each times a, after the centre; means x rows
	squares     []float64 // of means
}

// newMahalanobis leaves out means that are NaN.
func newMahalanobis(c *mat.SymDense, centre, means []float64) (*mahalanobis, error) {
	a, rows, err := whitening(c)
	if err != nil {
		return nil, err
	}
	return mahalanobisBy(a, rows, centre, means), nil
}

// mahalanobisBy is newMahalanobis where P is a'a, a having that many rows.
func mahalanobisBy(a []float64, rows int, centre, means []float64) *mahalanobis {
	m := &mahalanobis{width: len(centre), rows: rows, a: a, centre: centre}
	x := make([]float64, m.width)
	for len(means) > 0 {
		for i := range x {
			x[i] = means[i] - centre[i]
		}
		means = means[m.width:]
		if math.IsNaN(x[0]) {
			continue
		}
		m.means = append(m.means, m.whiten(x, 1)...)
	}
	m.square()
	return m
}

func (m *mahalanobis) whiten(x []float64, n int) []float64 {
	y := make([]float64, n*m.rows)
	apply(m.a, m.rows, x, n, y)
	return y
}

func (m *mahalanobis) square() {
	m.squares = nil
	for at := 0; at < len(m.means); at += m.rows {
		v := m.vector(m.means[at:])
		m.squares = append(m.squares, blas64.Dot(v, v))
	}
}

func (m *mahalanobis) vector(data []float64) blas64.Vector {
	return blas64.Vector{N: m.rows, Data: data[:m.rows], Inc: 1}
}

// distances calls f for each of n features, with the distance from every mean.
func (m *mahalanobis) distances(features []float32, n int, f func(i int, d []float64)) {
	d := make([]float64, len(m.squares))
	for from := 0; from < n; from += momentBlock {
		count := min(momentBlock, n-from)
		x := make([]float64, count*m.width)
		for i := range x {
			x[i] = float64(features[from*m.width+i]) - m.centre[i%m.width]
		}
		y := m.whiten(x, count)
		for i := range count {
			v := m.vector(y[i*m.rows:])
			vv := blas64.Dot(v, v)
			for k, s := range m.squares {
				d[k] = vv - 2*blas64.Dot(v, m.vector(m.means[k*m.rows:])) + s
			}
			f(from+i, d)
		}
	}
}

func (m *mahalanobis) store(s *storage, name string, width int) {
	m.width = width
	classes := len(m.squares)
	s.count(name+".rows", &m.rows)
	s.count(name+".means", &classes)
	if s.err != nil {
		return
	}
	s.float64s(name+".whitening", &m.a, m.rows, width)
	s.float64s(name+".centre", &m.centre, width)
	s.float64s(name+".mean", &m.means, classes, m.rows)
	if s.err == nil {
		m.square()
	}
}

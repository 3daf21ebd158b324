package detector

import (
	"errors"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// moments sums vectors and their outer products in float64, shifted by the
// first vector so that large means do not eat small variances. Vectors are added
// in blocks of a fixed size: what comes out does not depend on the batches.
type moments struct {
	width   int
	n       int
	shift   []float64
	sum     []float64 // of the shifted vectors
	product blas64.Symmetric
	block   []float64
	waiting int // vectors in the block
}

const momentBlock = 64

func newMoments(width int) *moments {
	return &moments{
		width: width, sum: make([]float64, width), block: make([]float64, momentBlock*width),
		product: blas64.Symmetric{N: width, Stride: width, Uplo: blas.Upper, Data: make([]float64, width*width)},
	}
}

func (m *moments) add(v []float32) {
	if m.shift == nil {
		m.shift = widen(v[:m.width], make([]float64, m.width))
	}
	row := m.block[m.waiting*m.width:][:m.width]
	for i, s := range m.shift {
		row[i] = float64(v[i]) - s
		m.sum[i] += row[i]
	}
	m.n++
	if m.waiting++; m.waiting == momentBlock {
		m.flush()
	}
}

func (m *moments) flush() {
	if m.waiting > 0 {
		rows := blas64.General{Rows: m.waiting, Cols: m.width, Stride: m.width, Data: m.block}
		blas64.Syrk(blas.Trans, 1, rows, 1, m.product)
		m.waiting = 0
	}
}

func (m *moments) mean() []float64 {
	mean := make([]float64, m.width)
	for i, s := range m.shift {
		mean[i] = s + m.sum[i]/float64(m.n)
	}
	return mean
}

// about returns the mean of (v-centre)(v-centre)' over all vectors v.
func (m *moments) about(centre []float64) *mat.SymDense {
	m.flush()
	n := float64(m.n)
	c := mat.NewSymDense(m.width, nil)
	for i := range m.width {
		// sum (w-d)(w-d)' where w is v-shift and d is centre-shift
		di := centre[i] - m.shift[i]
		for j := i; j < m.width; j++ {
			dj := centre[j] - m.shift[j]
			c.SetSym(i, j, m.product.Data[i*m.width+j]/n-(di*m.sum[j]+dj*m.sum[i])/n+di*dj)
		}
	}
	return c
}

// covariance is the biased one.
func (m *moments) covariance() *mat.SymDense { return m.about(m.mean()) }

var errConstant = errors.New("the training features do not vary")

// eigen returns the eigenvalues of a covariance, falling, and the eigenvectors
// as the columns of a matrix in the same order.
func eigen(c *mat.SymDense) ([]float64, *mat.Dense, error) {
	var e mat.EigenSym
	if ok := e.Factorize(c, true); !ok {
		return nil, nil, errors.New("no eigenvalues of the covariance were found")
	}
	n := c.SymmetricDim()
	rising := e.Values(nil)
	var v mat.Dense
	e.VectorsTo(&v)
	values, vectors := make([]float64, n), mat.NewDense(n, n, nil)
	for j := range n {
		values[j] = rising[n-1-j]
		for i := range n {
			vectors.Set(i, j, v.At(i, n-1-j))
		}
	}
	return values, vectors, nil
}

// whitening returns a matrix A, row-major with the given number of rows, such
// that |A*x|^2 is x' P x, where P is the pseudo-inverse of the covariance:
// directions in which the training images vary by less than rounding count as
// not at all, with scipy's pinvh's limit.
func whitening(c *mat.SymDense) (a []float64, rows int, err error) {
	values, vectors, err := eigen(c)
	if err != nil {
		return nil, 0, err
	}
	n := len(values)
	least := float64(n) * 0x1p-52 * values[0]
	for rows < n && values[rows] > least {
		rows++
	}
	if rows == 0 {
		return nil, 0, errConstant
	}
	a = make([]float64, rows*n)
	for r := range rows {
		scale := 1 / math.Sqrt(values[r])
		for i := range n {
			a[r*n+i] = vectors.At(i, r) * scale
		}
	}
	return a, rows, nil
}

// apply writes n vectors times a matrix of the given number of rows into dst, n by
// rows. A vector's result does not depend on the others, bit for bit.
func apply(a []float64, rows int, vectors []float64, n int, dst []float64) {
	width := len(a) / rows
	for r := range rows {
		row := blas64.Vector{N: width, Data: a[r*width : (r+1)*width], Inc: 1}
		for i := range n {
			dst[i*rows+r] = blas64.Dot(row, blas64.Vector{N: width, Data: vectors[i*width : (i+1)*width], Inc: 1})
		}
	}
}

package dg

import "math"

// alignment is cross-entropy and a distance between the features of every two domains.
type alignment struct {
	weight float64
	// distance returns the distance of two sets of rows and adds weight times its
	// gradient.
	distance func(x, y [][]float64, weight float64, gradX, gradY [][]float64) float64
}

func (a *alignment) Loss(b *Minibatches) (float64, map[string]float64) {
	per := len(b.Labels) / b.Domains
	width := len(b.Features) / len(b.Labels)
	rows := make([][]float64, len(b.Labels))
	grads := make([][]float64, len(b.Labels))
	for i := range rows {
		rows[i], grads[i] = make([]float64, width), make([]float64, width)
		for k, v := range b.Features[i*width : (i+1)*width] {
			rows[i][k] = float64(v)
		}
	}
	part := func(of [][]float64, i int) [][]float64 { return of[i*per : (i+1)*per] }
	loss, penalty := 0.0, 0.0
	pairs := float64(b.Domains*(b.Domains-1)) / 2
	for i := range b.Domains {
		even := 1 / float64(b.Domains)
		loss += even * crossEntropy(b.rows(b.Logits, i), b.labels(i), even, b.rows(b.GradLogits, i))
		for j := i + 1; j < b.Domains; j++ {
			penalty += a.distance(part(rows, i), part(rows, j), a.weight/pairs, part(grads, i), part(grads, j)) / pairs
		}
	}
	for i, g := range grads {
		for k, v := range g {
			b.GradFeatures[i*width+k] += float32(v)
		}
	}
	return loss + a.weight*penalty, map[string]float64{"nll": loss, "penalty": penalty}
}

func dot(x, y []float64) (s float64) {
	for k, v := range x {
		s += v * y[k]
	}
	return s
}

// products returns the inner products of all rows.
func products(x, y [][]float64) [][]float64 {
	p := make([][]float64, len(x))
	for i := range x {
		p[i] = make([]float64, len(y))
		for j := range y {
			p[i][j] = dot(x[i], y[j])
		}
	}
	return p
}

func squares(m [][]float64) (s float64) {
	for _, row := range m {
		s += dot(row, row)
	}
	return s
}

func axpy(a float64, x, y []float64) {
	for k, v := range x {
		y[k] += a * v
	}
}

// centred returns the rows less their mean, and the mean.
func centred(x [][]float64) (rows [][]float64, mean []float64) {
	mean = make([]float64, len(x[0]))
	for _, r := range x {
		axpy(1/float64(len(x)), r, mean)
	}
	for _, r := range x {
		c := append([]float64(nil), r...)
		axpy(-1, mean, c)
		rows = append(rows, c)
	}
	return rows, mean
}

// coral is the mean squared difference of the means and of the covariances. The
// covariances, as wide as the features, are never made: |Cx-Cy|^2 follows from inner
// products of rows, of which there are few.
func coral(x, y [][]float64, weight float64, gradX, gradY [][]float64) float64 {
	cx, mx := centred(x)
	cy, my := centred(y)
	width := float64(len(mx))
	nx, ny := math.Max(float64(len(x)-1), 1), math.Max(float64(len(y)-1), 1)
	xx, yy, xy := products(cx, cx), products(cy, cy), products(cx, cy)
	covariances := (squares(xx)/(nx*nx) + squares(yy)/(ny*ny) - 2*squares(xy)/(nx*ny)) / (width * width)
	axpy(-1, my, mx) // the difference of the means
	means := dot(mx, mx) / width
	// Centring is symmetric and the gradient below is centred, as sums of centred rows
	// over weights that sum to 0 are.
	for i := range x {
		axpy(2*weight/width/float64(len(x)), mx, gradX[i])
		for j := range x {
			axpy(4*weight/(width*width)*xx[i][j]/(nx*nx), cx[j], gradX[i])
		}
		for j := range y {
			axpy(-4*weight/(width*width)*xy[i][j]/(nx*ny), cy[j], gradX[i])
		}
	}
	for i := range y {
		axpy(-2*weight/width/float64(len(y)), mx, gradY[i])
		for j := range y {
			axpy(4*weight/(width*width)*yy[i][j]/(ny*ny), cy[j], gradY[i])
		}
		for j := range x {
			axpy(-4*weight/(width*width)*xy[j][i]/(nx*ny), cx[j], gradY[i])
		}
	}
	return means + covariances
}

// kernelGammas are the widths of the Gaussian kernels that MMD adds up.
var kernelGammas = []float64{0.001, 0.01, 0.1, 1, 10, 100, 1000}

// gaussianMMD is the squared maximum mean discrepancy of two samples under a sum of
// Gaussian kernels.
func gaussianMMD(x, y [][]float64, weight float64, gradX, gradY [][]float64) float64 {
	between := func(a, b [][]float64, factor float64, gradA, gradB [][]float64) (sum float64) {
		factor /= float64(len(a) * len(b))
		for i, p := range a {
			for j, q := range b {
				distance := 0.0
				for k, v := range p {
					distance += (v - q[k]) * (v - q[k])
				}
				value, slope := 0.0, 0.0
				for _, g := range kernelGammas {
					e := math.Exp(-g * distance)
					value += e
					slope -= g * e
				}
				sum += factor * value
				for k, v := range p {
					d := 2 * weight * factor * slope * (v - q[k])
					gradA[i][k] += d
					gradB[j][k] -= d
				}
			}
		}
		return sum
	}
	return between(x, x, 1, gradX, gradX) + between(y, y, 1, gradY, gradY) + between(x, y, -2, gradX, gradY)
}

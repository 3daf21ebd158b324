package detector

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// spatialMean is the mean of each channel.
type spatialMean struct{}

func (spatialMean) Size(l Layer) int { return l.Channels }

func (spatialMean) Reduce(activation []float32, l Layer, dst []float32) {
	sums := make([]float64, l.Channels)
	for p := 0; p < len(activation); p += l.Channels {
		for c, v := range activation[p:][:l.Channels] {
			sums[c] += float64(v)
		}
	}
	for c, s := range sums {
		dst[c] = float32(s / float64(l.Pixels()))
	}
}

// gramSums are, for p of 1 to powers, the row sums of the Gram matrix of an
// activation's p-th power, as their p-th root:
//
//	sum_j sum_x a_ix^p a_jx^p = sum_x a_ix^p (sum_j a_jx^p)
//
// so that the matrix is never made. Values are powers x channels.
type gramSums struct{ powers int }

func (g gramSums) Size(l Layer) int { return g.powers * l.Channels }

func (g gramSums) Reduce(activation []float32, l Layer, dst []float32) {
	channels := l.Channels
	vector := func(v []float32) blas32.Vector { return blas32.Vector{N: channels, Data: v, Inc: 1} }
	power := append([]float32(nil), activation...)
	row := make([]float32, channels)
	for p := range g.powers {
		if p > 0 {
			for i, v := range activation {
				power[i] *= v
			}
		}
		sums := dst[p*channels:][:channels]
		clear(sums)
		// Rows of pixels first, then their sum: the error of a float32 sum grows with
		// its length.
		for y := range l.Height {
			clear(row)
			for x := range l.Width {
				pixel := vector(power[(y*l.Width+x)*channels:][:channels])
				// No dot product of ones: blas32's depends on where memory begins.
				blas32.Axpy(float32(sum(pixel.Data)), pixel, vector(row))
			}
			blas32.Axpy(1, vector(row), vector(sums))
		}
		for c, v := range sums {
			sums[c] = float32(math.Copysign(math.Pow(math.Abs(float64(v)), 1/float64(p+1)), float64(v)))
		}
	}
}

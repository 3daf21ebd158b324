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

func multiply(v, by []float32) {
	by = by[:len(v)]
	for i := range v {
		v[i] *= by[i]
	}
}

// addScaled adds scale*w to v: by blas32, whose call pays from some channels on and
// which gives the same bits.
func addScaled(v []float32, scale float32, w []float32) {
	if n := len(v); n >= 32 {
		blas32.Axpy(scale, blas32.Vector{N: n, Data: w, Inc: 1}, blas32.Vector{N: n, Data: v, Inc: 1})
		return
	}
	w = w[:len(v)]
	for i := range v {
		v[i] += scale * w[i]
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
	power := append([]float32(nil), activation...)
	row := make([]float32, channels)
	for p := range g.powers {
		sums := dst[p*channels:][:channels]
		clear(sums)
		// Rows of pixels first, then their sum: the error of a float32 sum grows with
		// its length.
		for y := range l.Height {
			clear(row)
			for x := range l.Width {
				at := (y*l.Width + x) * channels
				pixel := power[at:][:channels]
				if p > 0 {
					multiply(pixel, activation[at:][:channels])
				}
				addScaled(row, float32(sum(pixel)), pixel)
			}
			addScaled(sums, 1, row)
		}
		for c, v := range sums {
			sums[c] = float32(math.Copysign(math.Pow(math.Abs(float64(v)), 1/float64(p+1)), float64(v)))
		}
	}
}

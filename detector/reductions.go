package detector

import (
	"math"

	"nac/internal/kernel"
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
	channels, padded := l.Channels, kernel.Pad(l.Channels)
	// The power of a row of pixels, and the row if it is not as the kernel reads it.
	room := kernel.Aligned((2*l.Width + 1) * padded)
	power, rowSums, row := room[:l.Width*padded], room[l.Width*padded:][:padded], room[(l.Width+1)*padded:]
	sums := kernel.Best().Gram()
	args := kernel.GramArgs{Power: &power[0], Out: &rowSums[0], Channels: int64(padded), Pixels: int64(l.Width)}
	clear(dst)
	for y := range l.Height {
		if channels == padded {
			row = activation[y*l.Width*channels:][:l.Width*channels]
		} else {
			for x := range l.Width {
				copy(row[x*padded:], activation[(y*l.Width+x)*channels:][:channels])
			}
		}
		copy(power, row)
		args.In = nil
		for p := range g.powers {
			// Rows of pixels first, then their sum: the error of a float32 sum grows with
			// its length.
			clear(rowSums)
			sums(&args)
			for c, v := range rowSums[:channels] {
				dst[p*channels+c] += v
			}
			args.In = &row[0]
		}
	}
	for i, v := range dst {
		dst[i] = float32(math.Copysign(root(math.Abs(float64(v)), i/channels+1), float64(v)))
	}
}

// root is the p-th root of x, which is not below zero.
func root(x float64, p int) float64 {
	switch p {
	case 1:
		return x
	case 2:
		return math.Sqrt(x)
	case 3:
		return math.Cbrt(x)
	case 4:
		return math.Sqrt(math.Sqrt(x))
	}
	return math.Pow(x, 1/float64(p))
}

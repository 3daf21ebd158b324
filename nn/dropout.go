package nn

import "fmt"

// dropoutOp drops values at random in training and is the identity otherwise.
type dropoutOp struct{ rate float64 }

// Dropout sets each value to zero with the probability rate, in training, and
// scales the others by 1/(1-rate) (Srivastava et al., 2014).
func (g *Graph) Dropout(x *Node, rate float64) *Node {
	if !(rate >= 0 && rate < 1) {
		panic(fmt.Sprintf("nn: dropout rate %v", rate))
	}
	return g.add(dropoutOp{rate}, x.shape, x)
}

type dropoutSeed struct{ seed uint64 }

// dropoutJob decides by a hash of the seed and the value's place, so that the
// way back drops the same values, whoever computes them.
type dropoutJob struct {
	op             dropoutOp
	node           int
	seed           *dropoutSeed
	from, to, mask *buffer
	accumulate     bool
}

func (j *dropoutJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

// splitMix is the finalizer of Steele et al.'s SplitMix64.
func splitMix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (j *dropoutJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.from.geom
	base := splitMix(splitMix(j.seed.seed+uint64(j.node)) + uint64(image))
	limit := uint64(j.op.rate * (1 << 53))
	scale := float32(1 / (1 - j.op.rate))
	for y := range g.height {
		from, to := ws.row(j.from, image, y), ws.row(j.to, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for i, v := range from {
			if v *= scale; splitMix(base+uint64(y*len(from)+i))>>11 < limit {
				v = 0
			}
			switch {
			case !j.accumulate:
				to[i] = v
			case mask == nil || mask[i] > 0:
				to[i] += v
			}
		}
	}
}

package nn

import (
	"fmt"
	"math"
)

// layerNormOp normalises the channels of each pixel by themselves.
type layerNormOp struct {
	weight, bias []float32
	eps          float64
}

// LayerNorm is layer normalisation over the channels of each pixel (Ba et al.,
// 2016; as ConvNeXt's LayerNorm2d): (x - mean) / sqrt(variance + eps) * weight +
// bias, with the variance of the whole, not of a sample.
func (g *Graph) LayerNorm(x *Node, weight, bias []float32, eps float64) *Node {
	if len(weight) != x.shape.C || len(bias) != x.shape.C {
		panic(fmt.Sprintf("nn: layer norm of %v by %d weights and %d biases", x.shape, len(weight), len(bias)))
	}
	return g.add(layerNormOp{weight, bias, eps}, x.shape, x)
}

// moments returns the mean of x and the reciprocal of its deviation.
func (op *layerNormOp) moments(x []float32) (mean, inverse float64) {
	sum := 0.0
	for _, v := range x {
		sum += float64(v)
	}
	mean = sum / float64(len(x))
	square := 0.0
	for _, v := range x {
		d := float64(v) - mean
		square += d * d
	}
	return mean, 1 / math.Sqrt(square/float64(len(x))+op.eps)
}

type layerNormJob struct {
	layerNormOp
	in, out *buffer
}

func (j *layerNormJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *layerNormJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.out.geom
	for y := range g.height {
		in, out := ws.row(j.in, image, y), ws.row(j.out, image, y)
		for p := 0; p < len(out); p += g.stride {
			x, to := in[p:][:g.channels], out[p:][:g.stride]
			mean, inverse := j.moments(x)
			weight, bias := j.weight[:len(x)], j.bias[:len(x)]
			for c, v := range x {
				to[c] = float32((float64(v)-mean)*inverse)*weight[c] + bias[c]
			}
			clear(to[g.channels:])
		}
	}
}

// layerNormBackJob adds the gradient: with n the normalised input and d the
// output's gradient times the weight, (d - mean(d) - n*mean(d*n)) / deviation.
type layerNormBackJob struct {
	layerNormOp
	from, to, act, mask *buffer
}

func (j *layerNormBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.act, j.mask} }

func (j *layerNormBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.to.geom
	for y := range g.height {
		from, to, act := ws.row(j.from, image, y), ws.row(j.to, image, y), ws.row(j.act, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p := 0; p < len(to); p += g.stride {
			x, grad, dst := act[p:][:g.channels], from[p:][:g.channels], to[p:][:g.channels]
			weight := j.weight[:len(x)]
			mean, inverse := j.moments(x)
			sum, product := 0.0, 0.0
			for c, v := range grad {
				d := float64(v) * float64(weight[c])
				sum += d
				product += d * (float64(x[c]) - mean) * inverse
			}
			sum /= float64(len(x))
			product /= float64(len(x))
			for c, v := range grad {
				if mask == nil || mask[p+c] > 0 {
					n := (float64(x[c]) - mean) * inverse
					dst[c] += float32((float64(v)*float64(weight[c]) - sum - n*product) * inverse)
				}
			}
		}
	}
}

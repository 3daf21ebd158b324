package nn

import "math"

// layerNormGradJob sums a layer norm's weight and bias gradients, a task a slice
// of the images, into partial: [slice][2][channel].
type layerNormGradJob struct {
	act, grad *buffer
	eps       float64
	partial   []float64
}

func (j *layerNormGradJob) uses() []*buffer { return []*buffer{j.act, j.grad} }

func (j *layerNormGradJob) tasks(int, int) int { return sumSlices }

func (j *layerNormGradJob) run(ws *workspace, n, task, _ int, _ *scratch) {
	g := j.act.geom
	weight := j.partial[task*2*g.channels:][:g.channels]
	bias := j.partial[(task*2+1)*g.channels:][:g.channels]
	clear(weight)
	clear(bias)
	first, last := sumSlice(n, task)
	for image := first; image < last; image++ {
		for y := range g.height {
			act, grad := ws.row(j.act, image, y), ws.row(j.grad, image, y)
			for p := 0; p < len(act); p += g.stride {
				x, d := act[p:][:g.channels], grad[p:][:g.channels]
				mean, square := 0.0, 0.0
				for _, v := range x {
					mean += float64(v)
				}
				mean /= float64(len(x))
				for _, v := range x {
					square += (float64(v) - mean) * (float64(v) - mean)
				}
				inverse := 1 / math.Sqrt(square/float64(len(x))+j.eps)
				for c, v := range d {
					weight[c] += float64(v) * (float64(x[c]) - mean) * inverse
					bias[c] += float64(v)
				}
			}
		}
	}
}

func (c *trainCompiler) layerNormGradient(op layerNormOp, x, g *buffer) {
	weight, bias := c.parameter(op.weight), c.parameter(op.bias)
	channels := x.geom.channels
	j := &layerNormGradJob{x, g, op.eps, make([]float64, sumSlices*2*channels)}
	c.emit(j)
	c.once(func(*workspace, int) {
		for ch := range channels {
			w, b := 0.0, 0.0
			for s := range sumSlices {
				w += j.partial[s*2*channels+ch]
				b += j.partial[(s*2+1)*channels+ch]
			}
			weight[ch], bias[ch] = float32(w), float32(b)
		}
	})
}

// tokensGradJob sums the gradients of a class token and of positions over the
// images; a task is a token.
type tokensGradJob struct {
	grad            *buffer
	class, position []float32
}

func (j *tokensGradJob) uses() []*buffer { return []*buffer{j.grad} }

func (j *tokensGradJob) tasks(int, int) int { return j.grad.geom.pixels() }

func (j *tokensGradJob) run(ws *workspace, n, task, _ int, _ *scratch) {
	g := j.grad.geom
	for c := range g.channels {
		sum := 0.0
		for image := range n {
			sum += float64(ws.pixel(j.grad, image, task/g.width, task%g.width)[c])
		}
		if j.position != nil {
			j.position[task*g.channels+c] = float32(sum)
		}
		if task == 0 && j.class != nil {
			j.class[c] = float32(sum)
		}
	}
}

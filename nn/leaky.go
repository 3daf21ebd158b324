package nn

import "fmt"

// leakyOp is x where x is above zero and slope*x elsewhere.
type leakyOp struct{ slope float32 }

// LeakyReLU is x above zero and slope*x elsewhere (Maas et al., 2013).
func (g *Graph) LeakyReLU(x *Node, slope float32) *Node {
	if !(slope > 0 && slope < 1) {
		panic(fmt.Sprintf("nn: leaky ReLU of slope %v", slope))
	}
	return g.add(leakyOp{slope}, x.shape, x)
}

type leakyJob struct {
	leakyOp
	in, out *buffer
}

func (j *leakyJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *leakyJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	for y := range j.in.geom.height {
		in, out := ws.row(j.in, image, y), ws.row(j.out, image, y)
		for i, v := range in {
			if !(v > 0) {
				v *= j.slope
			}
			out[i] = v
		}
	}
}

type leakyBackJob struct {
	leakyOp
	from, to, act, mask *buffer
}

func (j *leakyBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.act, j.mask} }

func (j *leakyBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	for y := range j.to.geom.height {
		from, to, act := ws.row(j.from, image, y), ws.row(j.to, image, y), ws.row(j.act, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for i, v := range from {
			if !(act[i] > 0) {
				v *= j.slope
			}
			if mask == nil || mask[i] > 0 {
				to[i] += v
			}
		}
	}
}

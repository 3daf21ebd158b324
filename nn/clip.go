package nn

import (
	"fmt"
	"math"
)

// clipOp is min(max(x, 0), ceiling).
type clipOp struct{ ceiling float32 }

// Clip is min(max(x, 0), ceiling); ReLU6 has the ceiling 6. A convolution takes it
// along. Its gradient passes strictly between 0 and the ceiling, as in PyTorch.
func (g *Graph) Clip(x *Node, ceiling float32) *Node {
	if !(ceiling > 0) || math.IsInf(float64(ceiling), 0) {
		panic(fmt.Sprintf("nn: clip at %v", ceiling))
	}
	return g.add(clipOp{ceiling}, x.shape, x)
}

// clipBackJob masks a gradient in place by what was clipped.
type clipBackJob struct {
	grad, act *buffer
	ceiling   float32
}

func (j *clipBackJob) uses() []*buffer { return []*buffer{j.grad, j.act} }

func (j *clipBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	for y := range j.act.geom.height {
		grad, act := ws.row(j.grad, image, y), ws.row(j.act, image, y)
		grad = grad[:len(act)]
		for i, v := range act {
			if !(v > 0 && v < j.ceiling) {
				grad[i] = 0
			}
		}
	}
}

package nn

import "nac/internal/kernel"

// pairJob rounds a whole activation or gradient, borders too, to pairs of bfloat16.
type pairJob struct {
	up       func(*kernel.PairArgs)
	from, to *buffer
}

// pairUp plans a pairJob and returns its result.
func (c *compiler) pairUp(from *buffer) *buffer {
	g := *from.geom
	g.stride /= 2
	g.channels = g.stride
	to := &buffer{geom: &g, pairs: true}
	c.emit(&pairJob{c.kernel.PairUp(), from, to})
	return to
}

func (j *pairJob) uses() []*buffer { return []*buffer{j.from, j.to} }

// rows is the number of an image's rows, borders included.
func (j *pairJob) rows() int { return j.from.geom.image() / j.from.geom.row() }

func (j *pairJob) parts(workers int) int { return min(j.rows(), workers) }

func (j *pairJob) tasks(n, workers int) int { return n * j.parts(workers) }

func (j *pairJob) run(ws *workspace, _, task, workers int, s *scratch) {
	parts := j.parts(workers)
	image, part := task/parts, task%parts
	first, last := part*j.rows()/parts, (part+1)*j.rows()/parts
	from, to := j.from.geom, j.to.geom
	a := &s.pairs
	*a = kernel.PairArgs{
		In:    &ws.slabs[j.from.slab][image*from.image()+first*from.row()],
		Out:   &ws.slabs[j.to.slab][image*to.image()+first*to.row()],
		Count: int64((last - first) * from.row()),
	}
	j.up(a)
}

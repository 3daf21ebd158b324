package nn

import "nac/internal/kernel"

// geluJob is GELU by itself, or its gradient in place: out *= GELU'(in). The
// convolution in front does the same in passing if it can; see convJob.after.
type geluJob struct {
	divided
	gelu    func(*kernel.GELUArgs)
	in, out *buffer
}

func (j *geluJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *geluJob) run(ws *workspace, _, task, workers int, s *scratch) {
	g := j.out.geom
	j.runs(g, task, workers, func(at, pixels int) {
		j.apply(ws, at, 1, pixels*g.stride, 0, s)
	})
}

// apply does rows of channels from the place at on, one every step floats.
func (j *geluJob) apply(ws *workspace, at, rows, channels, step int, s *scratch) {
	s.gelu = kernel.GELUArgs{
		In: &ws.slabs[j.in.slab][at], Out: &ws.slabs[j.out.slab][at],
		Rows: int64(rows), Channels: int64(channels), Step: 4 * int64(step),
	}
	j.gelu(&s.gelu)
}

// geluForward plans v = GELU(x).
func (c *compiler) geluForward(x, v *value) {
	j := &geluJob{gelu: c.kernel.Transformer().GELU, in: x.act, out: v.act}
	i := len(c.jobs) - 1
	for ; i > 0; i-- { // jobs that only read x
		p, pools := c.jobs[i].(*poolJob)
		o, copies := c.jobs[i].(*copyJob)
		if !(pools && p.from == x.act) && !(copies && o.in == x.act) {
			break
		}
	}
	// What nobody else reads, nor the backward pass, is overwritten.
	if i == len(c.jobs)-1 && !v.wantGrad && c.readers(x) == 1 {
		v.act = x.act
		j.out = x.act
	}
	c.emitGELU(j, i, x.act)
}

// geluContribution contributes the gradient of v = GELU(x) to x.
func (c *compiler) geluContribution(v, x *value) {
	if x.written || x.pending != nil || x.mask() != nil || v.borrowed {
		c.prepare(x)
		c.emit(&pointwiseBackJob{v.grad, x.grad, x.act, x.mask(), functions[GELU].gradient})
		return
	}
	// Nobody else needs v's gradient: it becomes x's.
	x.grad, x.written = v.grad, true
	c.emitGELU(&geluJob{gelu: c.kernel.Transformer().GELUBack, in: x.act, out: x.grad}, len(c.jobs)-1, x.grad)
}

// emitGELU lets the i-th job take j along if it is a convolution that wrote b in
// the order of its pixels in memory.
func (c *compiler) emitGELU(j *geluJob, i int, b *buffer) {
	g := b.geom
	if conv, ok := c.jobs[i].(*convJob); ok && conv.out == b && conv.after == nil && j.out.geom == g &&
		conv.pixels() == g.pixels() && g.image() == g.pixels()*g.stride {
		conv.after = j
		return
	}
	c.emit(j)
}

// readers counts the stages that read v.
func (c *compiler) readers(v *value) int {
	n := 0
	for _, s := range c.stages {
		for _, in := range append(s.in, s.res) {
			if in == v {
				n++
			}
		}
	}
	return n
}

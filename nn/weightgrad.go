package nn

import "nac/internal/kernel"

// convGradJob is the weight gradient of a convolution: for each tap and input
// channel (a row) and each output channel the sum over all pixels of the input
// there times the output's gradient. A task is some rows by a panel of output
// channels, so no sum is divided among tasks.
type convGradJob struct {
	in, grad *buffer
	weight   []float32 // its gradient, OIHW
	outer    kernel.Outer
	tapOff   []int64 // bytes, in OIHW's order
	cin, per int     // input and output channels of a group
	cout     int
	rows     int // the most of a panel
	panels   int
	// A run is a row of an image's output, or, of outputs of one pixel, all images.
	runIn, runGrad   []int64
	pixels           int // of a run; 0 for all images
	inStep, gradStep int64
}

func newConvGradJob(k *kernel.Set, c convOp, in, grad *buffer, batch int, weight []float32) *convGradJob {
	ig, og := in.geom, grad.geom
	groups := c.k.groups()
	j := &convGradJob{
		in: in, grad: grad, weight: weight, outer: k.Outer(og.stride),
		cin: ig.channels / groups, per: og.channels / groups, cout: og.channels,
		pixels: og.width, inStep: 4 * int64(c.k.Stride*ig.stride), gradStep: 4 * int64(og.stride),
	}
	if groups > 1 { // wider than a group would be wasted
		j.outer = k.Outer(kernel.Lanes)
	}
	for ky := range c.k.Size {
		for kx := range c.k.Size {
			j.tapOff = append(j.tapOff, 4*int64((ky-c.k.Pad)*ig.row()+(kx-c.k.Pad)*ig.stride))
		}
	}
	j.panels = og.stride / j.outer.Width
	for p := range j.panels {
		first, last := j.groupsOf(p)
		j.rows = max(j.rows, (last-first)*j.cin*len(j.tapOff))
	}
	if og.pixels() == 1 {
		j.pixels = 0
		j.inStep, j.gradStep = 4*int64(ig.image()), 4*int64(og.image())
		j.runIn, j.runGrad = []int64{4 * int64(ig.offset(0, 0))}, []int64{4 * int64(og.offset(0, 0))}
		return j
	}
	for image := range batch {
		for y := range og.height {
			j.runIn = append(j.runIn, 4*int64(image*ig.image()+ig.offset(y*c.k.Stride, 0)))
			j.runGrad = append(j.runGrad, 4*int64(image*og.image()+og.offset(y, 0)))
		}
	}
	return j
}

func (j *convGradJob) uses() []*buffer { return []*buffer{j.in, j.grad} }

// groupsOf returns the groups from the first to before the last that a panel's
// output channels belong to.
func (j *convGradJob) groupsOf(panel int) (first, last int) {
	w := j.outer.Width
	return min(panel*w, j.cout-1) / j.per, min((panel+1)*w-1, j.cout-1)/j.per + 1
}

// gradTiles is the most tiles of rows of a task, whose sums stay in the nearest
// cache; gradBytes is what a block of a panel's gradients may take, to stay in
// the next.
const (
	gradTiles = 16
	gradBytes = 128 << 10
)

func (j *convGradJob) split(workers int) (tiles, groups int) {
	total := (j.rows + kernel.Rows - 1) / kernel.Rows
	tiles = min(max(total*j.panels/(4*workers), 1), gradTiles)
	return tiles, (total + tiles - 1) / tiles
}

func (j *convGradJob) tasks(_, workers int) int {
	_, groups := j.split(workers)
	return groups * j.panels
}

// gradScratch is a worker's room for sums.
type gradScratch struct {
	sums []float32
	off  [gradTiles][kernel.Rows]int64
	args kernel.OuterArgs
}

func (s *gradScratch) grow(jobs []job) {
	widest := 0
	for _, j := range jobs {
		if c, ok := j.(*convGradJob); ok {
			widest = max(widest, c.outer.Width)
		}
	}
	s.sums = kernel.Aligned(gradTiles * kernel.Rows * widest)
}

func (j *convGradJob) run(ws *workspace, n, task, workers int, s *scratch) {
	most, groups := j.split(workers)
	panel, group := task/groups, task%groups
	firstGroup, lastGroup := j.groupsOf(panel)
	taps := len(j.tapOff)
	first := group * most * kernel.Rows
	last := min(first+most*kernel.Rows, (lastGroup-firstGroup)*j.cin*taps)
	if first >= last {
		return
	}
	tiles := (last - first + kernel.Rows - 1) / kernel.Rows
	sc := &s.grad
	for t := range tiles {
		for r := range kernel.Rows {
			row := min(first+t*kernel.Rows+r, last-1) // fill the last tile with its last row
			sc.off[t][r] = j.tapOff[row%taps] + 4*int64(firstGroup*j.cin+row/taps)
		}
	}
	w := j.outer.Width
	sums := sc.sums[:tiles*kernel.Rows*w]
	clear(sums)
	a := &sc.args
	*a = kernel.OuterArgs{
		In: &ws.slabs[j.in.slab][0], Grad: &ws.slabs[j.grad.slab][panel*w], Out: &sums[0], InOff: &sc.off[0],
		RunIn: &j.runIn[0], RunGrad: &j.runGrad[0], Runs: 1, Pixels: int64(j.pixels),
		InStep: j.inStep, GradStep: j.gradStep, Count: int64(tiles), Flags: kernel.Accumulate,
	}
	block := max(1, gradBytes/(4*w*max(j.pixels, 1)))
	switch {
	case j.pixels == 0:
		for image := 0; image < n; image += block {
			a.Pixels = int64(min(block, n-image))
			j.outer.Run(a)
			a.In = &ws.slabs[j.in.slab][min(image+block, n-1)*j.in.geom.image()]
			a.Grad = &ws.slabs[j.grad.slab][min(image+block, n-1)*j.grad.geom.image()+panel*w]
		}
	default:
		runs := n * j.grad.geom.height
		for run := 0; run < runs; run += block {
			a.RunIn, a.RunGrad, a.Runs = &j.runIn[run], &j.runGrad[run], int64(min(block, runs-run))
			j.outer.Run(a)
		}
	}
	whole := j.cin * taps
	for o := panel * w; o < min((panel+1)*w, j.cout); o++ {
		shift := (o/j.per - firstGroup) * whole // the first row of o's own group
		to := j.weight[o*whole:][:whole]
		for row := max(first, shift); row < min(last, shift+whole); row++ {
			to[row-shift] = sums[(row-first)*w+o-panel*w]
		}
	}
}

// sumSlices is into how many parts a sum over a batch is divided: few enough to add
// up quickly, and as many whatever the number of workers.
const sumSlices = 16

// sumSlice returns the images of a part.
func sumSlice(n, part int) (first, last int) { return part * n / sumSlices, (part + 1) * n / sumSlices }

// sumsJob sums u-k and (u-k)*(v-l) over the pixels of all images, channel by channel,
// into partial: [slice][sum or product][channel]. A nil k or l is v's first
// pixel.
type sumsJob struct {
	moments func(*kernel.MomentsArgs)
	u, v    *buffer
	k, l    []float32
	partial []float64
	// Of v, for the taps of a depthwise convolution: floats from the pixel that
	// belongs to u's, and steps in pixels.
	off, step int
}

func newSumsJob(k *kernel.Set, u, v *buffer, first, second []float32) *sumsJob {
	return &sumsJob{moments: k.Moments(), u: u, v: v, k: first, l: second, partial: make([]float64, sumSlices*2*u.geom.stride), step: 1}
}

func (j *sumsJob) uses() []*buffer { return []*buffer{j.u, j.v} }

func (j *sumsJob) tasks(int, int) int { return sumSlices }

func (j *sumsJob) run(ws *workspace, n, task, _ int, s *scratch) {
	ug, vg := j.u.geom, j.v.geom
	partial := j.partial[task*2*ug.stride:][:2*ug.stride]
	clear(partial)
	k, l := j.k, j.l
	if k == nil {
		k = ws.pixel(j.v, 0, 0, 0)
	}
	if l == nil {
		l = ws.pixel(j.v, 0, 0, 0)
	}
	sums, products := s.sums[:ug.stride], s.totals[:ug.stride]
	first, last := sumSlice(n, task)
	u, v := ws.slabs[j.u.slab], ws.slabs[j.v.slab]
	a := &s.moments
	*a = kernel.MomentsArgs{
		S: &sums[0], T: &products[0], K: &k[0], L: &l[0], Channels: int64(ug.stride), Pixels: int64(ug.width),
		UStep: 4 * int64(ug.stride), VStep: 4 * int64(j.step*vg.stride),
	}
	for image := first; image < last; image++ {
		clear(sums)
		clear(products)
		for y := range ug.height {
			a.U = &u[image*ug.image()+ug.offset(y, 0)]
			a.V = &v[image*vg.image()+vg.offset(y*j.step, 0)+j.off]
			j.moments(a)
		}
		for c, x := range sums {
			partial[c] += float64(x)
			partial[ug.stride+c] += float64(products[c])
		}
	}
}

// total returns the two sums of a channel.
func (j *sumsJob) total(c int) (sum, product float64) {
	stride := j.u.geom.stride
	for p := range sumSlices {
		sum += j.partial[p*2*stride+c]
		product += j.partial[p*2*stride+stride+c]
	}
	return sum, product
}

// onceJob is what one worker does between two passes over the images.
type onceJob struct {
	buffers []*buffer
	do      func(ws *workspace, n int)
}

func (j *onceJob) uses() []*buffer                                        { return j.buffers }
func (j *onceJob) tasks(int, int) int                                     { return 1 }
func (j *onceJob) run(ws *workspace, n, _, _ int, _ *scratch)             { j.do(ws, n) }
func (c *trainCompiler) once(do func(ws *workspace, n int), b ...*buffer) { c.emit(&onceJob{b, do}) }

// biasGradient sums a gradient over pixels.
func (c *trainCompiler) biasGradient(g *buffer, grad []float32) {
	zeros := kernel.Aligned(g.geom.stride)
	j := newSumsJob(c.kernel, g, g, zeros, zeros)
	c.emit(j)
	c.once(func(*workspace, int) {
		for i := range grad {
			sum, _ := j.total(i)
			grad[i] = float32(sum)
		}
	})
}

// depthwiseGradient sums a gradient times the input at each tap.
func (c *trainCompiler) depthwiseGradient(op depthwiseOp, x, g *buffer) {
	zeros := kernel.Aligned(g.geom.stride)
	weight, bias := c.parameter(op.weight), c.parameter(op.bias)
	taps := op.k.Size * op.k.Size
	var sums []*sumsJob
	for t := range taps {
		j := newSumsJob(c.kernel, g, x, zeros, zeros)
		j.step = op.k.Stride
		j.off = (t/op.k.Size-op.k.Pad)*x.geom.row() + (t%op.k.Size-op.k.Pad)*x.geom.stride
		sums = append(sums, j)
		c.emit(j)
	}
	c.once(func(*workspace, int) {
		for t, j := range sums {
			for ch := range g.geom.channels {
				sum, product := j.total(ch)
				weight[ch*taps+t] = float32(product)
				if bias != nil && t == 0 {
					bias[ch] = float32(sum)
				}
			}
		}
	})
}

package nn

import "nac/internal/kernel"

// convGradJob is the weight gradient of a convolution: for each tap and input
// channel and each output channel the sum over all pixels of the input there times the
// output's gradient. It goes through the images block by block, of which it first
// copies what it multiplies: slices of the input's channels and panels of the
// gradient's, each without gaps, so that a slice and a panel stay in the nearest cache
// while all their products are summed. A task is some slices by some panels, so no sum
// is divided among tasks.
type convGradJob struct {
	in, grad  *buffer
	weight    []float32 // its gradient, OIHW
	outer     kernel.Outer
	shape     ConvShape
	cin, per  int // input and output channels of a group
	cout      int
	depth     int // the most channels of a slice
	slices    int // of a panel
	panels    int
	step      int // from one output pixel's input to the next's, in copied pixels
	rows      int // of an image's output in a block
	images    int // of a block
	inRows    int // of an image's copied input
	inCols    int
	tapOff    []int64 // bytes, in OIHW's order
	runIn     []int64 // bytes, of each row of a block's output
	runGrad   []int64
	panelSize int // floats of a panel's copy
	sliceSize int
	sumsSize  int // floats of the sums of a slice and a panel
}

// gradBytes is what the copies of a slice and a panel may take, to stay in the nearest
// cache.
const gradBytes = 28 << 10

// pointChannels are the most channels of a slice of a 1x1 convolution, which has fewer
// products for each of them.
const pointChannels = 64

// newConvGradJob plans the weight gradient of c; outer is kernel.Set's.
func newConvGradJob(outer func(channels int) kernel.Outer, c convOp, in, grad *buffer, batch int, weight []float32) *convGradJob {
	ig, og, size := in.geom, grad.geom, c.k.Size
	groups := c.k.groups()
	j := &convGradJob{
		in: in, grad: grad, weight: weight, outer: outer(og.stride), shape: c.k,
		cin: ig.channels / groups, per: og.channels / groups, cout: og.channels, step: c.k.Stride,
	}
	if groups > 1 { // wider than a group would be wasted
		j.outer = outer(kernel.Lanes)
	}
	w := j.outer.Width
	j.panels = og.stride / w
	channels := 0
	for p := range j.panels {
		_, count := j.channels(p)
		channels = max(channels, count)
	}
	j.depth = min(kernel.Lanes, ig.stride)
	if size == 1 {
		j.depth = min(pointChannels, ig.stride)
		j.step = 1 // the pixels between are not copied
	}
	j.slices = (channels + j.depth - 1) / j.depth

	copied := func(outputs int) int { return j.step*(outputs-1) + size }
	bytes := func(rows int) int {
		return 4 * (copied(rows)*copied(og.width)*j.depth + rows*og.width*w)
	}
	bands := 1
	for bands < og.height && bytes((og.height+bands-1)/bands) > gradBytes {
		bands++
	}
	j.rows, j.images = (og.height+bands-1)/bands, 1
	if bands == 1 {
		j.images = min(max(gradBytes/bytes(og.height), 1), batch)
	}
	j.inRows, j.inCols = copied(j.rows), copied(og.width)
	for ky := range size {
		for kx := range size {
			j.tapOff = append(j.tapOff, 4*int64((ky*j.inCols+kx)*j.depth))
		}
	}
	for image := range j.images {
		for y := range j.rows {
			j.runIn = append(j.runIn, 4*int64((image*j.inRows+y*j.step)*j.inCols*j.depth))
			j.runGrad = append(j.runGrad, 4*int64((image*j.rows+y)*og.width*w))
		}
	}
	j.panelSize = j.images * j.rows * og.width * w
	j.sliceSize = j.images * j.inRows * j.inCols * j.depth
	j.sumsSize = j.tiles(j.depth) * kernel.Rows * w
	return j
}

func (j *convGradJob) uses() []*buffer { return []*buffer{j.in, j.grad} }

// groupsOf returns the groups from the first to before the last that a panel's
// output channels belong to.
func (j *convGradJob) groupsOf(panel int) (first, last int) {
	w := j.outer.Width
	return min(panel*w, j.cout-1) / j.per, min((panel+1)*w-1, j.cout-1)/j.per + 1
}

// channels returns the first of a panel's input channels and their number.
func (j *convGradJob) channels(panel int) (first, count int) {
	a, b := j.groupsOf(panel)
	return a * j.cin, (b - a) * j.cin
}

// tiles returns the tiles of the sums of so many channels.
func (j *convGradJob) tiles(channels int) int {
	return (channels*j.shape.Size*j.shape.Size + kernel.Rows - 1) / kernel.Rows
}

// gradCopies and gradSums are the most floats of a task's copies, which should stay in
// the second-level cache, and of its sums, of which a block goes through each but once.
const (
	gradCopies = 64 << 10
	gradSums   = 256 << 10
)

// split returns how many slices and panels make a task. Every task copies its slices
// and panels, so it should have many of both; but the workers want two tasks each.
func (j *convGradJob) split(workers int) (slices, panels int) {
	slices, panels = j.slices, j.panels
	if j.shape.groups() > 1 {
		panels = 1 // each has an input of its own
	}
	tasks := func() int { return (j.slices + slices - 1) / slices * ((j.panels + panels - 1) / panels) }
	for slices*panels > 1 && (tasks() < 2*workers || slices*panels*j.sumsSize > gradSums ||
		slices*j.sliceSize+panels*j.panelSize > gradCopies) {
		if panels == 1 || slices > 1 && slices*j.sliceSize > panels*j.panelSize {
			slices = (slices + 1) / 2
		} else {
			panels = (panels + 1) / 2
		}
	}
	return slices, panels
}

func (j *convGradJob) tasks(_, workers int) int {
	slices, panels := j.split(workers)
	return (j.slices + slices - 1) / slices * ((j.panels + panels - 1) / panels)
}

// gradScratch is a worker's room for copies and sums.
type gradScratch struct {
	sums, in, grad []float32
	off            [][kernel.Rows]int64
	args           kernel.OuterArgs
	// For winogradGradJob.
	pairs []float32
	taps  []int64
	zero  int64
	tile  kernel.TileArgs
	// inOffsets and gradOffsets are a block's patches.
	inOffsets, gradOffsets [winogradGradPatches]int64
}

// need makes room for so many floats of input, gradient and sums, and tiles.
func (s *gradScratch) need(in, grad, sums, tiles int) {
	for _, room := range []struct {
		floats *[]float32
		n      int
	}{{&s.in, in}, {&s.grad, grad}, {&s.sums, sums}} {
		if len(*room.floats) < room.n {
			*room.floats = kernel.Aligned(room.n)
		}
	}
	if len(s.off) < tiles {
		s.off = make([][kernel.Rows]int64, tiles)
	}
}

func (s *gradScratch) grow(jobs []job) {
	for _, j := range jobs {
		switch j := j.(type) {
		case *convGradJob:
			slices, panels := j.split(1) // no task is larger
			s.need(slices*j.sliceSize, panels*j.panelSize, slices*panels*j.sumsSize, j.tiles(j.depth))
		case *winogradGradJob:
			s.growWinograd(j)
		}
	}
}

func (j *convGradJob) run(ws *workspace, n, task, workers int, s *scratch) {
	perTask, panelsPerTask := j.split(workers)
	columns := (j.slices + perTask - 1) / perTask
	firstSlice, firstPanel := task%columns*perTask, task/columns*panelsPerTask
	lastSlice, lastPanel := min(firstSlice+perTask, j.slices), min(firstPanel+panelsPerTask, j.panels)
	first, count := j.channels(firstPanel)
	sc, og, w := &s.grad, j.grad.geom, j.outer.Width
	sums := sc.sums[:(lastSlice-firstSlice)*(lastPanel-firstPanel)*j.sumsSize]
	clear(sums)
	a := &sc.args
	*a = kernel.OuterArgs{
		InOff: &sc.off[0], RunIn: &j.runIn[0], RunGrad: &j.runGrad[0],
		InStep: 4 * int64(j.step*j.depth), GradStep: 4 * int64(w), Flags: kernel.Accumulate,
	}
	for image := 0; image < n; image += j.images {
		images := min(j.images, n-image)
		for y := 0; y < og.height; y += j.rows {
			rows := min(j.rows, og.height-y)
			for p := firstPanel; p < lastPanel; p++ {
				j.copyGrad(sc.grad[(p-firstPanel)*j.panelSize:], ws, image, images, y, rows, p*w)
			}
			a.Runs, a.Pixels = int64(images*rows), int64(og.width)
			if j.shape.Size == 1 { // one run after the other
				a.Runs, a.Pixels = 1, a.Runs*a.Pixels
			}
			to := sums
			for slice := firstSlice; slice < lastSlice; slice++ {
				in := sc.in[(slice-firstSlice)*j.sliceSize:]
				channels := min(j.depth, count-slice*j.depth)
				if channels <= 0 { // another panel has more
					break
				}
				j.copyInput(in, ws, image, images, y, rows, first+slice*j.depth, channels)
				a.In, a.Count = &in[0], int64(j.offsets(sc.off, channels))
				for p := firstPanel; p < lastPanel; p++ {
					a.Grad, a.Out = &sc.grad[(p-firstPanel)*j.panelSize], &to[0]
					j.outer.Run(a)
					to = to[j.sumsSize:]
				}
			}
		}
	}
	for slice := firstSlice; slice < lastSlice; slice++ {
		for p := firstPanel; p < lastPanel; p++ {
			j.store(sums, slice, p)
			sums = sums[j.sumsSize:]
		}
	}
}

// copyGrad copies a panel, from a lane on, of the gradient of a block.
func (j *convGradJob) copyGrad(dst []float32, ws *workspace, image, images, y, rows, lane int) {
	g, w := j.grad.geom, j.outer.Width
	src := ws.slabs[j.grad.slab]
	for i := range images {
		for r := range rows {
			from := src[(image+i)*g.image()+g.offset(y+r, 0)+lane:]
			copyPixels(dst[(i*j.rows+r)*g.width*w:], from, g.width, w, w, g.stride)
		}
	}
}

// copyInput copies a slice of the input of a block.
func (j *convGradJob) copyInput(dst []float32, ws *workspace, image, images, y, rows, channel, channels int) {
	g, k := j.in.geom, j.shape
	src := ws.slabs[j.in.slab]
	apart := k.Stride / j.step // of what is copied
	if channels%kernel.Lanes != 0 && channel+j.depth <= g.stride {
		channels = j.depth // the next ones do not matter, and whole vectors are faster
	}
	for i := range images {
		for r := range j.step*(rows-1) + k.Size {
			from := src[(image+i)*g.image()+g.offset(y*k.Stride+r*apart-k.Pad, -k.Pad)+channel:]
			copyPixels(dst[(i*j.inRows+r)*j.inCols*j.depth:], from, j.inCols, channels, j.depth, apart*g.stride)
		}
	}
}

// copyPixels copies the first channels of pixels that lie so many floats apart.
func copyPixels(dst, src []float32, pixels, channels, dstStep, srcStep int) {
	if channels == dstStep && dstStep == srcStep {
		copy(dst[:pixels*channels], src)
		return
	}
	if channels%kernel.Lanes != 0 {
		for p := range pixels {
			copy(dst[p*dstStep:][:channels], src[p*srcStep:])
		}
		return
	}
	for p := range pixels {
		to, from := dst[p*dstStep:][:channels], src[p*srcStep:][:channels]
		for len(to) >= kernel.Lanes && len(from) >= kernel.Lanes {
			// Sixteen bytes are a move, where more would be a call.
			*(*[4]float32)(to) = *(*[4]float32)(from)
			*(*[4]float32)(to[4:]) = *(*[4]float32)(from[4:])
			*(*[4]float32)(to[8:]) = *(*[4]float32)(from[8:])
			*(*[4]float32)(to[12:]) = *(*[4]float32)(from[12:])
			to, from = to[kernel.Lanes:], from[kernel.Lanes:]
		}
	}
}

// offsets fills in where the rows of sums of so many channels read, a tap's channels
// one after the other, and returns the number of tiles.
func (j *convGradJob) offsets(off [][kernel.Rows]int64, channels int) int {
	tiles := j.tiles(channels)
	last := channels*len(j.tapOff) - 1
	tap, channel := 0, 0
	for row := range tiles * kernel.Rows {
		off[row/kernel.Rows][row%kernel.Rows] = j.tapOff[tap] + 4*int64(channel)
		if row >= last { // fill the last tile with its last row
			continue
		}
		if channel++; channel == channels {
			tap, channel = tap+1, 0
		}
	}
	return tiles
}

// store puts the sums of a slice and a panel where they belong.
func (j *convGradJob) store(sums []float32, slice, panel int) {
	w, taps := j.outer.Width, len(j.tapOff)
	whole := j.cin * taps
	firstGroup, _ := j.groupsOf(panel)
	_, count := j.channels(panel)
	first := slice * j.depth
	channels := min(j.depth, count-first)
	for o := panel * w; o < min((panel+1)*w, j.cout); o++ {
		shift := (o/j.per - firstGroup) * j.cin // the first channel of o's own group
		to := j.weight[o*whole:][:whole]
		for c := max(first, shift); c < min(first+channels, shift+j.cin); c++ {
			for t := range taps {
				to[(c-shift)*taps+t] = sums[(t*channels+c-first)*w+o-panel*w]
			}
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

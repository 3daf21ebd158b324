package nn

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"nac/internal/kernel"
)

// epilogue is what a convolution does at its last write.
type epilogue struct {
	bias      []float32 // nil if there is none
	res, mask *buffer   // nil if there is none
	flags     int64     // of package kernel
}

func (e *epilogue) end() *epilogue { return e }

// convolution is a job that computes a convolution or its transpose.
type convolution interface {
	job
	end() *epilogue
	// packed is the size of the weights in floats.
	packed() int
	// pixels is the number of pixels it writes of each image.
	pixels() int
	// pack lays the weights out the first time, repack when training has changed them.
	pack() *packing
	repack() *packing
}

// packing lays weights out as a job reads them, part by part.
type packing struct {
	parts int
	fill  func(part int)
}

func (p *packing) pack() *packing   { return p }
func (p *packing) repack() *packing { return p }

// all fills every part, several at a time.
func (p *packing) all(workers int) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(workers, p.parts) {
		wait.Go(func() {
			for part := int(next.Add(1)) - 1; part < p.parts; part = int(next.Add(1)) - 1 {
				p.fill(part)
			}
		})
	}
	wait.Wait()
}

// convJob computes output pixels of a convolution, or input pixels of its
// transpose, as tiles of a product of gathered pixels and packed weights.
type convJob struct {
	epilogue
	*packing
	in, out   *buffer
	tile      kernel.Tile
	weights   []float32 // [panel][tap][cin][tile.Width]
	panels    int
	panelSize int
	panelIn   []int   // the first input channel that each panel reads; nil for 0
	tapOff    []int64 // bytes
	cin       int
	// Byte offsets of each pixel of an image, and from image to image.
	inOff, outOff     []int64
	inImage, outImage int64
	block             int // the most pixels of a task
	// part is how many taps of a panel a block goes through at a time.
	part int
	// after, if there is one, follows panel by panel, while the block is in the
	// cache. The pixels of out then lie in memory one after the other.
	after *geluJob
}

// tap is one position of a filter: where it reads relative to the pixel, and which
// of the filter's values it is.
type tap struct{ dy, dx, value int }

// newConvJob packs a product of taps over cin channels of in yielding cout
// channels of out, in groups.
func newConvJob(k *kernel.Set, in, out *buffer, taps []tap, f filters, cin, cout, groups int) *convJob {
	tile, depth := k.Tile(out.geom.stride), cin
	if in.pairs {
		tile, depth = k.PairTile(out.geom.stride), (cin+1)/2
	}
	slices.SortFunc(taps, func(a, b tap) int { return cmp.Or(cmp.Compare(a.dy, b.dy), cmp.Compare(a.dx, b.dx)) })
	j := &convJob{in: in, out: out, tile: tile}
	ig := in.geom
	// Neighbouring pixels are neighbours in memory: a row of taps is one long tap.
	run := 1
	if ig.stride < 2*depth {
		run = rowLength(taps)
	}
	j.cin = depth
	if groups > 1 {
		run = 1
		j.group(k, cin, cout, groups)
	}
	if run > 1 {
		j.cin = run * ig.stride
	}
	for t := 0; t < len(taps); t += run {
		j.tapOff = append(j.tapOff, 4*int64(taps[t].dy*ig.row()+taps[t].dx*ig.stride))
	}
	w := j.tile.Width
	j.panels = out.geom.stride / w
	j.panelSize = len(j.tapOff) * j.cin * w
	j.weights = kernel.Aligned(j.panels * j.panelSize)
	long := j.cin // before it is divided
	rowOf := func(t int) int { return (t/run*long + t%run*ig.stride) * w }
	if groups > 1 || in.pairs {
		j.packing = &packing{j.panels, func(p int) { j.packLanes(p, f, taps, rowOf, cin, cout, groups, long) }}
	} else {
		layOut := k.Lanes()
		j.packing = &packing{j.panels, func(p int) {
			block := f.newBlock(layOut)
			for o := p * w; o < min(p*w+w, cout); o += kernel.Lanes {
				for c := 0; c < cin; c += block.most {
					count := min(block.most, cin-c)
					block.fill(c, count, o)
					for t, tp := range taps {
						to := j.weights[p*j.panelSize+rowOf(t)+c*w+o-p*w:]
						for i := range count {
							*(*[kernel.Lanes]float32)(to[i*w:]) = block.rows[i*f.values+tp.value]
						}
					}
				}
			}
		}}
	}
	j.inImage, j.outImage = 4*int64(ig.image()), 4*int64(out.geom.image())
	// A block's input should stay in the second-level cache beside a part of a panel and
	// the next part, and a block should be long enough to repay reading all weights once.
	cache := kernel.SecondLevelCache() / 4
	j.block = min(max(cache/(4*ig.stride), 48), 192) / kernel.Rows * kernel.Rows
	j.part = j.shortTaps(partBytes / (4 * w))
	return j
}

// packLanes fills a panel whose lanes may be of several groups, or pairs of bfloat16.
func (j *convJob) packLanes(p int, f filters, taps []tap, rowOf func(t int) int, cin, cout, groups, long int) {
	w := j.tile.Width
	var lanes [kernel.WidestTile]float32
	first, count := 0, cin
	if j.panelIn != nil {
		first, count = j.panelIn[p], min(long, cin-j.panelIn[p])
	}
	for c := range count {
		// The lanes whose group the channel is in.
		from, to := p*w, min(p*w+w, cout)
		if groups > 1 {
			g := (first + c) / (cin / groups)
			from, to = max(from, g*(cout/groups)), min(to, (g+1)*(cout/groups))
		}
		for t, tp := range taps {
			row := p*j.panelSize + rowOf(t)
			switch {
			case from >= to:
			case j.in.pairs:
				f.lanes(lanes[:to-from], tp.value, c, from)
				halves := kernel.Halves(j.weights[row+c/2*w:])
				for l, v := range lanes[:to-from] {
					halves[2*l+c%2] = kernel.BFloat16(v)
				}
			default:
				f.lanes(j.weights[row+c*w+from-p*w:][:to-from], tp.value, first+c, from)
			}
		}
	}
}

// partBytes is the most of a panel that a block is multiplied with at a time: every
// tile of the block reads it anew, so it should stay in the second-level cache.
const partBytes = 256 << 10

// shortTaps divides taps of more than most channels, and returns how many taps have
// together at most as many. The order of summation stays.
func (j *convJob) shortTaps(most int) int {
	pieces := (j.cin + most - 1) / most
	for j.cin%pieces != 0 {
		pieces++
	}
	j.cin /= pieces
	var taps []int64
	for _, off := range j.tapOff {
		for i := range pieces {
			taps = append(taps, off+4*int64(i*j.cin))
		}
	}
	j.tapOff = taps
	parts := (len(taps)*j.cin + most - 1) / most
	return (len(taps) + parts - 1) / parts
}

// group lets every panel read only the input channels of its own groups.
func (j *convJob) group(k *kernel.Set, cin, cout, groups int) {
	per := cout / groups
	for _, t := range k.Tiles() {
		// Wider than a group would be wasted; the last tile is the narrowest.
		if j.tile = t; t.Width <= per && j.out.geom.stride%t.Width == 0 {
			break
		}
	}
	w := j.tile.Width
	j.cin = 0
	for lane := 0; lane < j.out.geom.stride; lane += w {
		first, last := min(lane, cout-1)/per, min(lane+w-1, cout-1)/per
		j.panelIn = append(j.panelIn, first*(cin/groups))
		j.cin = max(j.cin, (last+1-first)*(cin/groups))
	}
	for p, first := range j.panelIn {
		j.panelIn[p] = min(first, cin-j.cin)
	}
}

// rowLength returns the length of the runs of horizontal neighbours into which
// the sorted taps fall, or 1 if they do not all have one length.
func rowLength(taps []tap) int {
	n := 1
	for n < len(taps) && taps[n].dy == taps[0].dy && taps[n].dx == taps[n-1].dx+1 {
		n++
	}
	if len(taps)%n != 0 {
		return 1
	}
	for t := range taps {
		if t%n != 0 && (taps[t].dy != taps[t-1].dy || taps[t].dx != taps[t-1].dx+1) {
			return 1
		}
	}
	return n
}

func (j *convJob) packed() int { return len(j.weights) }
func (j *convJob) pixels() int { return len(j.inOff) }

func (j *convJob) pixel(inOffset, outOffset int) {
	j.inOff = append(j.inOff, 4*int64(inOffset))
	j.outOff = append(j.outOff, 4*int64(outOffset))
}

// only leaves one pixel to compute.
func (j *convJob) only(pixel int) {
	j.inOff, j.outOff = j.inOff[pixel:pixel+1], j.outOff[pixel:pixel+1]
}

func (j *convJob) uses() []*buffer {
	b := []*buffer{j.in, j.out, j.res, j.mask}
	if j.after != nil {
		b = append(b, j.after.uses()...)
	}
	return b
}

// convScratch is a worker's room for the offsets of a block and a kernel's arguments.
type convScratch struct {
	in, out [][kernel.Rows]int64
	args    kernel.TileArgs
}

// maxBlockTiles bounds the tiles of a block: see newConvJob.
const maxBlockTiles = 192 / kernel.Rows

// split returns how many pixels make a block, and how many blocks and groups of panels
// there are.
func (j *convJob) split(n, workers int) (block, blocks, groups int) {
	pixels := n * len(j.inOff)
	blocks = (pixels + j.block - 1) / j.block
	// Of one size: a short block reads as many weights as a long one.
	tiles := (pixels + kernel.Rows - 1) / kernel.Rows
	block = (tiles + blocks - 1) / blocks * kernel.Rows
	blocks = (pixels + block - 1) / block
	groups = 1
	for workers > 1 && blocks < 2*workers && groups < min(j.panels, workers) && blocks*groups%workers != 0 {
		groups++
	}
	return block, blocks, groups
}

func (j *convJob) tasks(n, workers int) int {
	_, blocks, groups := j.split(n, workers)
	return blocks * groups
}

func (j *convJob) run(ws *workspace, n, task, workers int, s *scratch) {
	block, _, groups := j.split(n, workers)
	group := task % groups
	pixels := len(j.inOff)
	first := task / groups * block
	count := min(block, n*pixels-first)
	tiles := (count + kernel.Rows - 1) / kernel.Rows

	c := &s.conv
	image, p := first/pixels, first%pixels
	in, out := int64(image)*j.inImage, int64(image)*j.outImage
	for t := range tiles {
		for r := range kernel.Rows {
			if t*kernel.Rows+r >= count { // fill the last tile with its last pixel
				c.in[t][r], c.out[t][r] = c.in[t][r-1], c.out[t][r-1]
				continue
			}
			c.in[t][r], c.out[t][r] = in+j.inOff[p], out+j.outOff[p]
			if p++; p == pixels {
				p, in, out = 0, in+j.inImage, out+j.outImage
			}
		}
	}

	a, inSlab := &c.args, ws.slabs[j.in.slab]
	*a = kernel.TileArgs{
		In: &inSlab[0], Cin: int64(j.cin),
		InOff: &c.in[0], OutOff: &c.out[0], Count: int64(tiles),
	}
	outSlab := ws.slabs[j.out.slab]
	firstPanel, endPanel := group*j.panels/groups, (group+1)*j.panels/groups
	for panel := firstPanel; panel < endPanel; panel++ {
		lane := panel * j.tile.Width
		if j.panelIn != nil {
			a.In = &inSlab[j.panelIn[panel]]
		}
		a.Out = &outSlab[lane]
		a.Bias, a.Res, a.Mask, a.Flags = nil, nil, nil, j.flags&kernel.Accumulate
		if j.bias != nil {
			a.Bias = &j.bias[lane]
		}
		for t := 0; t < len(j.tapOff); t += j.part {
			a.TapOff, a.Taps = &j.tapOff[t], int64(min(j.part, len(j.tapOff)-t))
			a.Weights = &j.weights[panel*j.panelSize+t*j.cin*j.tile.Width]
			if t+j.part >= len(j.tapOff) { // the sums are complete
				a.Flags |= j.flags
				if j.res != nil {
					a.Res = &ws.slabs[j.res.slab][lane]
				}
				if j.mask != nil {
					a.Mask = &ws.slabs[j.mask.slab][lane]
				}
			}
			// The next part, or for the next block the first one.
			size, end := j.cin*j.tile.Width, endPanel*j.panelSize
			next := panel*j.panelSize + min(t+j.part, len(j.tapOff))*size
			if next == end && first+count < n*pixels {
				next = firstPanel * j.panelSize
			}
			a.Next, a.Last = nil, nil
			if next < end {
				a.Next, a.Last = &j.weights[next], &j.weights[min(next+j.part*size, end)-1]
			}
			j.tile.Run(a)
			a.Flags |= kernel.Accumulate
		}
		if j.after != nil {
			j.after.apply(ws, first*j.out.geom.stride+lane, count, j.tile.Width, j.out.geom.stride, s)
		}
	}
}

// convPlan is what a convolution's algorithm depends on besides its shape.
type convPlan struct {
	kernel *kernel.Set
	chunk  int // the most images that a worker has at once
	// pairUp plans the rounding of an activation or a gradient to bfloat16.
	pairUp func(*buffer) *buffer
}

// operand returns what the direct form is to read. Single pixels stay in float32, the
// classifier's last layer above all, and so do the channels of an image, which are too few.
func (p convPlan) operand(k ConvShape, in *buffer) *buffer {
	if !p.kernel.Pairs() || k.groups() > 1 || in.geom.pixels() == 1 || in.geom.stride%kernel.Lanes != 0 {
		return in
	}
	return p.pairUp(in)
}

// forwardConv plans out = conv(in) + bias.
func forwardConv(p convPlan, c convOp, in, out *buffer) convolution {
	cin, cout, size := in.geom.channels, out.geom.channels, c.k.Size
	var bias []float32
	if c.bias != nil {
		bias = kernel.Aligned(out.geom.stride)
		copy(bias, c.bias)
	}
	if m := p.winogradOutputs(c.k, in.geom, out.geom, forwardOutputs(out.geom)); m > 0 {
		j := newWinogradJob(p.kernel, m, in, out, c.k.Pad, c.forward(cin))
		j.bias = bias
		return j
	}
	var taps []tap
	for ky := range size {
		for kx := range size {
			taps = append(taps, tap{ky - c.k.Pad, kx - c.k.Pad, ky*size + kx})
		}
	}
	in = p.operand(c.k, in)
	j := newConvJob(p.kernel, in, out, taps, c.forward(cin), cin, cout, c.k.groups())
	j.bias = bias
	for y := range out.geom.height {
		for x := range out.geom.width {
			j.pixel(in.geom.offset(y*c.k.Stride, x*c.k.Stride), out.geom.offset(y, x))
		}
	}
	return j
}

// backwardConv plans gin = transpose of conv (gout). An input pixel y gets
// from output row oy by filter row ky where oy*stride + ky - pad = y. The rows y
// of one remainder modulo stride share their ky, and so for columns: one job
// each, that multiplies by no zeros. Remainders that no tap reaches get no job.
func backwardConv(p convPlan, c convOp, gout, gin *buffer) []convolution {
	var jobs []convolution
	cin, cout, size, s := gin.geom.channels, gout.geom.channels, c.k.Size, c.k.Stride
	if m := p.winogradOutputs(c.k, gin.geom, gout.geom, backwardOutputs); m > 0 {
		return append(jobs, newWinogradJob(p.kernel, m, gout, gin, 2-c.k.Pad, c.backward(cin)))
	}
	gout = p.operand(c.k, gout)
	for py := range min(s, gin.geom.height) {
		for px := range min(s, gin.geom.width) {
			var taps []tap
			for _, ky := range residues(py, c.k) {
				for _, kx := range residues(px, c.k) {
					taps = append(taps, tap{(py + c.k.Pad - ky) / s, (px + c.k.Pad - kx) / s, ky*size + kx})
				}
			}
			if len(taps) == 0 {
				continue
			}
			j := newConvJob(p.kernel, gout, gin, taps, c.backward(cin), cout, cin, c.k.groups())
			for y := py; y < gin.geom.height; y += s {
				for x := px; x < gin.geom.width; x += s {
					j.pixel(gout.geom.offset(y/s, x/s), gin.geom.offset(y, x))
				}
			}
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// residues lists the filter positions k with (p + pad - k) divisible by stride.
func residues(p int, k ConvShape) []int {
	var r []int
	for i := range k.Size {
		if (p+k.Pad-i)%k.Stride == 0 {
			r = append(r, i)
		}
	}
	return r
}

// growForward makes the border that forwardConv reads.
func (p convPlan) growForward(k ConvShape, in, out *geometry) {
	if m := p.winogradOutputs(k, in, out, forwardOutputs(out)); m > 0 {
		growWinograd(m, k.Pad, in, out)
		return
	}
	growDirect(k, in, out)
}

// growDirect makes the border that the direct form reads.
func growDirect(k ConvShape, in, out *geometry) {
	in.grow(-k.Pad, (out.height-1)*k.Stride+k.Size-1-k.Pad, -k.Pad, (out.width-1)*k.Stride+k.Size-1-k.Pad)
}

// growBackward makes the border that backwardConv reads.
func (p convPlan) growBackward(k ConvShape, in, out *geometry) {
	if m := p.winogradOutputs(k, in, out, backwardOutputs); m > 0 {
		growWinograd(m, 2-k.Pad, out, in)
		return
	}
	growDirectBack(k, in, out)
}

// growDirectBack makes the border that the direct form's transpose reads.
func growDirectBack(k ConvShape, in, out *geometry) {
	reach := func(size int) (first, last int) {
		for p := range min(k.Stride, size) {
			for _, i := range residues(p, k) {
				d := (p + k.Pad - i) / k.Stride
				first, last = min(first, d), max(last, (size-1-p)/k.Stride+d)
			}
		}
		return first, last
	}
	top, bottom := reach(in.height)
	left, right := reach(in.width)
	out.grow(top, bottom, left, right)
}

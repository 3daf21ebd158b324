package nn

import (
	"cmp"
	"slices"

	"nac/internal/kernel"
)

// winogradJob is a 3x3 convolution of stride 1 by F(2x2,3x3) or F(4x4,3x3), a
// block of patches at a time: transform the patches, a matrix product for each
// plane, transform back.
type winogradJob struct {
	epilogue
	*packing
	exact   *packing // as the filters are laid out the first time
	in, out *buffer
	form    kernel.Winograd
	product kernel.Product
	// weights is [group][plane][panel][cin][product.Width]; a group is as many output
	// channels as are transformed back together.
	weights  []float32
	cin      int // input channels, padding included
	group    int // output channels of a group
	groups   int
	panels   int // of a group
	block    int // patches of a block
	patches  []patch
	inOff    []int64 // bytes, of each patch from its image
	outOff   []int64
	alike    []int // how many patches from this one on have its size
	inImage  int
	outImage int
	inRow    int64
	inPixel  int64
	outRow   int64
	outPixel int64
}

// patch is one place of an image: offsets in floats, and how many of its result's
// pixels there are.
type patch struct {
	in, out    int
	rows, cols int64
}

// winogradChannels is the least number of channels at which the transforms
// repay, measured.
const winogradChannels = 16

// forwardOutputs is the greatest m of F(m x m, 3x3) for a forward pass to out.
// F(4x4) rounds 2.3 times as coarsely as the direct form, F(2x2) a little less
// than it. What is rounded here decides which ReLUs are open, and where a layer has few
// channels, one more or less shows in the states; in the backward pass nothing
// hangs on rounding.
func forwardOutputs(out *geometry) int {
	if out.channels < 64 {
		return 2
	}
	return 4
}

// backwardOutputs is the same for a backward pass.
const backwardOutputs = 4

// winogradOutputs returns m, at most the given, if a convolution between the
// layouts is to be done by F(m x m, 3x3), or 0 if in the direct form. The choice is the
// least of estimated times: arithmetic, and reading the filters, which grow from 9 to 16
// or 36 values, once a block.
func (p convPlan) winogradOutputs(k ConvShape, in, out *geometry, most int) int {
	if k.Size != 3 || k.Stride != 1 || k.Groups > 1 || k.Pad > 2 || in.height < 4 || in.width < 4 ||
		in.channels < winogradChannels || out.channels < winogradChannels {
		return 0
	}
	pairs := float64(in.stride * out.stride)
	// A core that multiplies and adds 40 G/s reads 4 G floats/s of filters from the
	// third-level cache and transforms 8 G/s.
	cost := func(planes, rows int) float64 {
		rows = (p.chunk*rows + kernel.Rows - 1) / kernel.Rows * kernel.Rows
		return float64(planes) * pairs * (float64(rows) + 10)
	}
	best, least := 0, cost(9, out.height*out.width)
	if p.kernel.Pairs() {
		least /= 2 // which only the direct form has
	}
	for m := 2; m <= most; m += 2 {
		side := (m + 2) * (m + 2)
		patches := ((out.height + m - 1) / m) * ((out.width + m - 1) / m)
		c := cost(side, patches) + 5*float64(side*p.chunk*patches*(in.stride+out.stride))
		if c < least {
			best, least = m, c
		}
	}
	return best
}

// growWinograd makes the border that patches of in read.
func growWinograd(m, pad int, in, out *geometry) {
	reach := func(size int) int { return (size+m-1)/m*m + 1 - pad }
	in.grow(-pad, reach(out.height), -pad, reach(out.width))
}

// newWinogradJob plans out = conv(in) with the filters.
func newWinogradJob(k *kernel.Set, m int, in, out *buffer, pad int, f filters) *winogradJob {
	ig, og := in.geom, out.geom
	j := &winogradJob{
		in: in, out: out, form: k.Winograd(m), cin: ig.stride,
		inImage: ig.image(), outImage: og.image(),
		inRow: 4 * int64(ig.row()), inPixel: 4 * int64(ig.stride),
		outRow: 4 * int64(og.row()), outPixel: 4 * int64(og.stride),
	}
	j.group = og.stride
	for j.group > winogradGroup && j.group%(2*kernel.Lanes) == 0 {
		j.group /= 2
	}
	j.groups = og.stride / j.group
	j.product = k.Product(j.group)
	w, planes := j.product.Width, j.form.Planes()
	j.panels = j.group / w
	j.block = min(max(winogradBytes/(4*planes*(j.cin+j.group)), 24), 96) / j.product.Rows * j.product.Rows

	panelSize := j.cin * w
	j.weights = kernel.Aligned(j.groups * planes * j.panels * panelSize)
	layOut := k.Lanes()
	j.exact = &packing{j.groups * j.panels, func(part int) {
		g, p := part/j.panels, part%j.panels
		block := f.newBlock(layOut)
		a := kernel.WinogradFilters{Step: 4 * kernel.Lanes, Plane: 4 * int64(j.panels*panelSize)}
		first := 0
		if f.turned {
			a.Step, first = -a.Step, 8
		}
		for lane := 0; lane < w && g*j.group+p*w+lane < og.channels; lane += kernel.Lanes {
			for i := 0; i < ig.channels; i += block.most {
				count := min(block.most, ig.channels-i)
				block.fill(i, count, g*j.group+p*w+lane)
				for c := range count {
					a.In = &block.rows[9*c+first][0]
					a.Out = &j.weights[(g*planes*j.panels+p)*panelSize+(i+c)*w+lane]
					j.form.Filters(&a)
				}
			}
		}
	}}
	// For training, where no batch norm is folded: there is no scale.
	j.packing = winogradRepack(j, k.Tile(w), og.channels, ig.channels, func(o, i int) (values [9]float32) {
		from := f.weights[i*f.inStep+o*f.outStep:][:9]
		for t, v := range from {
			if f.turned {
				t = 8 - t
			}
			values[t] = v
		}
		return values
	})
	for y := 0; y < og.height; y += m {
		for x := 0; x < og.width; x += m {
			j.patches = append(j.patches, patch{
				in: ig.offset(y-pad, x-pad), out: og.offset(y, x),
				rows: int64(min(m, og.height-y)), cols: int64(min(m, og.width-x)),
			})
		}
	}
	// Those at the edges last: as many as have one size are transformed back together.
	slices.SortStableFunc(j.patches, func(a, b patch) int { return cmp.Or(cmp.Compare(b.rows, a.rows), cmp.Compare(b.cols, a.cols)) })
	for _, p := range j.patches {
		j.inOff, j.outOff = append(j.inOff, 4*int64(p.in)), append(j.outOff, 4*int64(p.out))
	}
	j.alike = make([]int, len(j.patches))
	for i := len(j.patches) - 1; i >= 0; i-- {
		j.alike[i] = 1
		if i+1 < len(j.patches) && j.patches[i].rows == j.patches[i+1].rows && j.patches[i].cols == j.patches[i+1].cols {
			j.alike[i] += j.alike[i+1]
		}
	}
	return j
}

// winogradGroup is the most output channels that are transformed back at once,
// winogradBytes what a block's transformed patches and products may take: both
// so that they stay in the second-level cache.
const (
	winogradGroup = 128
	winogradBytes = 384 << 10
)

func (j *winogradJob) pack() *packing {
	p := j.exact
	j.exact = nil
	return p
}

func (j *winogradJob) packed() int     { return len(j.weights) }
func (j *winogradJob) pixels() int     { return j.out.geom.pixels() }
func (j *winogradJob) uses() []*buffer { return []*buffer{j.in, j.out, j.res, j.mask} }

// split returns how many patches make a block, and how many blocks and parts of
// the groups there are. Workers who share a small batch take smaller blocks, and
// if those are too few, groups of their own.
func (j *winogradJob) split(n, workers int) (block, blocks, parts int) {
	all := n * len(j.patches)
	block, parts = j.block, 1
	if workers > 1 && all < 2*workers*block {
		share := (all + workers - 1) / workers
		block = min(block, j.rows(share))
	}
	blocks = (all + block - 1) / block
	if blocks < workers {
		parts = min(j.groups, (workers+blocks-1)/blocks)
	}
	return block, blocks, parts
}

func (j *winogradJob) tasks(n, workers int) int {
	_, blocks, parts := j.split(n, workers)
	return blocks * parts
}

// rows is what a block of so many patches is rounded up to.
func (j *winogradJob) rows(patches int) int {
	groups, rest := j.product.Round(patches)
	return groups*j.product.Rows + rest
}

// winogradRow is the bytes from one patch's 16 channels of a plane to the next one's.
const winogradRow = 4 * kernel.Lanes

// winogradPlane is the floats from plane to plane of so many rows. A line more than there are:
// else all planes might compete for the same cache set.
func winogradPlane(rows, channels int) int { return rows*channels + kernel.Lanes }

// winogradScratch is a worker's room for a block.
type winogradScratch struct {
	patches, sums []float32
	product       kernel.ProductArgs
	input         kernel.WinogradInput
	output        kernel.WinogradOutput
}

func (s *winogradScratch) grow(jobs []job) {
	patches, sums := 0, 0
	for _, j := range jobs {
		if w, ok := j.(*winogradJob); ok {
			patches = max(patches, w.form.Planes()*winogradPlane(w.block, w.cin))
			sums = max(sums, w.form.Planes()*winogradPlane(w.block, w.group))
		}
	}
	s.patches, s.sums = kernel.Aligned(patches), kernel.Aligned(sums)
}

func (j *winogradJob) run(ws *workspace, n, task, workers int, sc *scratch) {
	s := &sc.winograd
	block, _, parts := j.split(n, workers)
	part := task % parts
	first := task / parts * block
	count := min(block, n*len(j.patches)-first)
	rows := j.rows(count)
	planeIn, planeOut := 4*int64(winogradPlane(rows, j.cin)), 4*int64(winogradPlane(rows, j.group))
	i, in := &s.input, ws.slabs[j.in.slab]
	*i = kernel.WinogradInput{
		Row: j.inRow, Pixel: j.inPixel, Plane: planeIn, Block: winogradRow * int64(rows), Step: winogradRow, Channels: int64(j.cin),
	}
	for t := 0; t < count; t += int(i.Count) {
		image, p := (first+t)/len(j.patches), (first+t)%len(j.patches)
		i.In, i.Offsets, i.Out = &in[image*j.inImage], &j.inOff[p], &s.patches[t*kernel.Lanes]
		i.Count = int64(min(count-t, len(j.patches)-p))
		j.form.Input(i)
	}

	a := &s.product
	groups, rest := j.product.Round(count)
	*a = kernel.ProductArgs{
		In: &s.patches[0], Out: &s.sums[0], InPlane: planeIn, OutPlane: planeOut, Block: winogradRow * int64(rows),
		Depth: int64(j.cin / kernel.Lanes), Groups: int64(groups), Rest: int64(rest), Panels: int64(j.panels), Planes: int64(j.form.Planes()),
	}
	for g := part * j.groups / parts; g < (part+1)*j.groups/parts; g++ {
		a.Weights = &j.weights[g*j.form.Planes()*j.cin*j.group]
		j.product.Run(a)
		j.transformBack(ws, s, first, count, rows, g*j.group)
	}
}

// transformBack writes a block's pixels, channels from lane on: as many patches at a time as
// an image has of the same size.
func (j *winogradJob) transformBack(ws *workspace, s *winogradScratch, first, count, rows, lane int) {
	o := &s.output
	*o = kernel.WinogradOutput{
		Row: j.outRow, Pixel: j.outPixel, Plane: 4 * int64(winogradPlane(rows, j.group)), Block: winogradRow * int64(rows), Step: winogradRow,
		Channels: int64(j.group), Flags: j.flags,
	}
	if j.bias != nil {
		o.Bias = &j.bias[lane]
	}
	for t := 0; t < count; t += int(o.Count) {
		image, p := (first+t)/len(j.patches), (first+t)%len(j.patches)
		at := image*j.outImage + lane
		o.In, o.Out, o.Offsets = &s.sums[t*kernel.Lanes], &ws.slabs[j.out.slab][at], &j.outOff[p]
		if j.res != nil {
			o.Res = &ws.slabs[j.res.slab][at]
		}
		if j.mask != nil {
			o.Mask = &ws.slabs[j.mask.slab][at]
		}
		o.Rows, o.Cols, o.Count = j.patches[p].rows, j.patches[p].cols, int64(min(count-t, j.alike[p]))
		j.form.Output(o)
	}
}

package nn

import "nac/internal/kernel"

// winogradGradJob is the weight gradient of a 3x3 convolution of stride 1 by the
// transpose of F(4x4,3x3): with the forward pass's matrices, out = A'[(G w G') * (B' in B)]A
// of a patch, so
//
//	dw = G'[sum over patches of (A dout A') * (B' in B)]G
//
// which has 36 multiplications for a patch of 16 pixels instead of 144, and rounds
// about three times as coarsely as the direct form. A task is a slice of input channels
// by some panels of output channels: block by block it transforms their patches and
// sums the outer products of each plane, and transforms the sums at the end. No sum is
// divided among tasks.
type winogradGradJob struct {
	in, grad  *buffer
	weight    []float32 // its gradient, OIHW
	form      kernel.Winograd
	gradient  func(*kernel.WinogradInput)
	outer     kernel.Outer
	last      kernel.Tile // for the transform at the end
	cin, cout int
	patches   []patch   // in of the input, out of the gradient
	matrix    []float32 // G x G, [plane][16], of which 9 are in use
}

const (
	// Slices and groups of panels have so many channels, winogradGradPatches is how
	// many patches are a block: transformed they are not much more than the
	// second-level cache holds, and each plane's are few enough for the nearest.
	winogradGradChannels = 64
	winogradGradPatches  = 48

	winogradGradOutputs = 4
)

// winogradGrad reports whether a convolution's weight gradient is to be had by
// winogradGradJob: where there are channels enough to repay the transforms, and
// patches do not stick out of the image much.
func winogradGrad(k ConvShape, in, out *geometry) bool {
	const m = winogradGradOutputs
	patches := ((out.height + m - 1) / m) * ((out.width + m - 1) / m)
	return k.Size == 3 && k.Stride == 1 && k.groups() == 1 && k.Pad <= 2 &&
		in.channels >= winogradGradChannels && out.channels >= winogradGradChannels &&
		2*36*patches <= 9*out.pixels()
}

// growWinogradGrad makes the borders that winogradGradJob reads.
func growWinogradGrad(k ConvShape, in, out *geometry) {
	const m = winogradGradOutputs
	growWinograd(m, k.Pad, in, out)
	out.grow(0, (out.height+m-1)/m*m-1, 0, (out.width+m-1)/m*m-1)
}

func newWinogradGradJob(k *kernel.Set, outer func(channels int) kernel.Outer, c convOp, in, grad *buffer, weight []float32) *winogradGradJob {
	const m = winogradGradOutputs
	ig, og := in.geom, grad.geom
	j := &winogradGradJob{
		in: in, grad: grad, weight: weight, form: k.Winograd(m), gradient: k.WinogradGradient(),
		outer: outer(og.stride), last: k.Tile(kernel.Lanes), cin: ig.channels, cout: og.channels,
	}
	for y := 0; y < og.height; y += m {
		for x := 0; x < og.width; x += m {
			j.patches = append(j.patches, patch{in: ig.offset(y-c.k.Pad, x-c.k.Pad), out: og.offset(y, x)})
		}
	}
	planes := j.form.Planes()
	j.matrix = kernel.Aligned(planes * kernel.Lanes)
	for t := range 9 {
		var unit [9]float32
		unit[t] = 1
		j.form.Filter(&unit, j.matrix[t:], kernel.Lanes)
	}
	return j
}

func (j *winogradGradJob) uses() []*buffer { return []*buffer{j.in, j.grad} }

// split returns how many input and output channels make a task.
func (j *winogradGradJob) split(workers int) (slice, group int) {
	slice, group = winogradGradChannels, max(winogradGradChannels, j.outer.Width)
	tasks := func() int {
		return (j.in.geom.stride + slice - 1) / slice * ((j.grad.geom.stride + group - 1) / group)
	}
	for tasks() < workers && group > j.outer.Width {
		group = max(group/2, j.outer.Width)
	}
	return slice, group
}

func (j *winogradGradJob) tasks(_, workers int) int {
	slice, group := j.split(workers)
	return (j.in.geom.stride + slice - 1) / slice * ((j.grad.geom.stride + group - 1) / group)
}

// A line more from plane to plane: else all might compete for the same cache set.
func winogradGradPlane(channels int) int { return winogradGradPatches*channels + kernel.Lanes }

// winogradGradRows returns the rows of sums of so many input channels.
func winogradGradRows(channels int) int {
	return (channels + kernel.Rows - 1) / kernel.Rows * kernel.Rows
}

func (s *gradScratch) growWinograd(j *winogradGradJob) {
	planes := j.form.Planes()
	slice, group := j.split(1) // no task is larger
	rows := winogradGradRows(slice)
	s.need(planes*winogradGradPlane(slice), planes*winogradGradPlane(group), planes*rows*group, rows/kernel.Rows)
	s.pairs = make([]float32, (j.outer.Width+kernel.Rows)*kernel.Lanes)
}

func (j *winogradGradJob) run(ws *workspace, n, task, workers int, s *scratch) {
	slice, group := j.split(workers)
	slices := (j.in.geom.stride + slice - 1) / slice
	first, lane := task%slices*slice, task/slices*group
	slice, group = min(slice, j.in.geom.stride-first), min(group, j.grad.geom.stride-lane)
	sc, w, planes := &s.grad, j.outer.Width, j.form.Planes()
	rows := winogradGradRows(slice)
	for r := range rows {
		sc.off[r/kernel.Rows][r%kernel.Rows] = 4 * int64(min(r, slice-1)) // fill the last tile with its last row
	}
	sums := sc.sums[:planes*rows*group]
	clear(sums)
	inPlane, gradPlane := winogradGradPlane(slice), winogradGradPlane(group)
	a := &sc.args
	*a = kernel.OuterArgs{
		InOff: &sc.off[0], RunIn: &sc.zero, RunGrad: &sc.zero, Runs: 1,
		InStep: 4 * int64(slice), GradStep: 4 * int64(group), Count: int64(rows / kernel.Rows), Flags: kernel.Accumulate,
	}
	all := n * len(j.patches)
	for block := 0; block < all; block += winogradGradPatches {
		count := min(winogradGradPatches, all-block)
		j.transform(ws, block, count, first, slice, lane, group, s)
		a.Pixels = int64(count)
		for plane := range planes {
			a.In = &sc.in[plane*inPlane]
			for p := 0; p < group; p += w {
				a.Grad, a.Out = &sc.grad[plane*gradPlane+p], &sums[(p*planes+plane*w)*rows]
				j.outer.Run(a)
			}
		}
	}
	for p := 0; p < group; p += w {
		j.store(sums[p*planes*rows:], rows, first, slice, lane+p, sc)
	}
}

// transform makes planes of a block of patches.
func (j *winogradGradJob) transform(ws *workspace, block, count, first, slice, lane, group int, s *scratch) {
	ig, og, sc := j.in.geom, j.grad.geom, &s.grad
	in, grad := ws.slabs[j.in.slab], ws.slabs[j.grad.slab]
	a := &s.winograd.input
	for t := range count {
		image, p := (block+t)/len(j.patches), &j.patches[(block+t)%len(j.patches)]
		sc.inOffsets[t], sc.gradOffsets[t] = 4*int64(image*ig.image()+p.in+first), 4*int64(image*og.image()+p.out+lane)
	}
	*a = kernel.WinogradInput{
		In: &in[0], Out: &sc.in[0], Offsets: &sc.inOffsets[0], Row: 4 * int64(ig.row()), Pixel: 4 * int64(ig.stride),
		Plane: 4 * int64(winogradGradPlane(slice)), Block: 4 * kernel.Lanes, Step: 4 * int64(slice), Channels: int64(slice), Count: int64(count),
	}
	j.form.Input(a)
	*a = kernel.WinogradInput{
		In: &grad[0], Out: &sc.grad[0], Offsets: &sc.gradOffsets[0], Row: 4 * int64(og.row()), Pixel: 4 * int64(og.stride),
		Plane: 4 * int64(winogradGradPlane(group)), Block: 4 * kernel.Lanes, Step: 4 * int64(group), Channels: int64(group), Count: int64(count),
	}
	j.gradient(a)
}

// store transforms a panel's sums and puts them where they belong. It is a product of
// tiles whose pixels are the pairs of channels and whose taps are the planes.
func (j *winogradGradJob) store(sums []float32, rows, first, slice, lane int, sc *gradScratch) {
	w, planes := j.outer.Width, j.form.Planes()
	taps := sc.taps[:0]
	for plane := range planes {
		taps = append(taps, 4*int64(plane*rows*w))
	}
	sc.taps = taps
	lanes := min(w, j.cout-lane)
	var in, out [kernel.WidestTile/kernel.Rows + 1][kernel.Rows]int64
	tiles := (w + kernel.Rows - 1) / kernel.Rows
	for t := range tiles * kernel.Rows {
		in[t/kernel.Rows][t%kernel.Rows] = 4 * int64(min(t, w-1))
		out[t/kernel.Rows][t%kernel.Rows] = 4 * int64(t*kernel.Lanes)
	}
	a := &sc.tile
	for c := first; c < min(first+slice, j.cin); c++ {
		*a = kernel.TileArgs{
			In: &sums[(c-first)*w], Weights: &j.matrix[0], Out: &sc.pairs[0], InOff: &in[0], OutOff: &out[0], Count: int64(tiles),
			TapOff: &taps[0], Taps: int64(planes), Cin: 1,
		}
		j.last.Run(a)
		for o := range lanes {
			*(*[9]float32)(j.weight[((lane+o)*j.cin+c)*9:]) = *(*[9]float32)(sc.pairs[o*kernel.Lanes:])
		}
	}
}

package nn

import "nac/internal/kernel"

// affineRow is x*scale + shift and an activation function for the channels of
// pixels in a row: a depthwise convolution of one tap.
type affineRow struct {
	run          func(*kernel.DepthwiseArgs)
	scale, shift []float32 // whole vectors, zero behind the channels
	flags        int64
	ceiling      float32
	tapOff       [1]int64
}

// newAffineRow plans the channels from first on; a nil scale is ones.
func newAffineRow(k *kernel.Set, op affineOp, first, channels int, relu bool, ceiling float32) *affineRow {
	a := &affineRow{
		run: k.Depthwise(), ceiling: ceiling,
		scale: kernel.Aligned(kernel.Pad(channels)), shift: kernel.Aligned(kernel.Pad(channels)),
	}
	for c := range channels {
		if a.scale[c] = 1; op.scale != nil {
			a.scale[c], a.shift[c] = float32(op.scale[first+c]), float32(op.shift[first+c])
		}
	}
	if relu {
		a.flags |= kernel.ReLU
	}
	if ceiling > 0 {
		a.flags |= kernel.Clip
	}
	return a
}

// apply computes pixels of whole vectors of channels; steps are in floats.
func (a *affineRow) apply(s *scratch, in, out []float32, pixels, inStep, outStep int) {
	s.depthwise = kernel.DepthwiseArgs{
		In: &in[0], Weights: &a.scale[0], Out: &out[0], Bias: &a.shift[0],
		TapOff: &a.tapOff[0], Taps: 1, Channels: int64(len(a.scale)), Pixels: int64(pixels),
		InStep: 4 * int64(inStep), OutStep: 4 * int64(outStep), Flags: a.flags, Ceiling: a.ceiling,
	}
	a.run(&s.depthwise)
}

// affineJob is a batch norm or an activation function by itself.
type affineJob struct {
	row     *affineRow
	in, out *buffer
}

func newAffineJob(k *kernel.Set, op affineOp, in, out *buffer, relu bool, ceiling float32) *affineJob {
	return &affineJob{newAffineRow(k, op, 0, out.geom.channels, relu, ceiling), in, out}
}

func (j *affineJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *affineJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.out.geom
	for y := range g.height {
		j.row.apply(s, ws.row(j.in, image, y), ws.row(j.out, image, y), g.width, g.stride, g.stride)
	}
}

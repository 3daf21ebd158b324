package nn

import (
	"fmt"

	"nac/internal/kernel"
)

// depthwiseOp is a convolution of every channel by itself; its weight is
// [channel][size][size].
type depthwiseOp convOp

func (d depthwiseOp) fold(a affineOp) depthwiseOp { return depthwiseOp(convOp(d).fold(a).scaled()) }

// Depthwise is a convolution with as many groups as channels. The weight is
// [channels][1][size][size]; bias may be nil.
func (g *Graph) Depthwise(x *Node, weight, bias []float32, k ConvShape) *Node {
	if len(weight) != x.shape.C*k.Size*k.Size || (bias != nil && len(bias) != x.shape.C) {
		panic(fmt.Sprintf("nn: depthwise convolution of %v by %d weights and %d biases", x.shape, len(weight), len(bias)))
	}
	return g.add(depthwiseOp{weight: weight, bias: bias, k: k}, k.of(x.shape, x.shape.C), x)
}

// depthwiseJob computes output pixels of a depthwise convolution, or input
// pixels of its transpose. A task is a part of an image's rows.
type depthwiseJob struct {
	*packing
	in, out, mask     *buffer
	kernel            func(*kernel.DepthwiseArgs)
	bias              []float32
	flags             int64
	ceiling           float32
	tapOff            []int64   // bytes
	weights           []float32 // [tap][lane]
	rows, cols        int       // how many pixels it computes
	y, x              int       // the first of them in out
	outStep, inStep   int       // pixels from one to the next, in out and in in
	inFirst, outFirst int       // floats from an image's start to the first pixel
	inRows, outRows   int       // floats from row to row
}

func newDepthwiseJob(k *kernel.Set, in, out *buffer, taps []tap, weight []float32, y, x, outStep, inStep int) *depthwiseJob {
	ig, og := in.geom, out.geom
	j := &depthwiseJob{
		in: in, out: out, kernel: k.Depthwise(), y: y, x: x, outStep: outStep, inStep: inStep,
		rows: (og.height - y + outStep - 1) / outStep, cols: (og.width - x + outStep - 1) / outStep,
		inFirst: ig.offset(0, 0), outFirst: og.offset(y, x),
		inRows: inStep * ig.row(), outRows: outStep * og.row(),
		weights: kernel.Aligned(len(taps) * og.stride),
	}
	for _, tp := range taps {
		j.tapOff = append(j.tapOff, 4*int64(tp.dy*ig.row()+tp.dx*ig.stride))
	}
	size := len(weight) / og.channels
	j.packing = &packing{len(taps), func(t int) {
		for c := range og.channels {
			j.weights[t*og.stride+c] = weight[c*size+taps[t].value]
		}
	}}
	j.packing.all(1)
	return j
}

func (j *depthwiseJob) uses() []*buffer { return []*buffer{j.in, j.out, j.mask} }

func (j *depthwiseJob) parts(workers int) int { return min(j.rows, workers) }

func (j *depthwiseJob) tasks(n, workers int) int { return n * j.parts(workers) }

func (j *depthwiseJob) run(ws *workspace, _, task, workers int, s *scratch) {
	parts := j.parts(workers)
	image, part := task/parts, task%parts
	ig, og := j.in.geom, j.out.geom
	in, out := ws.slabs[j.in.slab][image*ig.image():], ws.slabs[j.out.slab][image*og.image():]
	a := &s.depthwise
	*a = kernel.DepthwiseArgs{
		Weights: &j.weights[0], TapOff: &j.tapOff[0],
		Taps: int64(len(j.tapOff)), Channels: int64(og.stride), Pixels: int64(j.cols),
		InStep: 4 * int64(j.inStep*ig.stride), OutStep: 4 * int64(j.outStep*og.stride),
		Flags: j.flags, Ceiling: j.ceiling,
	}
	if j.bias != nil {
		a.Bias = &j.bias[0]
	}
	for y := part * j.rows / parts; y < (part+1)*j.rows/parts; y++ {
		o := j.outFirst + y*j.outRows
		a.In, a.Out = &in[j.inFirst+y*j.inRows], &out[o]
		j.kernel(a)
		if j.mask == nil {
			continue
		}
		mask := ws.slabs[j.mask.slab][image*og.image():]
		for x := range j.cols {
			p := o + x*j.outStep*og.stride
			to, m := out[p:p+og.stride], mask[p:p+og.stride]
			for c, v := range m {
				if !(v > 0) {
					to[c] = 0
				}
			}
		}
	}
}

// forwardDepthwise plans out = conv(in) + bias.
func forwardDepthwise(k *kernel.Set, c depthwiseOp, in, out *buffer) *depthwiseJob {
	var taps []tap
	for ky := range c.k.Size {
		for kx := range c.k.Size {
			taps = append(taps, tap{ky - c.k.Pad, kx - c.k.Pad, ky*c.k.Size + kx})
		}
	}
	j := newDepthwiseJob(k, in, out, taps, c.weight, 0, 0, 1, c.k.Stride)
	if c.bias != nil {
		j.bias = kernel.Aligned(out.geom.stride)
		copy(j.bias, c.bias)
	}
	return j
}

func (c *compiler) emitDepthwise(j *depthwiseJob) {
	c.packed += int64(len(j.weights))
	c.keep(j.packing)
	c.emit(j)
}

// backwardDepthwise plans gin = transpose of conv (gout), a job for each
// remainder modulo the stride as backwardConv does.
func backwardDepthwise(k *kernel.Set, c depthwiseOp, gout, gin *buffer) []*depthwiseJob {
	var jobs []*depthwiseJob
	s := c.k.Stride
	for py := range min(s, gin.geom.height) {
		for px := range min(s, gin.geom.width) {
			var taps []tap
			for _, ky := range residues(py, c.k) {
				for _, kx := range residues(px, c.k) {
					taps = append(taps, tap{(py + c.k.Pad - ky) / s, (px + c.k.Pad - kx) / s, ky*c.k.Size + kx})
				}
			}
			if len(taps) > 0 {
				jobs = append(jobs, newDepthwiseJob(k, gout, gin, taps, c.weight, py, px, s, 1))
			}
		}
	}
	return jobs
}

// depthwiseContribution adds the gradient of a depthwise convolution's output g
// to its input's.
func (c *compiler) depthwiseContribution(op depthwiseOp, g *buffer, x *value) {
	if x.grad == nil {
		x.grad = &buffer{geom: x.geom}
	}
	jobs := backwardDepthwise(c.kernel, op, g, x.grad)
	covered := 0
	for _, j := range jobs {
		covered += j.rows * j.cols
	}
	if covered < x.geom.pixels() || x.pending != nil {
		c.prepare(x)
	}
	for _, j := range jobs {
		if j.mask = x.mask(); x.written {
			j.flags |= kernel.Accumulate
		}
		c.emitDepthwise(j)
	}
	x.written = true
}

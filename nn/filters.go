package nn

import "nac/internal/kernel"

// filters are the weights of a convolution as it or its transpose sees them: its
// channels i and o are joined by values that begin at (i%ins)*inStep + (o%outs)*outStep.
type filters struct {
	weights         []float32
	values          int // of a pair of channels
	ins, outs       int
	inStep, outStep int
	// scale is a factor of each output channel of the convolution; nil for none. The
	// product is rounded to float32. For the transpose, turned, it goes by channels i, and
	// Winograd's form wants each filter turned around.
	scale  []float64
	turned bool
}

// forward returns the filters from cin channels in groups.
func (c convOp) forward(cin int) filters {
	values, per := c.k.Size*c.k.Size, cin/c.k.groups()
	return filters{
		weights: c.weight, values: values, scale: c.scale,
		ins: per, outs: len(c.weight) / (per * values), inStep: values, outStep: per * values,
	}
}

// backward returns those of the transpose.
func (c convOp) backward(cin int) filters {
	f := c.forward(cin)
	f.ins, f.outs, f.inStep, f.outStep = f.outs, f.ins, f.outStep, f.inStep
	f.turned = true
	return f
}

// lanes sets dst to value v of the filters from channel i to the channels from o on,
// which are of one group.
func (f *filters) lanes(dst []float32, v, i, o int) {
	from := f.weights[i%f.ins*f.inStep+o%f.outs*f.outStep+v:]
	if f.outStep == 1 {
		copy(dst, from)
	} else {
		for l := range dst {
			dst[l] = from[l*f.outStep]
		}
	}
	switch {
	case f.scale == nil:
	case f.turned:
		s := f.scale[i]
		for l, w := range dst {
			dst[l] = float32(float64(w) * s)
		}
	default:
		for l, w := range dst {
			dst[l] = float32(float64(w) * f.scale[o+l])
		}
	}
}

// filterBlock is a copy of the filters, of one group, from some input channels to the
// kernel.Lanes output channels from one on: a row of lanes for each value of each input
// channel.
type filterBlock struct {
	of     *filters
	layOut func(*kernel.LanesArgs)
	args   kernel.LanesArgs
	scale  [kernel.Lanes]float64
	most   int // input channels
	rows   [][kernel.Lanes]float32
}

// blockRows are as many rows of a filterBlock as stay in the nearest cache.
const blockRows = 288

func (f *filters) newBlock(layOut func(*kernel.LanesArgs)) *filterBlock {
	most := max(blockRows/f.values, 1)
	return &filterBlock{of: f, layOut: layOut, most: most, rows: make([][kernel.Lanes]float32, most*f.values)}
}

// fill copies the filters from count channels i to the channels from o on. Lanes without
// a channel are zero.
func (b *filterBlock) fill(i, count, o int) {
	f := b.of
	a := &b.args
	a.Step = 4 * int64(f.outStep)
	if f.scale != nil {
		a.Scale = &b.scale
		if !f.turned {
			copy(b.scale[:], f.scale[o:])
		}
	}
	whole := o+kernel.Lanes <= f.outs
	// Neighbouring channels' values lie one after the other, or each apart.
	together := 1
	if f.inStep == f.values {
		together = count
	}
	for c := 0; c < count; c += together {
		rows := b.rows[c*f.values:][:together*f.values]
		if f.turned && f.scale != nil {
			for l := range b.scale {
				b.scale[l] = f.scale[i+c]
			}
		}
		if whole && len(rows) >= 4 {
			a.In, a.Out, a.Count = &f.weights[(i+c)*f.inStep+o*f.outStep], &rows[0][0], int64(len(rows))
			b.layOut(a)
			continue
		}
		last := min(kernel.Lanes, f.outs-o)
		for r := range rows {
			clear(rows[r][last:])
			f.lanes(rows[r][:last], r%f.values, i+c+r/f.values, o)
		}
	}
}

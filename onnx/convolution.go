package onnx

import (
	"errors"
	"fmt"

	"nac/nn"
)

// span is the geometry of a convolution or pooling along one axis.
type span struct {
	size, stride, dilation int
	before, after          int
	in, out                int
}

func (s span) reach() int { return (s.size-1)*s.dilation + 1 }

// maxKernel bounds a filter's side: the widest in use have 31.
const maxKernel = 255

// spans reads the geometry of both axes.
func (c *call) spans(x *nn.Node, kernel []int64) (v, h span, err error) {
	shape := x.Shape()
	if len(kernel) != 2 {
		return v, h, fmt.Errorf("kernel %v: want two dimensions", kernel)
	}
	pair := func(name string, otherwise int64) ([]int64, error) {
		p := c.ints(name)
		if p == nil {
			return []int64{otherwise, otherwise}, nil
		}
		if len(p) != 2 || p[0] < 1 || p[1] < 1 || p[0] > maxKernel || p[1] > maxKernel {
			return nil, fmt.Errorf("%s %v", name, p)
		}
		return p, nil
	}
	strides, err := pair("strides", 1)
	if err != nil {
		return v, h, err
	}
	dilations, err := pair("dilations", 1)
	if err != nil {
		return v, h, err
	}
	pads := c.ints("pads")
	if pads == nil {
		pads = make([]int64, 4)
	}
	if len(pads) != 4 {
		return v, h, fmt.Errorf("pads %v", pads)
	}
	for _, p := range pads {
		if p < 0 || p > maxKernel {
			return v, h, fmt.Errorf("pads %v", pads)
		}
	}
	auto := ""
	if a := c.attributes["auto_pad"]; a != nil {
		auto = string(a.s)
	}
	axes := [2]span{}
	for i, in := range []int{shape.H, shape.W} {
		if kernel[i] < 1 || kernel[i] > maxKernel {
			return v, h, fmt.Errorf("kernel %v", kernel)
		}
		s := span{
			size: int(kernel[i]), stride: int(strides[i]), dilation: int(dilations[i]),
			before: int(pads[i]), after: int(pads[i+2]), in: in,
		}
		if s.reach() > maxKernel {
			return v, h, fmt.Errorf("kernel %v with dilations %v", kernel, dilations)
		}
		switch auto {
		case "", "NOTSET":
			room := in + s.before + s.after - s.reach()
			if c.int("ceil_mode", 0) != 0 {
				room += s.stride - 1
			}
			if room < 0 {
				return v, h, fmt.Errorf("a kernel of %v does not fit into %v", kernel, shape)
			}
			s.out = room/s.stride + 1
			if c.int("ceil_mode", 0) != 0 && (s.out-1)*s.stride >= in+s.before {
				s.out-- // the last window would begin behind the image
			}
		case "VALID":
			s.before, s.after = 0, 0
			if in < s.reach() {
				return v, h, fmt.Errorf("a kernel of %v does not fit into %v", kernel, shape)
			}
			s.out = (in-s.reach())/s.stride + 1
		case "SAME_UPPER", "SAME_LOWER":
			s.out = (in + s.stride - 1) / s.stride
			all := max((s.out-1)*s.stride+s.reach()-in, 0)
			s.before, s.after = all/2, all-all/2
			if auto == "SAME_LOWER" {
				s.before, s.after = s.after, s.before
			}
		default:
			return v, h, fmt.Errorf("auto_pad %q", auto)
		}
		axes[i] = s
	}
	return axes[0], axes[1], nil
}

func convolution(c *call) ([]*value, error) {
	x, err := c.image()
	if err != nil {
		return nil, err
	}
	w, err := c.floats(1)
	if err != nil {
		return nil, err
	}
	if w == nil || len(w.shape) != 4 || w.len() == 0 {
		return nil, errors.New("want weights of four dimensions")
	}
	groups := int(min(max(c.int("group", 1), 0), 1<<20))
	out, per := w.shape[0], w.shape[1]
	if channels := x.Shape().C; groups < 1 || per*groups != channels || out%groups != 0 {
		return nil, fmt.Errorf("weights of %v in %d groups for %d channels", w.shape, groups, channels)
	}
	var bias []float32
	if b, err := c.floats(2); err != nil {
		return nil, err
	} else if b != nil {
		if len(b.floats) != out {
			return nil, fmt.Errorf("%d biases for %d channels", len(b.floats), out)
		}
		bias = b.floats
	}
	v, h, err := c.spans(x, []int64{int64(w.shape[2]), int64(w.shape[3])})
	if err != nil {
		return nil, err
	}
	k, weight, err := c.square(v, h, w)
	if err != nil {
		return nil, err
	}
	k.Groups = groups
	shape := nn.Shape{C: out, H: v.out, W: h.out}
	if err := c.account(shape); err != nil {
		return nil, err
	}
	if groups > 1 && groups == x.Shape().C && out == groups {
		return c.result(c.graph.Depthwise(x, weight, bias, k)), nil
	}
	y := c.graph.Conv(x, weight, bias, k)
	if s := x.Shape(); k.Size == 1 && groups == 1 && s.H == 1 && s.W == 1 {
		c.linears[y] = linear{x, weight, bias}
	}
	return c.result(y), nil
}

// square brings a filter into a square one with zeros around and between, so
// that rows and columns have one size and padding.
func (c *call) square(v, h span, w *tensor) (nn.ConvShape, []float32, error) {
	if v.stride != h.stride && v.out > 1 && h.out > 1 {
		return nn.ConvShape{}, nil, fmt.Errorf("strides %d and %d: want one for both axes", v.stride, h.stride)
	}
	stride := v.stride
	if v.out == 1 {
		stride = h.stride
	}
	for size := max(v.reach(), h.reach()); size <= maxKernel; size++ {
		for top := range size - v.reach() + 1 {
			left := v.before + top - h.before
			if left < 0 || left > size-h.reach() {
				continue
			}
			k := nn.ConvShape{Size: size, Stride: stride, Pad: v.before + top}
			// Zeros behind the image only decide the size of the output.
			least := func(s span) int { return (s.out-1)*stride + size - s.in - 2*k.Pad }
			if k.Trail = max(least(v), least(h)); k.Trail < min(least(v), least(h))+stride {
				return k, c.embedded(w, v, h, size, top, left), c.roomFor(w, size)
			}
		}
		if size > max(v.reach(), h.reach())+2*stride+8 {
			break
		}
	}
	return nn.ConvShape{}, nil, fmt.Errorf("padding %d, %d, %d, %d cannot be brought to one for both axes", v.before, h.before, v.after, h.after)
}

func (c *call) roomFor(w *tensor, size int) error {
	if int64(w.shape[0])*int64(w.shape[1])*int64(size*size) > maxActivation {
		return fmt.Errorf("weights of %v are too large", w.shape)
	}
	return nil
}

func (c *call) embedded(w *tensor, v, h span, size, top, left int) []float32 {
	if v.reach() == size && h.reach() == size && v.dilation == 1 && h.dilation == 1 {
		return w.floats
	}
	if c.roomFor(w, size) != nil {
		return nil
	}
	r := make([]float32, w.shape[0]*w.shape[1]*size*size)
	for f := range w.shape[0] * w.shape[1] {
		for y := range v.size {
			for x := range h.size {
				r[(f*size+top+y*v.dilation)*size+left+x*h.dilation] = w.floats[(f*v.size+y)*h.size+x]
			}
		}
	}
	return r
}

func pool(c *call) ([]*value, error) {
	x, err := c.image()
	if err != nil {
		return nil, err
	}
	if len(c.outputs) > 1 {
		return nil, errors.New("indices of the largest values are not supported")
	}
	v, h, err := c.spans(x, c.ints("kernel_shape"))
	if err != nil {
		return nil, err
	}
	average := c.op == "AveragePool"
	if average && v.size == 1 && h.size == 1 && v.stride == 1 && h.stride == 1 && v.before+v.after+h.before+h.after == 0 {
		return []*value{c.in[0]}, nil
	}
	s := x.Shape()
	if average && v.size == s.H && h.size == s.W && v.out == 1 && h.out == 1 && v.before+h.before == 0 && v.dilation*h.dilation == 1 {
		return c.result(c.graph.GlobalAvgPool(x)), nil
	}
	if v.size != h.size || v.stride != h.stride || v.before != h.before || v.dilation != 1 || h.dilation != 1 {
		return nil, fmt.Errorf("a pooling of %dx%d with strides %d and %d, padding %d and %d and dilations %d and %d: want squares without dilation",
			v.size, h.size, v.stride, h.stride, v.before, h.before, v.dilation, h.dilation)
	}
	inner := average && c.int("count_include_pad", 0) == 0
	if average && !inner && (v.outside() || h.outside()) {
		return nil, errors.New("an average that counts padding in ceil mode is not supported")
	}
	if err := c.account(nn.Shape{C: s.C, H: v.out, W: h.out}); err != nil {
		return nil, err
	}
	return c.result(c.graph.Pool(x, nn.Pool{
		Size: v.size, Stride: v.stride, Pad: v.before, Height: v.out, Width: h.out, Average: average, Inner: inner,
	})), nil
}

// outside reports whether the last window leaves even the padded image.
func (s span) outside() bool { return (s.out-1)*s.stride+s.reach() > s.in+s.before+s.after }

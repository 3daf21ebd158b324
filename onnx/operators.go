package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"nac/nn"
)

// call is one use of an operator: in holds what its inputs stand for, konst the
// constants among them.
type call struct {
	*importer
	*node
	in    []*value
	konst []*tensor
}

// operators are those that an activation may pass through.
var operators map[string]func(*call) ([]*value, error)

func init() {
	pass := func(c *call) ([]*value, error) { return []*value{c.in[0]}, nil }
	operators = map[string]func(*call) ([]*value, error){
		"Identity":           pass,
		"Dropout":            pass,
		"Cast":               castActivation,
		"Conv":               convolution,
		"Gemm":               gemm,
		"MatMul":             matMul,
		"BatchNormalization": batchNorm,
		"Relu":               relu,
		"Clip":               clip,
		"Sigmoid":            function(nn.Sigmoid),
		"Tanh":               function(nn.Tanh),
		"Erf":                function(nn.Erf),
		"HardSwish":          function(nn.HardSwish),
		"Gelu":               gelu,
		"LayerNormalization": layerNorm,
		"HardSigmoid":        hardSigmoid,
		"Add":                sum,
		"Sub":                difference,
		"Mul":                product,
		"Div":                quotient,
		"Neg":                negative,
		"MaxPool":            pool,
		"AveragePool":        pool,
		"GlobalAveragePool":  globalAverage,
		"ReduceMean":         reduceMean,
		"Flatten":            reshape,
		"Reshape":            reshape,
		"Squeeze":            reshape,
		"Unsqueeze":          reshape,
		"Transpose":          transpose,
		"Concat":             concat,
		"Split":              split,
		"Slice":              slice,
		"Softmax":            softmax,
		"LogSoftmax":         softmax,
	}
}

func (c *call) view() (*view, error) {
	if c.in[0].view == nil {
		return nil, errors.New("a constant where an activation is expected")
	}
	return c.in[0].view, nil
}

// image returns the node of input 0, which must be N, C, H, W.
func (c *call) image() (*nn.Node, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	return c.nchw(v)
}

// floats returns a constant input of floats, nil if it is absent.
func (c *call) floats(i int) (*tensor, error) {
	if i >= len(c.in) || c.in[i] == nil {
		return nil, nil
	}
	if c.konst[i] == nil {
		return nil, fmt.Errorf("input %d is computed: want a constant", i)
	}
	if c.konst[i].isInt() {
		return nil, fmt.Errorf("input %d holds whole numbers: quantised models are not supported", i)
	}
	return c.konst[i], nil
}

// constants refuses computed inputs from the second on.
func (c *call) constants() error {
	for i := 1; i < len(c.in); i++ {
		if c.in[i] != nil && c.konst[i] == nil {
			return fmt.Errorf("input %d is computed: want a constant", i)
		}
	}
	return nil
}

// result is the view N, C, H, W of a node.
func (c *call) result(n *nn.Node) []*value { return []*value{{view: image(n, c.batch)}} }

// pointwise is a view of another node ordered as v is.
func pointwise(v *view, n *nn.Node) []*value {
	return []*value{{view: &view{node: n, dims: v.dims}}}
}

func castActivation(c *call) ([]*value, error) {
	if to := c.int("to", 0); !isFloatType(to) {
		return nil, fmt.Errorf("casting an activation to element type %d is not supported", to)
	}
	return []*value{c.in[0]}, nil
}

// affine is scale*x + shift for each channel.
func (c *call) affine(v *view, scale, shift []float32) ([]*value, error) {
	if err := c.account(v.node.Shape()); err != nil {
		return nil, err
	}
	return pointwise(v, c.graph.Affine(v.node, scale, shift)), nil
}

func fill(n int, v float32) []float32 {
	r := make([]float32, n)
	for i := range r {
		r[i] = v
	}
	return r
}

func batchNorm(c *call) ([]*value, error) {
	x, err := c.image()
	if err != nil {
		return nil, err
	}
	if c.int("training_mode", 0) != 0 || len(c.outputs) > 1 {
		return nil, errors.New("batch norm in training mode: export the model in eval mode")
	}
	var p [4][]float32
	for i := range p {
		t, err := c.floats(i + 1)
		if err != nil {
			return nil, err
		}
		if t == nil || len(t.floats) != x.Shape().C {
			return nil, fmt.Errorf("input %d is not a value for each of %d channels", i+1, x.Shape().C)
		}
		p[i] = t.floats
	}
	if err := c.account(x.Shape()); err != nil {
		return nil, err
	}
	y := image(c.graph.BatchNorm(x, p[0], p[1], p[2], p[3], float64(c.float("epsilon", 1e-5))), c.batch)
	y.dims = y.dims[:len(c.in[0].view.dims)]
	return []*value{{view: y}}, nil
}

func relu(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	if err := c.account(v.node.Shape()); err != nil {
		return nil, err
	}
	return pointwise(v, c.graph.ReLU(v.node)), nil
}

func clip(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	low, high := math.Inf(-1), math.Inf(1)
	for i, bound := range []*float64{&low, &high} {
		t, err := c.floats(i + 1)
		if err != nil {
			return nil, err
		}
		if t != nil {
			if t.len() != 1 {
				return nil, errors.New("bounds that are not single values")
			}
			*bound = float64(t.floats[0])
		}
	}
	if low != 0 || !(high > 0) {
		return nil, fmt.Errorf("clipping to %v..%v is not supported: the lower bound must be 0", low, high)
	}
	if err := c.account(v.node.Shape()); err != nil {
		return nil, err
	}
	if math.IsInf(high, 1) || high == math.MaxFloat32 {
		return pointwise(v, c.graph.ReLU(v.node)), nil
	}
	return pointwise(v, c.graph.Clip(v.node, float32(high))), nil
}

func function(f nn.Function) func(*call) ([]*value, error) {
	return func(c *call) ([]*value, error) {
		v, err := c.view()
		if err != nil {
			return nil, err
		}
		if err := c.account(v.node.Shape()); err != nil {
			return nil, err
		}
		return pointwise(v, c.graph.Apply(f, v.node)), nil
	}
}

func hardSigmoid(c *call) ([]*value, error) {
	alpha, beta := c.float("alpha", 0.2), c.float("beta", 0.5)
	if math.Abs(float64(alpha)-1./6) > 1e-6 || beta != 0.5 {
		return nil, fmt.Errorf("alpha %v and beta %v: want 1/6 and 1/2", alpha, beta)
	}
	return function(nn.HardSigmoid)(c)
}

func gelu(c *call) ([]*value, error) {
	if a := c.attributes["approximate"]; a != nil && string(a.s) != "none" {
		return nil, fmt.Errorf("the approximation %q is not supported", a.s)
	}
	return function(nn.GELU)(c)
}

// layerNorm normalises the channels of each pixel.
func layerNorm(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	a, err := axis(c.int("axis", -1), len(v.dims))
	if err != nil {
		return nil, err
	}
	if a != len(v.dims)-1 || len(c.outputs) > 1 {
		return nil, errors.New("a layer norm over several dimensions or with its moments is not supported")
	}
	if v, err = c.plain(v, a); err != nil {
		return nil, err
	}
	channels := v.node.Shape().C
	p := [2][]float32{fill(channels, 1), make([]float32, channels)}
	for i := range p {
		t, err := c.floats(i + 1)
		if err != nil {
			return nil, err
		}
		if t == nil && i == 1 {
			break
		}
		if t == nil || len(t.floats) != channels {
			return nil, fmt.Errorf("input %d is not a value for each of %d channels", i+1, channels)
		}
		p[i] = t.floats
	}
	if err := c.account(v.node.Shape()); err != nil {
		return nil, err
	}
	return pointwise(v, c.graph.LayerNorm(v.node, p[0], p[1], float64(c.float("epsilon", 1e-5)))), nil
}

// operands returns the activation and the constant of a call with one of each;
// the constant is nil if both are activations.
func (c *call) operands() (v, w *view, t *tensor, swapped bool, err error) {
	if len(c.in) != 2 || c.in[0] == nil || c.in[1] == nil {
		return nil, nil, nil, false, errors.New("want two inputs")
	}
	a, b := c.in[0], c.in[1]
	switch {
	case a.view != nil && b.view != nil:
		return a.view, b.view, nil, false, nil
	case a.view != nil:
		return a.view, nil, b.konst, false, nil
	}
	return b.view, nil, a.konst, true, nil
}

func sum(c *call) ([]*value, error) {
	v, w, t, _, err := c.operands()
	if err != nil {
		return nil, err
	}
	if t == nil {
		return c.add(v, w)
	}
	shift, err := v.perChannel(t)
	if err != nil {
		return nil, err
	}
	if l, ok := c.linears[v.node]; ok && l.bias == nil {
		// A linear layer that the exporter has written as a product and a sum.
		l.bias = shift
		y := c.graph.Linear(l.in, l.weight, l.bias)
		c.linears[y] = l
		return pointwise(v, y), nil
	}
	return c.affine(v, fill(len(shift), 1), shift)
}

func (c *call) add(v, w *view) ([]*value, error) {
	v, w, err := c.alike(v, w)
	if err != nil {
		return nil, err
	}
	if v.node.Shape() != w.node.Shape() {
		return nil, fmt.Errorf("a sum of %v and %v is not supported", v.shape(), w.shape())
	}
	if err := c.account(v.node.Shape()); err != nil {
		return nil, err
	}
	return pointwise(v, c.graph.Add(v.node, w.node)), nil
}

// alike makes two views order their values alike, where they are images; the
// second may have one value a channel.
func (c *call) alike(v, w *view) (*view, *view, error) {
	if same(v, w) {
		return v, w, nil
	}
	x, err := c.nchw(v)
	if err != nil {
		return nil, nil, err
	}
	y, err := c.nchw(w)
	if err != nil {
		return nil, nil, err
	}
	a, b := image(x, c.batch), image(y, c.batch)
	if len(v.dims) != len(w.dims) {
		return nil, nil, fmt.Errorf("shapes %v and %v do not fit", v.shape(), w.shape())
	}
	a.dims, b.dims = a.dims[:len(v.dims)], b.dims[:len(v.dims)]
	return a, b, nil
}

func difference(c *call) ([]*value, error) {
	v, w, t, swapped, err := c.operands()
	if err != nil {
		return nil, err
	}
	if t != nil {
		shift, err := v.perChannel(t)
		if err != nil {
			return nil, err
		}
		if swapped {
			return c.affine(v, fill(len(shift), -1), shift)
		}
		for i := range shift {
			shift[i] = -shift[i]
		}
		return c.affine(v, fill(len(shift), 1), shift)
	}
	channels := w.node.Shape().C
	minus, err := c.affine(w, fill(channels, -1), make([]float32, channels))
	if err != nil {
		return nil, err
	}
	return c.add(v, minus[0].view)
}

func negative(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	channels := v.node.Shape().C
	return c.affine(v, fill(channels, -1), make([]float32, channels))
}

func product(c *call) ([]*value, error) {
	v, w, t, _, err := c.operands()
	if err != nil {
		return nil, err
	}
	if t != nil {
		scale, err := v.perChannel(t)
		if err != nil {
			return nil, err
		}
		return c.affine(v, scale, make([]float32, len(scale)))
	}
	if v, w, err = c.alike(v, w); err != nil {
		return nil, err
	}
	x, y := v.node.Shape(), w.node.Shape()
	if x.H*x.W < y.H*y.W {
		v, w, x, y = w, v, y, x
	}
	if x != y && y != (nn.Shape{C: x.C, H: 1, W: 1}) {
		return nil, fmt.Errorf("a product of %v and %v is not supported", v.shape(), w.shape())
	}
	if err := c.account(x); err != nil {
		return nil, err
	}
	return pointwise(v, c.graph.Mul(v.node, w.node)), nil
}

func quotient(c *call) ([]*value, error) {
	v, _, t, swapped, err := c.operands()
	if err != nil {
		return nil, err
	}
	if t == nil || swapped {
		return nil, errors.New("division by an activation is not supported")
	}
	scale, err := v.perChannel(t)
	if err != nil {
		return nil, err
	}
	for i, s := range scale {
		scale[i] = 1 / s
	}
	return c.affine(v, scale, make([]float32, len(scale)))
}

func globalAverage(c *call) ([]*value, error) {
	x, err := c.image()
	if err != nil {
		return nil, err
	}
	if err := c.account(x.Shape()); err != nil {
		return nil, err
	}
	return c.result(c.graph.GlobalAvgPool(x)), nil
}

// reduceMean is the mean over height and width.
func reduceMean(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	axes, err := c.axes(len(v.dims), c.konst)
	if err != nil {
		return nil, err
	}
	if axes == nil {
		return nil, errors.New("a mean over all axes is not supported")
	}
	s, pixels := v.node.Shape(), 1
	for _, a := range axes {
		for _, at := range v.dims[a] {
			if at.axis != 'H' && at.axis != 'W' {
				return nil, fmt.Errorf("a mean over axis %d of %v is not supported: it is not height or width", a, v.shape())
			}
			pixels *= at.size
		}
	}
	if pixels != s.H*s.W {
		return nil, errors.New("a mean over height or width alone is not supported")
	}
	if err := c.account(s); err != nil {
		return nil, err
	}
	r := &view{node: c.graph.GlobalAvgPool(v.node)}
	keep := c.int("keepdims", 1) != 0
	for i, d := range v.dims {
		switch {
		case !slices.Contains(axes, i):
			r.dims = append(r.dims, d)
		case keep:
			r.dims = append(r.dims, nil)
		}
	}
	return []*value{{view: r}}, nil
}

func reshape(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	shape, err := c.newShape(v.shape(), c.konst)
	if err != nil {
		return nil, err
	}
	r, err := v.reshaped(shape)
	return []*value{{view: r}}, err
}

func transpose(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	perm, err := c.permutation(len(v.dims))
	if err != nil {
		return nil, err
	}
	return []*value{{view: v.transposed(perm)}}, nil
}

func concat(c *call) ([]*value, error) {
	var nodes []*nn.Node
	rank := 0
	s := nn.Shape{}
	for i, v := range c.in {
		if v == nil || v.view == nil {
			return nil, errors.New("a concatenation with a constant is not supported")
		}
		x, err := c.nchw(v.view)
		if err != nil {
			return nil, err
		}
		if i > 0 && (len(v.view.dims) != rank || x.Shape().H != s.H || x.Shape().W != s.W) {
			return nil, fmt.Errorf("shapes %v and %v do not fit", c.in[0].view.shape(), v.view.shape())
		}
		rank = len(v.view.dims)
		s = nn.Shape{C: s.C + x.Shape().C, H: x.Shape().H, W: x.Shape().W}
		nodes = append(nodes, x)
	}
	if a, err := axis(c.int("axis", 0), rank); err != nil || a != 1 {
		return nil, errors.New("a concatenation over another axis than the channels is not supported")
	}
	if err := c.account(s); err != nil {
		return nil, err
	}
	r := c.result(c.graph.Concat(nodes...))
	r[0].view.dims = r[0].view.dims[:rank]
	return r, nil
}

// channelDim checks that dimension a of a view is the channels, and returns which
// they are, in order.
func (c *call) channelDim(a int) (*view, []int, error) {
	v, err := c.view()
	if err != nil {
		return nil, nil, err
	}
	index, err := v.channels(a)
	return v, index, err
}

func split(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	a, err := axis(c.int("axis", 0), len(v.dims))
	if err != nil {
		return nil, err
	}
	_, index, err := c.channelDim(a)
	if err != nil {
		return nil, err
	}
	parts := c.ints("split")
	if t := input(c.konst, 1); t != nil {
		parts = t.ints
	}
	if parts == nil {
		n := int(c.int("num_outputs", int64(len(c.outputs))))
		if n < 1 || n > len(index) || n != len(c.outputs) {
			return nil, fmt.Errorf("%d channels in %d parts", len(index), n)
		}
		each := (len(index) + n - 1) / n
		for rest := len(index); rest > 0; rest -= each {
			parts = append(parts, int64(min(each, rest)))
		}
	}
	if len(parts) != len(c.outputs) {
		return nil, fmt.Errorf("%d parts for %d outputs", len(parts), len(c.outputs))
	}
	var r []*value
	for _, n := range parts {
		if n < 1 || n > int64(len(index)) {
			return nil, fmt.Errorf("parts %v of %d channels", parts, len(v.dims[a]))
		}
		w, err := c.selected(v, a, index[:n])
		if err != nil {
			return nil, err
		}
		r, index = append(r, &value{view: w}), index[n:]
	}
	return r, nil
}

// selected is the view of some of v's channels, which are its dimension a.
func (c *call) selected(v *view, a int, index []int) (*view, error) {
	s := v.node.Shape()
	if err := c.account(nn.Shape{C: len(index), H: s.H, W: s.W}); err != nil {
		return nil, err
	}
	return v.with(c.graph.Select(v.node, index), a), nil
}

func slice(c *call) ([]*value, error) {
	if err := c.constants(); err != nil {
		return nil, err
	}
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	cuts, err := c.cuts(v.shape(), c.konst)
	if err != nil {
		return nil, err
	}
	for a, cut := range cuts {
		if cut == nil || whole(cut, size(v.dims[a])) {
			continue
		}
		index, err := v.channels(a)
		if err != nil {
			return nil, fmt.Errorf("a slice of another axis than the channels is not supported: %w", err)
		}
		if len(cut) == 0 {
			return nil, errors.New("a slice of nothing")
		}
		taken := make([]int, len(cut))
		for i, k := range cut {
			taken[i] = index[k]
		}
		if v, err = c.selected(v, a, taken); err != nil {
			return nil, err
		}
	}
	return []*value{{view: v}}, nil
}

func whole(cut []int64, n int) bool {
	for i, k := range cut {
		if int64(i) != k {
			return false
		}
	}
	return len(cut) == n
}

// softmax is left out at the end of a network: detectors want logits.
func softmax(c *call) ([]*value, error) {
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	a, err := axis(c.int("axis", -1), len(v.dims))
	if err != nil {
		return nil, err
	}
	if s := v.node.Shape(); axesOf(v.dims[a]) != "C" || s.H != 1 || s.W != 1 {
		return nil, errors.New("a softmax is supported over the classes at the end only")
	}
	return []*value{{view: v, probabilities: true}}, nil
}

package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

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
		"Attention":          attention,
		"BatchNormalization": batchNorm,
		"Relu":               relu,
		"Clip":               clip,
		"Sigmoid":            function(nn.Sigmoid),
		"Tanh":               function(nn.Tanh),
		"Erf":                erf,
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
		"Gather":             gather,
		"Pad":                pad,
		"Expand":             expand,
		"Pow":                momentOnly,
		"Sqrt":               momentOnly,
		"Slice":              slice,
		"Softmax":            softmax,
		"LogSoftmax":         softmax,
	}
}

// view returns input 0, which must be an activation whose pixels may be computed
// each by itself.
func (c *call) view() (*view, error) { return c.activation(c.in[0]) }

// activation returns an activation of which a function of each pixel by itself
// may be computed: one whose grid is the node's, at most in another order.
func (m *importer) activation(x *value) (*view, error) {
	switch {
	case x == nil || x.view == nil:
		return nil, errors.New("a constant where an activation is expected")
	case x.view.part != nil:
		return nil, errors.New(x.view.part.want())
	case !x.view.permutes():
		return m.whole(x.view)
	}
	return x.view, nil
}

// seen returns input 0, which only a view is made of.
func (c *call) seen() (*view, error) {
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
	r := v.as(v.dims)
	r.node = n
	return []*value{{view: r}}
}

func momentOnly(c *call) ([]*value, error) {
	return nil, errors.New("of activations this operator is supported within a layer norm only")
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
	if n, ok := c.norms[v.node]; ok {
		// The weight or the bias of a layer norm that is written in steps.
		n = norm{n.of, slices.Clone(n.weight), slices.Clone(n.bias), n.eps}
		for i := range n.weight {
			n.weight[i] *= scale[i]
			n.bias[i] = n.bias[i]*scale[i] + shift[i]
		}
		y := c.graph.LayerNorm(n.of, n.weight, n.bias, n.eps)
		c.norms[y], c.bypassed[v.node] = n, true
		return pointwise(v, y), nil
	}
	if !slices.ContainsFunc(shift, func(x float32) bool { return x != 0 }) && uniform(scale) {
		return c.multiple(v, float64(scale[0]))
	}
	y := c.graph.Affine(v.node, scale, shift)
	if l, ok := c.linears[v.node]; ok && l.bias == nil && uniform(scale) && scale[0] == 1 {
		// A linear layer that the exporter has written as a product and a sum.
		l.bias = shift
		c.linears[y] = l
	}
	if of, ok := c.erfs[v.node]; ok && uniform(scale) && uniform(shift) && scale[0] == shift[0] {
		c.gates[y] = multiple{of, float64(scale[0])}
	}
	return pointwise(v, y), nil
}

func uniform(v []float32) bool {
	return !slices.ContainsFunc(v, func(x float32) bool { return x != v[0] })
}

// multiple is factor*x; a multiple of a multiple is one.
func (c *call) multiple(v *view, factor float64) ([]*value, error) {
	of := multiple{v.node, factor}
	if m, ok := c.multiples[v.node]; ok {
		of = multiple{m.node, m.factor * factor}
		c.bypassed[v.node] = true
	}
	if of.factor == 1 {
		r := pointwise(v, of.node)
		if of.node != v.node {
			r[0].shared = !c.private[of.node]
			for i, x := range c.in {
				r[0].shared = r[0].shared || (x.view != nil && c.uses[c.inputs[i]] > 1)
			}
		}
		return r, nil
	}
	channels := v.node.Shape().C
	y := c.graph.Affine(of.node, fill(channels, float32(of.factor)), make([]float32, channels))
	c.multiples[y] = of
	if gate, ok := c.gates[v.node]; ok {
		c.gates[y] = multiple{gate.node, gate.factor * factor}
	}
	return pointwise(v, y), nil
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

// erf is the error function, perhaps within a GELU.
func erf(c *call) ([]*value, error) {
	r, err := function(nn.Erf)(c)
	if err != nil {
		return nil, err
	}
	if m, ok := c.multiples[c.in[0].view.node]; ok && math.Abs(m.factor*math.Sqrt2-1) < 1e-6 {
		c.erfs[r[0].view.node] = m.node
	}
	return r, nil
}

// gelu2 is x * a(1 + erf(x/sqrt 2)), if that is what two factors are.
func (c *call) gelu2(v, w *view) ([]*value, bool, error) {
	if !same(v, w) {
		return nil, false, nil
	}
	for range 2 {
		if gate, ok := c.gates[w.node]; ok {
			factor := 2 * gate.factor
			if m, ok := c.multiples[v.node]; ok && m.node == gate.node {
				factor *= m.factor
			} else if v.node != gate.node {
				return nil, false, nil
			}
			if err := c.account(v.node.Shape()); err != nil {
				return nil, false, err
			}
			y := c.graph.Apply(nn.GELU, gate.node)
			c.private[y] = true
			r, err := c.multiple(pointwise(v, y)[0].view, factor)
			return r, true, err
		}
		v, w = w, v
	}
	return nil, false, nil
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
	if a.view != nil && b.view != nil {
		if v, err = c.activation(a); err == nil {
			w, err = c.activation(b)
		}
		return v, w, nil, false, err
	}
	t = b.konst
	if swapped = a.view == nil; swapped {
		a, t = b, a.konst
	}
	if v, err = c.activation(a); err != nil {
		return nil, nil, nil, false, err
	}
	if extra := len(t.shape) - len(v.dims); extra > 0 {
		v = v.as(append(make([][]atom, extra), v.dims...))
	}
	return v, nil, t, swapped, nil
}

func sum(c *call) ([]*value, error) {
	if s := c.scores(); s != nil {
		return s.biased(c.scored())
	}
	v, w, t, _, err := c.operands()
	if err != nil {
		return nil, err
	}
	if t == nil {
		return c.add(v, w)
	}
	shift, table, err := v.constant(t)
	if err != nil {
		return nil, err
	}
	if table != nil {
		return c.tabled(v, table)
	}
	return c.affine(v, fill(len(shift), 1), shift)
}

// tabled adds a constant for each pixel and channel.
func (c *call) tabled(v *view, table []float32) ([]*value, error) {
	v, err := c.whole(v)
	if err != nil {
		return nil, err
	}
	s := v.node.Shape()
	if err := c.account(s); err != nil {
		return nil, err
	}
	from, ok := c.tables[v.node]
	if ok {
		// To pixels that have a constant already.
		c.bypassed[v.node] = true
		for i, x := range from.table {
			table[i] += x
		}
	} else {
		from = tokens{of: v.node, index: make([]int, s.H*s.W)}
		for i := range from.index {
			from.index[i] = i
		}
	}
	return pointwise(v, c.graph.Pixels(from.of, s.H, s.W, from.index, table)), nil
}

// scores returns what one of two operands is if it is scores.
func (c *call) scores() *scores {
	for _, x := range c.in {
		if s := scoresOf(x); s != nil {
			return s
		}
	}
	return nil
}

// scored returns the view of the scores and the constant beside, nil if there is none.
func (c *call) scored() (*view, *tensor) {
	if len(c.in) != 2 || c.in[0] == nil || c.in[1] == nil {
		return nil, nil
	}
	if scoresOf(c.in[0]) != nil {
		return c.in[0].view, c.konst[1]
	}
	return c.in[1].view, c.konst[0]
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
	v, err := c.whole(v)
	if err != nil {
		return nil, nil, err
	}
	if w, err = c.whole(w); err != nil || same(v, w) {
		return v, w, err
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
	if s := c.scores(); s != nil {
		return nil, errors.New(s.want())
	}
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
	if s := c.scores(); s != nil {
		v, t := c.scored()
		return s.scaled(v, t, false)
	}
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
	if r, ok, err := c.gelu2(v, w); ok || err != nil {
		return r, err
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
	if s := c.scores(); s != nil {
		v, t := c.scored()
		if v != c.in[0].view {
			t = nil
		}
		return s.scaled(v, t, true)
	}
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
	if len(axes) == 1 && c.int("keepdims", 1) == 1 && strings.Contains(axesOf(v.dims[axes[0]]), "C") {
		if v, err = c.plain(v, axes[0]); err != nil {
			return nil, err
		}
		return (&moment{of: v, axis: axes[0]}).then(mean, 0)
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
	v, err := c.seen()
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
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	perm, err := c.permutation(len(v.dims))
	if err != nil {
		return nil, err
	}
	return []*value{{view: v.transposed(perm)}}, nil
}

// softmax is left out at the end of a network: detectors want logits.
func softmax(c *call) ([]*value, error) {
	v, err := c.seen()
	if err != nil {
		return nil, err
	}
	a, err := axis(c.int("axis", -1), len(v.dims))
	if err != nil {
		return nil, err
	}
	if s := scoresOf(c.in[0]); s != nil && c.op == "Softmax" {
		return s.weights(v, a)
	}
	if v.part != nil {
		return nil, errors.New(v.part.want())
	}
	if v, err = c.whole(v); err != nil {
		return nil, err
	}
	if s := v.node.Shape(); axesOf(v.dims[a]) != "C" || s.H != 1 || s.W != 1 {
		return nil, errors.New("a softmax is supported over the classes at the end only")
	}
	return []*value{{view: v, probabilities: true}}, nil
}

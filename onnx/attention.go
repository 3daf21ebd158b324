package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"nac/nn"
)

// Exporters write attention as products, a softmax, and reshapes between them.
// The product of queries and keys is kept as what it is of, until the product
// with the values makes it one operation of package nn.

// heads are queries, keys or values: a token's channels, by head.
type heads struct {
	view     *view
	channels []int // of view.node, [count][dim]
	count    int
	dim      int
	batch    []atom // along which the windows lie
	tokens   []atom // those of a window
}

// scores are products of queries and keys, and what was done to them. Their
// view's atoms count images and windows as the queries' do, heads as channels,
// and queries and keys within a window as 'q' and 'k'.
type scores struct {
	q, k    *heads
	scale   float64
	bias    []float32 // [windows][heads][queries][keys]; nil if there is none
	softmax bool
}

func (*scores) want() string {
	return "products of activations are supported as attention only: scaled, with a constant added, a softmax over the keys, times the values"
}

// scoresOf returns what a value is if it is scores.
func scoresOf(x *value) *scores {
	if x == nil || x.view == nil {
		return nil
	}
	s, _ := x.view.part.(*scores)
	return s
}

// heads reads an operand of a product, whose last two dimensions are tokens and
// channels of a head.
func (m *importer) heads(x *value, tokens, channels int) (*heads, error) {
	v, err := m.activation(x)
	if err != nil {
		return nil, err
	}
	fail := func() (*heads, error) {
		return nil, fmt.Errorf("an activation of shape %v that is not of heads, tokens and channels: this product of activations is not supported", v.shape())
	}
	h := &heads{view: v, count: 1, dim: 1, tokens: v.dims[tokens]}
	index := []int{0}
	extend := func(a atom) {
		next := make([]int, 0, len(index)*a.size)
		for _, i := range index {
			for k := range a.size {
				next = append(next, i+k*a.step)
			}
		}
		index = next
	}
	for _, d := range v.dims[:len(v.dims)-2] {
		for _, a := range d {
			switch a.axis {
			case 'C':
				h.count *= a.size
				extend(a)
			case 'H', 'W':
				h.batch = append(h.batch, a)
			}
		}
	}
	for _, a := range v.dims[channels] {
		if a.axis != 'C' {
			return fail()
		}
		h.dim *= a.size
		extend(a)
	}
	for _, a := range h.tokens {
		if a.axis != 'H' && a.axis != 'W' {
			return fail()
		}
	}
	h.channels = index
	if h.count*h.dim != v.node.Shape().C {
		return fail()
	}
	return h, nil
}

// window is the side of the windows that the tokens are of, 0 if they are all
// the image's pixels.
func (h *heads) window() (int, error) {
	height, width := h.view.height(), h.view.width()
	if len(h.batch) == 0 {
		if order, err := (&view{node: h.view.node, rows: h.view.rows, cols: h.view.cols, dims: [][]atom{h.tokens}}).pixels(0); err != nil || !identity(order) {
			return 0, errors.New("attention among some of the pixels, or in another order, is not supported")
		}
		return 0, nil
	}
	side := 1
	if len(h.tokens) > 0 {
		side = h.tokens[0].size
	}
	part := map[byte]int{'H': 1, 'W': 1}
	for _, a := range h.batch {
		part[a.axis] *= a.size
		if a.step != side {
			part[a.axis] = 0
		}
	}
	if !slices.Equal(h.tokens, []atom{{'H', side, 1}, {'W', side, 1}}) || part['H']*side != height || part['W']*side != width {
		return 0, errors.New("attention within groups of pixels that are not square windows is not supported")
	}
	return side, nil
}

func count(atoms []atom, axis byte) int {
	n := 1
	for _, a := range atoms {
		if a.axis == axis {
			n *= a.size
		}
	}
	return n
}

// alike reports whether two operands are of the same heads and tokens.
func (h *heads) alike(o *heads) bool {
	return h.count == o.count && h.dim == o.dim && slices.Equal(h.batch, o.batch) && slices.Equal(h.tokens, o.tokens) &&
		h.view.node.Shape() == o.view.node.Shape() && slices.Equal(h.view.rows, o.view.rows) && slices.Equal(h.view.cols, o.view.cols)
}

// sameBatch reports whether the dimensions before the last two count images,
// windows and heads alike.
func sameBatch(v, w *view) bool {
	for i := range len(v.dims) - 2 {
		layout := func(d []atom) []atom {
			var r []atom
			for _, a := range d {
				if a.axis == 'C' {
					a.step = 1
				}
				if a.axis != 'N' || a.size > 1 {
					r = append(r, a)
				}
			}
			return r
		}
		if !slices.Equal(layout(v.dims[i]), layout(w.dims[i])) {
			return false
		}
	}
	return true
}

// attention is the operator of that name: scaled products of queries and keys, with a
// constant added, softmax, and the product with the values.
func attention(c *call) ([]*value, error) {
	if len(c.in) < 3 || c.in[1] == nil || c.in[2] == nil {
		return nil, errors.New("want queries, keys and values")
	}
	for i := 4; i < len(c.in); i++ {
		if c.in[i] != nil {
			return nil, fmt.Errorf("input %d, of what was before, is not supported", i)
		}
	}
	for _, name := range c.outputs[1:] {
		if name != "" {
			return nil, fmt.Errorf("output %q beside the first is not supported", name)
		}
	}
	if c.int("is_causal", 0) != 0 || c.float("softcap", 0) != 0 {
		return nil, errors.New("attention that is causal or has a soft cap is not supported")
	}
	var parts [3]*value // [images][heads][tokens][channels]
	flat := false
	for i, name := range []string{"q_num_heads", "kv_num_heads", "kv_num_heads"} {
		x := c.in[i]
		if x.view == nil {
			return nil, errors.New("a constant where an activation is expected")
		}
		switch rank := len(x.view.dims); rank {
		case 4:
		case 3:
			shape, heads := x.view.shape(), c.int(name, 0)
			if heads < 1 || int64(shape[2])%heads != 0 {
				return nil, fmt.Errorf("%d heads of %v", heads, shape)
			}
			v, err := x.view.reshaped([]int{shape[0], shape[1], int(heads), shape[2] / int(heads)})
			if err != nil {
				return nil, err
			}
			x, flat = &value{view: v.transposed([]int{0, 2, 1, 3})}, true
		default:
			return nil, fmt.Errorf("an input of shape %v: want images, heads, tokens and channels", x.view.shape())
		}
		parts[i] = x
	}
	r, err := c.products(parts[0], &value{view: parts[1].view.transposed([]int{0, 1, 3, 2})})
	if err != nil {
		return nil, err
	}
	s := scoresOf(r[0])
	scale := c.float("scale", float32(1/math.Sqrt(float64(s.q.dim))))
	if r, err = s.scaled(r[0].view, &tensor{shape: []int{}, floats: []float32{scale}}, false); err != nil {
		return nil, err
	}
	if len(c.in) > 3 && c.in[3] != nil {
		if r, err = scoresOf(r[0]).biased(r[0].view, c.konst[3]); err != nil {
			return nil, err
		}
	}
	if r, err = scoresOf(r[0]).weights(r[0].view, 3); err != nil {
		return nil, err
	}
	if r, err = c.attend(scoresOf(r[0]), r[0].view, parts[2]); err != nil || !flat {
		return r, err
	}
	v, shape := r[0].view.transposed([]int{0, 2, 1, 3}), c.in[0].view.shape()
	if v, err = v.reshaped(shape); err != nil {
		return nil, err
	}
	return []*value{{view: v}}, nil
}

// multiply is the product of two activations.
func (c *call) multiply() ([]*value, error) {
	v, w := c.in[0].view, c.in[1].view
	if len(v.dims) < 2 || len(w.dims) != len(v.dims) {
		return nil, fmt.Errorf("a product of shapes %v and %v is not supported", v.shape(), w.shape())
	}
	if s := scoresOf(c.in[0]); s != nil {
		return c.attend(s, v, c.in[1])
	}
	return c.products(c.in[0], c.in[1])
}

// products are those of queries and keys, both with as many dimensions, of which the
// last are tokens and channels of the one, channels and tokens of the other.
func (c *call) products(x, y *value) ([]*value, error) {
	v, w := x.view, y.view
	last := len(v.dims) - 1
	if len(w.dims) != len(v.dims) {
		return nil, fmt.Errorf("a product of shapes %v and %v is not supported", v.shape(), w.shape())
	}
	q, err := c.heads(x, last-1, last)
	if err != nil {
		return nil, err
	}
	k, err := c.heads(y, last, last-1)
	if err != nil {
		return nil, err
	}
	if !q.alike(k) || !sameBatch(q.view, k.view) {
		return nil, fmt.Errorf("a product of shapes %v and %v is not supported: want queries and keys of the same tokens", v.shape(), w.shape())
	}
	if _, err := q.window(); err != nil {
		return nil, err
	}
	r := &view{node: q.view.node, rows: q.view.rows, cols: q.view.cols, part: &scores{q: q, k: k, scale: 1}}
	heads := 1
	for i := len(v.dims) - 3; i >= 0; i-- { // heads count from the last atom on
		d := slices.Clone(v.dims[i])
		for j := len(d) - 1; j >= 0; j-- {
			if d[j].axis == 'C' {
				d[j].step, heads = heads, heads*d[j].size
			}
		}
		r.dims = append([][]atom{d}, r.dims...)
	}
	tokens := size(q.tokens)
	r.dims = append(r.dims, run('q', tokens), run('k', tokens))
	return []*value{{view: r}}, nil
}

// with is the view of scores to which something was done.
func (s *scores) with(v *view, f func(s *scores) error) ([]*value, error) {
	if s.softmax {
		return nil, errors.New("attention whose weights are changed after the softmax is not supported")
	}
	r, changed := *v, *s
	r.part = &changed
	return []*value{{view: &r}}, f(&changed)
}

// scaled is scores times a constant.
func (s *scores) scaled(v *view, t *tensor, divided bool) ([]*value, error) {
	if t == nil || t.isInt() || t.len() != 1 {
		return nil, errors.New(s.want())
	}
	factor := float64(t.floats[0])
	if divided {
		factor = 1 / factor
	}
	return s.with(v, func(s *scores) error {
		s.scale *= factor
		s.bias = slices.Clone(s.bias)
		for i := range s.bias {
			s.bias[i] *= float32(factor)
		}
		return nil
	})
}

// biased is scores with a constant added.
func (s *scores) biased(v *view, t *tensor) ([]*value, error) {
	if t == nil {
		return nil, errors.New(s.want())
	}
	terms, err := v.terms(t)
	if err != nil {
		return nil, err
	}
	side, err := s.q.window()
	if err != nil {
		return nil, err
	}
	return s.with(v, func(s *scores) error {
		tokens, down, across := size(s.q.tokens), count(s.q.batch, 'H'), count(s.q.batch, 'W')
		n := int64(tokens) * int64(tokens)
		if n > maxFolded || n*int64(down*across*s.q.count) > maxFolded {
			return fmt.Errorf("a constant added to attention of %d tokens is too large", tokens)
		}
		bias := make([]float32, int(n)*down*across*s.q.count)
		copy(bias, s.bias)
		i := 0
		for window := range down * across {
			for head := range s.q.count {
				for q := range tokens {
					for k := range tokens {
						bias[i] += t.floats[indexOf(terms, func(axis byte) int {
							switch axis {
							case 'C':
								return head
							case 'H':
								return window / across * side
							case 'W':
								return window % across * side
							case 'q':
								return q
							}
							return k
						})]
						i++
					}
				}
			}
		}
		s.bias = bias
		return nil
	})
}

// weights is the softmax of scores over the keys.
func (s *scores) weights(v *view, axis int) ([]*value, error) {
	if axis != len(v.dims)-1 || !slices.Equal(v.dims[axis], run('k', size(s.q.tokens))) {
		return nil, errors.New("a softmax of products over something else than the keys is not supported")
	}
	return s.with(v, func(s *scores) error { s.softmax = true; return nil })
}

// attend is the product of attention's weights with the values.
func (c *call) attend(s *scores, weights *view, values *value) ([]*value, error) {
	last := len(weights.dims) - 1
	if values.view == nil || len(values.view.dims) != last+1 {
		return nil, errors.New("a product of attention's weights and something else than the values is not supported")
	}
	v, err := c.heads(values, last-1, last)
	if err != nil {
		return nil, err
	}
	tokens := size(s.q.tokens)
	if !s.softmax || !v.alike(s.q) || !sameBatch(weights, v.view) || !slices.Equal(weights.dims[last-1], run('q', tokens)) || !slices.Equal(weights.dims[last], run('k', tokens)) {
		return nil, errors.New("a product of attention's weights and something else than the values is not supported")
	}
	side, err := s.q.window()
	if err != nil {
		return nil, err
	}
	shift, bias, err := s.window(side)
	if err != nil {
		return nil, err
	}
	q, grid := s.q, s.q.view
	if shift == 0 {
		// Windows of a rolled image that know nothing of it: roll it.
		for _, h := range []*heads{s.q, s.k, v} {
			if h.view, err = c.whole(h.view); err != nil {
				return nil, err
			}
		}
		q, grid = s.q, s.q.view
	}
	x, scale, err := c.stacked(s.q, s.k, v)
	if err != nil {
		return nil, err
	}
	channels := q.count * q.dim
	if factor := s.scale * scale * math.Sqrt(float64(q.dim)); math.Abs(factor-1) > 1e-6 {
		f := fill(3*channels, 1)
		for i := range channels {
			f[i] = float32(factor)
		}
		x = c.graph.Affine(x, f, make([]float32, 3*channels))
	}
	shape := nn.Shape{C: channels, H: x.Shape().H, W: x.Shape().W}
	if err := c.account(shape); err != nil {
		return nil, err
	}
	r := &view{rows: grid.rows, cols: grid.cols, dims: slices.Clone(weights.dims)}
	for i, d := range r.dims[:last-1] {
		r.dims[i] = slices.Clone(d)
		for k, a := range d {
			if a.axis == 'C' {
				r.dims[i][k].step = a.step * q.dim
			}
		}
	}
	r.dims[last-1], r.dims[last] = q.tokens, run('C', q.dim)
	if bias == nil && side == 0 {
		r.node = c.graph.Attention(x, q.count)
	} else {
		if side == 0 {
			if side = shape.H; shape.H != shape.W {
				return nil, fmt.Errorf("a constant added to attention on %v is not supported: want square windows", shape)
			}
		}
		if bias == nil {
			bias = make([]float32, q.count*tokens*tokens)
		}
		r.node = c.graph.WindowAttention(x, q.count, side, shift, bias)
	}
	return []*value{{view: r}}, nil
}

// window returns how far the windows were shifted and the bias that all share.
func (s *scores) window(side int) (shift int, bias []float32, err error) {
	v := s.q.view
	tokens := size(s.q.tokens)
	per := s.q.count * tokens * tokens
	if !v.inPlace() && side > 0 {
		// Rolled by as much along both axes, and masked at the seam.
		rows, cols := v.places('H'), v.places('W')
		if rows[0] == cols[0] && rows[0] > 0 && rows[0] < side && rolled(rows) && rolled(cols) && s.bias != nil {
			shift = rows[0]
		}
	}
	if s.bias == nil {
		return 0, nil, nil
	}
	down, across := count(s.q.batch, 'H'), count(s.q.batch, 'W')
	bias = s.bias[:per]
	if shift > 0 && (down == 1 || across == 1) {
		shift = 0
	}
	for window := range down * across {
		bottom, right := window/across == down-1, window%across == across-1
		for i, b := range s.bias[window*per:][:per] {
			q, k := i/tokens%tokens, i%tokens
			apart := shift > 0 && (bottom && seam(q/side, side, shift) != seam(k/side, side, shift) ||
				right && seam(q%side, side, shift) != seam(k%side, side, shift))
			// Less by 100 is no weight at all, whatever the exact number.
			if apart && b-bias[i] > -90 || !apart && b != bias[i] {
				return 0, nil, errors.New("attention with a mask that is not that of shifted windows is not supported")
			}
		}
	}
	return shift, bias, nil
}

// seam reports whether a row of a window comes from beyond the image's edge.
func seam(at, side, shift int) bool { return at >= side-shift }

func rolled(index []int) bool {
	for i, k := range index {
		if k != (index[0]+i)%len(index) {
			return false
		}
	}
	return true
}

// stacked is the node of queries, keys and values of all heads behind each other,
// and the factor by which queries times keys have to be scaled yet.
func (c *call) stacked(q, k, v *heads) (*nn.Node, float64, error) {
	type source struct {
		node     *nn.Node
		channels []int
		scale    float64
		passed   []*nn.Node
	}
	trace := func(h *heads, scaled bool) source {
		s := source{h.view.node, h.channels, 1, nil}
		for {
			if from, ok := c.selections[s.node]; ok {
				next := make([]int, len(s.channels))
				for i, k := range s.channels {
					next[i] = from.index[k]
				}
				s.passed = append(s.passed, s.node)
				s.node, s.channels = from.node, next
			} else if from, ok := c.multiples[s.node]; ok && scaled {
				s.passed = append(s.passed, s.node)
				s.node, s.scale = from.node, s.scale*from.factor
			} else {
				return s
			}
		}
	}
	a, b, d := trace(q, true), trace(k, true), trace(v, false)
	if a.node == b.node && b.node == d.node {
		for _, s := range []source{a, b, d} {
			for _, n := range s.passed {
				c.bypassed[n] = true
			}
		}
		index := slices.Concat(a.channels, b.channels, d.channels)
		if identity(index) && len(index) == a.node.Shape().C {
			return a.node, a.scale * b.scale, nil
		}
		n, err := c.selected(a.node, index)
		return n, a.scale * b.scale, err
	}
	nodes := make([]*nn.Node, 3)
	for i, h := range []*heads{q, k, v} {
		nodes[i] = h.view.node
		if !identity(h.channels) {
			var err error
			if nodes[i], err = c.selected(nodes[i], h.channels); err != nil {
				return nil, 0, err
			}
		}
	}
	s := nodes[0].Shape()
	s.C *= 3
	if err := c.account(s); err != nil {
		return nil, 0, err
	}
	return c.graph.Concat(nodes...), 1, nil
}

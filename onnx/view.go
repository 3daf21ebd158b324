package onnx

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nac/nn"
)

// atom is a part of a dimension that lies along one axis of an activation: size
// positions, step apart. N is the image's place in the batch and never cut.
type atom struct {
	axis       byte // 'N', 'C', 'H' or 'W'; of scores also 'q' and 'k'
	size, step int
}

// view is how the model sees an activation: each of its dimensions as atoms,
// slowest first. Reshape and Transpose change the view and compute nothing, nor
// do rolling, cutting and padding until something needs the pixels in place.
type view struct {
	node *nn.Node
	dims [][]atom
	// rows and cols are the row and column of node at which each lies that the atoms
	// count; -1 is one of zeros. nil is all in order.
	rows, cols []int
	// part is not nil for what no node holds: a step on the way to attention or to a
	// layer norm.
	part part
	// made is the node that importer.whole made of the grid.
	made *nn.Node
}

// part is *scores or *moment.
type part interface{ want() string }

// image is the view N, C, H, W of a node.
func image(n *nn.Node, batch int) *view {
	s := n.Shape()
	v := &view{node: n, dims: [][]atom{{{'N', batch, 1}}, nil, nil, nil}}
	for i, d := range []struct {
		axis byte
		size int
	}{{'C', s.C}, {'H', s.H}, {'W', s.W}} {
		v.dims[i+1] = run(d.axis, d.size)
	}
	return v
}

// run is a dimension that is n positions of one axis.
func run(axis byte, n int) []atom {
	if n == 1 {
		return nil
	}
	return []atom{{axis, n, 1}}
}

// as is v with other dimensions.
func (v *view) as(dims [][]atom) *view {
	r := *v
	r.dims, r.made = dims, nil
	return &r
}

// height and width are those of the grid that the atoms count.
func (v *view) height() int {
	if v.rows != nil {
		return len(v.rows)
	}
	return v.node.Shape().H
}

func (v *view) width() int {
	if v.cols != nil {
		return len(v.cols)
	}
	return v.node.Shape().W
}

// inPlace reports whether the grid is the node's own.
func (v *view) inPlace() bool { return v.rows == nil && v.cols == nil }

// permutes reports whether each of the node's pixels is in the grid just once.
func (v *view) permutes() bool {
	once := func(index []int, n int) bool {
		if index == nil {
			return true
		}
		seen := make([]bool, n)
		for _, i := range index {
			if i < 0 || seen[i] {
				return false
			}
			seen[i] = true
		}
		return len(index) == n
	}
	s := v.node.Shape()
	return once(v.rows, s.H) && once(v.cols, s.W)
}

// place sets where the grid's rows or columns lie.
func (v *view) place(axis byte, index []int) {
	n := v.node.Shape().H
	at := &v.rows
	if axis == 'W' {
		n, at = v.node.Shape().W, &v.cols
	}
	if *at = index; len(index) == n && identity(index) {
		*at = nil
	}
}

// places are where the grid's rows or columns lie.
func (v *view) places(axis byte) []int {
	index, n := v.rows, v.height()
	if axis == 'W' {
		index, n = v.cols, v.width()
	}
	if index == nil {
		index = make([]int, n)
		for i := range index {
			index[i] = i
		}
	}
	return index
}

func size(atoms []atom) int {
	n := 1
	for _, a := range atoms {
		n *= a.size
	}
	return n
}

func (v *view) shape() []int {
	s := make([]int, len(v.dims))
	for i, d := range v.dims {
		s[i] = size(d)
	}
	return s
}

// reshaped regroups the atoms into dimensions of the given sizes. A batch of one
// image keeps a dimension of its own where there is one for it.
func (v *view) reshaped(shape []int) (*view, error) {
	var rest []atom
	for _, d := range v.dims {
		rest = append(rest, d...)
	}
	one := func() bool { return len(rest) > 0 && rest[0].axis == 'N' && rest[0].size == 1 }
	r := v.as(make([][]atom, len(shape)))
	for i, need := range shape {
		if need == 1 && one() {
			r.dims[i], rest = rest[:1:1], rest[1:]
		}
		for need > 1 {
			if one() {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				return nil, fmt.Errorf("shape %v of %v", shape, v.shape())
			}
			a := rest[0]
			switch {
			case need%a.size == 0:
				r.dims[i] = append(r.dims[i], a)
				need /= a.size
				rest = rest[1:]
			case a.size%need == 0 && a.axis != 'N':
				tail := a.size / need
				r.dims[i] = append(r.dims[i], atom{a.axis, need, a.step * tail})
				rest = append([]atom{{a.axis, tail, a.step}}, rest[1:]...)
				need = 1
			default:
				return nil, fmt.Errorf("reshaping %v to %v cuts across axes", v.shape(), shape)
			}
		}
		r.dims[i] = merged(r.dims[i])
	}
	if one() {
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("shape %v of %v", shape, v.shape())
	}
	return r, nil
}

// alike reports whether two dimensions count the same, images of a batch of one
// aside.
func alike(a, b []atom) bool {
	one := func(d []atom) bool { return len(d) == 1 && d[0].axis == 'N' && d[0].size == 1 }
	return slices.Equal(a, b) || (one(a) && len(b) == 0) || (one(b) && len(a) == 0)
}

// batched reports whether a dimension is the images.
func (m *importer) batched(d []atom) bool {
	return axesOf(d) == "N" || (m.batch == 1 && len(d) == 0)
}

// merged joins neighbours that are parts of one run.
func merged(atoms []atom) []atom {
	var r []atom
	for _, a := range atoms {
		if k := len(r) - 1; k >= 0 && r[k].axis == a.axis && a.axis != 'N' && r[k].step == a.size*a.step {
			r[k] = atom{a.axis, r[k].size * a.size, a.step}
			continue
		}
		r = append(r, a)
	}
	return r
}

func (v *view) transposed(perm []int) *view {
	r := v.as(nil)
	for _, p := range perm {
		r.dims = append(r.dims, v.dims[p])
	}
	return r
}

// with returns the view of another node of the same pixels in which dimension i
// is all its channels and the others are as in v.
func (v *view) with(n *nn.Node, i int) *view {
	r := v.as(slices.Clone(v.dims))
	r.node = n
	r.dims[i] = run('C', n.Shape().C)
	return r
}

// axes returns which axes a dimension lies along, each once.
func axesOf(atoms []atom) string {
	var r []byte
	for _, a := range atoms {
		if !slices.Contains(r, a.axis) {
			r = append(r, a.axis)
		}
	}
	return string(r)
}

// channels returns the channel of each position of a dimension that lies along
// the channels alone; an error if it does not hold all of them.
func (v *view) channels(dim int) ([]int, error) {
	atoms := v.dims[dim]
	c := v.node.Shape().C
	if axes := axesOf(atoms); (axes != "C" && axes != "") || size(atoms) != c {
		return nil, fmt.Errorf("dimension %d of %v is not the channels", dim, v.shape())
	}
	index := []int{0}
	for _, a := range atoms {
		next := make([]int, 0, len(index)*a.size)
		for _, i := range index {
			for k := range a.size {
				next = append(next, i+k*a.step)
			}
		}
		index = next
	}
	return index, nil
}

func identity(index []int) bool {
	for i, k := range index {
		if i != k {
			return false
		}
	}
	return true
}

// plain returns v with the channels of a dimension in the order of memory, which
// takes a pass over memory if they are not.
func (m *importer) plain(v *view, dim int) (*view, error) {
	if axes := axesOf(v.dims[dim]); strings.ContainsAny(axes, "HW") {
		return m.gathered(v, dim)
	}
	index, err := v.channels(dim)
	if err != nil {
		return nil, err
	}
	if identity(index) {
		return v, nil
	}
	return v.with(m.graph.Select(v.node, index), dim), nil
}

// whole is v with its grid in place: of a node of its own if need be.
func (m *importer) whole(v *view) (*view, error) {
	if v.inPlace() {
		return v, nil
	}
	if v.made == nil {
		s := nn.Shape{C: v.node.Shape().C, H: v.height(), W: v.width()}
		if err := m.account(s); err != nil {
			return nil, err
		}
		rows, cols, wide := v.places('H'), v.places('W'), v.node.Shape().W
		index := make([]int, 0, len(rows)*len(cols))
		for _, y := range rows {
			for _, x := range cols {
				if x < 0 || y < 0 {
					index = append(index, -1)
				} else {
					index = append(index, y*wide+x)
				}
			}
		}
		v.made = m.graph.Pixels(v.node, s.H, s.W, index, nil)
	}
	return &view{node: v.made, dims: v.dims}, nil
}

// gathered makes a dimension that takes in all channels and, of each block of
// pixels, all pixels, the channels of a node that has a pixel for each block.
func (m *importer) gathered(v *view, dim int) (*view, error) {
	fail := func() (*view, error) {
		return nil, fmt.Errorf("dimension %d of %v is neither the channels nor those of blocks of pixels", dim, v.shape())
	}
	block := map[byte]int{'C': v.node.Shape().C, 'H': 1, 'W': 1}
	channels := 1
	for _, a := range v.dims[dim] {
		switch {
		case a.axis == 'C':
			channels *= a.size
		case a.axis == 'N' || a.step != 1:
			return fail()
		default:
			block[a.axis] = a.size
		}
	}
	if channels != block['C'] || v.height()%block['H'] != 0 || v.width()%block['W'] != 0 {
		return fail()
	}
	dims := slices.Clone(v.dims)
	dims[dim] = run('C', size(v.dims[dim]))
	for i, d := range dims {
		if i == dim {
			continue
		}
		dims[i] = slices.Clone(d)
		for k, a := range d {
			if n := block[a.axis]; a.axis == 'H' || a.axis == 'W' {
				if a.step%n != 0 {
					return fail()
				}
				dims[i][k].step /= n
			} else if a.axis == 'C' {
				return fail()
			}
		}
	}
	// One piece for each pixel of a block, as they come; then channels in order.
	piece := make([]int, block['H']*block['W'])
	var pieces []*nn.Node
	var index []int
	for p := range size(v.dims[dim]) {
		at := map[byte]int{}
		rest := p
		for k := len(v.dims[dim]) - 1; k >= 0; k-- {
			a := v.dims[dim][k]
			at[a.axis] += rest % a.size * a.step
			rest /= a.size
		}
		k := &piece[at['H']*block['W']+at['W']]
		if *k == 0 {
			w := v.as(nil)
			for _, axis := range []byte{'H', 'W'} {
				var taken []int
				for i, from := range v.places(axis) {
					if i%block[axis] == at[axis] {
						taken = append(taken, from)
					}
				}
				w.place(axis, taken)
			}
			w, err := m.whole(w)
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, w.node)
			*k = len(pieces)
		}
		index = append(index, (*k-1)*channels+at['C'])
	}
	s := pieces[0].Shape()
	s.C *= len(pieces)
	if err := m.account(s); err != nil {
		return nil, err
	}
	n := m.graph.Concat(pieces...)
	if !identity(index) {
		n = m.graph.Select(n, index)
	}
	return &view{node: n, dims: dims}, nil
}

// taken is the view of some positions of a dimension, in the order given.
func (m *importer) taken(v *view, dim int, list []int) (*view, error) {
	d := v.dims[dim]
	switch n := size(d); {
	case len(list) == 0:
		return nil, errors.New("a selection of nothing")
	case len(list) == n && identity(list):
		return v, nil
	case v.part != nil:
		return nil, errors.New(v.part.want())
	case strings.Contains(axesOf(d), "N"):
		return nil, fmt.Errorf("a selection from dimension %d of %v, which is the batch", dim, v.shape())
	case len(d) != 1:
		return m.takenOf(v, dim, list)
	}
	// Of each run of size*step positions of the axis, the chosen ones remain.
	a := d[0]
	r := v.as(make([][]atom, len(v.dims)))
	for i, atoms := range v.dims {
		r.dims[i] = slices.Clone(atoms)
		for k, b := range atoms {
			if b.axis == a.axis && b.step > a.step {
				if b.step%(a.step*a.size) != 0 {
					return nil, fmt.Errorf("a selection from dimension %d of %v", dim, v.shape())
				}
				r.dims[i][k].step = b.step / a.size * len(list)
			}
		}
	}
	r.dims[dim] = nil
	if len(list) > 1 {
		r.dims[dim] = []atom{{a.axis, len(list), a.step}}
	}
	total := v.node.Shape().C
	if a.axis != 'C' {
		total = len(v.places(a.axis))
	}
	index := make([]int, 0, total/a.size*len(list))
	for high := 0; high < total; high += a.size * a.step {
		for _, k := range list {
			for low := range a.step {
				index = append(index, high+k*a.step+low)
			}
		}
	}
	if a.axis != 'C' {
		places := v.places(a.axis)
		for i, k := range index {
			index[i] = places[k]
		}
		r.place(a.axis, index)
		return r, nil
	}
	var err error
	r.node, err = m.selected(v.node, index)
	return r, err
}

// takenOf is taken for a dimension of several atoms, all channels or all pixels.
func (m *importer) takenOf(v *view, dim int, list []int) (*view, error) {
	if axesOf(v.dims[dim]) == "C" {
		index, err := v.channels(dim)
		if err != nil {
			return nil, err
		}
		chosen := make([]int, len(list))
		for i, k := range list {
			chosen[i] = index[k]
		}
		n, err := m.selected(v.node, chosen)
		if err != nil {
			return nil, err
		}
		return v.with(n, dim), nil
	}
	v, err := m.strung(v, dim)
	if err != nil {
		return nil, err
	}
	return m.taken(v, dim, list)
}

// pixels returns the pixel of the grid, row by row, of each position of a dimension
// that lies along rows and columns; an error if it does not hold all of them.
func (v *view) pixels(dim int) ([]int, error) {
	index := []int{0}
	for _, a := range v.dims[dim] {
		if a.axis != 'H' && a.axis != 'W' {
			return nil, fmt.Errorf("dimension %d of %v is not the pixels", dim, v.shape())
		}
		step := a.step
		if a.axis == 'H' {
			step *= v.width()
		}
		next := make([]int, 0, len(index)*a.size)
		for _, i := range index {
			for k := range a.size {
				next = append(next, i+k*step)
			}
		}
		index = next
	}
	if len(index) != v.height()*v.width() {
		return nil, fmt.Errorf("dimension %d of %v is not all pixels", dim, v.shape())
	}
	return index, nil
}

// strung is v with the pixels of a dimension in one row.
func (m *importer) strung(v *view, dim int) (*view, error) {
	index, err := v.pixels(dim)
	if err != nil {
		return nil, err
	}
	if v, err = m.whole(v); err != nil {
		return nil, err
	}
	s := v.node.Shape()
	if err := m.account(s); err != nil {
		return nil, err
	}
	dims := slices.Clone(v.dims)
	dims[dim] = run('W', len(index))
	n := m.graph.Pixels(v.node, 1, len(index), index, nil)
	m.strings[n] = tokens{of: v.node, index: index}
	return &view{node: n, dims: dims}, nil
}

// selected makes the node of some channels.
func (m *importer) selected(n *nn.Node, index []int) (*nn.Node, error) {
	s := n.Shape()
	s.C = len(index)
	if err := m.account(s); err != nil {
		return nil, err
	}
	r := m.graph.Select(n, index)
	m.selections[r] = selection{n, index}
	return r, nil
}

// nchw returns the node of a view that is N, C, H, W; or N, C of a 1x1 node.
func (m *importer) nchw(v *view) (*nn.Node, error) {
	v, err := m.whole(v)
	if err != nil {
		return nil, err
	}
	s := v.node.Shape()
	if len(v.dims) != 4 && (len(v.dims) != 2 || s.H != 1 || s.W != 1) {
		return nil, fmt.Errorf("an input of shape %v that is no image", v.shape())
	}
	if !m.batched(v.dims[0]) {
		return nil, fmt.Errorf("an input of shape %v whose first dimension is not the batch", v.shape())
	}
	if v, err = m.plain(v, 1); err != nil {
		return nil, err
	}
	if len(v.dims) == 4 {
		for i, want := range []int{s.H, s.W} {
			d := v.dims[2+i]
			if size(d) != want || (want > 1 && (len(d) != 1 || d[0] != atom{"HW"[i], want, 1})) {
				return nil, errors.New("height and width are not where they should be")
			}
		}
	}
	return v.node, nil
}

// same reports whether two views order their values alike.
func same(v, w *view) bool {
	if v.node.Shape() != w.node.Shape() || len(v.dims) != len(w.dims) || !slices.Equal(v.rows, w.rows) || !slices.Equal(v.cols, w.cols) {
		return false
	}
	for i := range v.dims {
		if !alike(v.dims[i], w.dims[i]) {
			return false
		}
	}
	return true
}

// term is what an atom's position adds to the index in a constant.
type term struct {
	atom
	stride int
}

// terms lays a constant that is broadcast to v out along v's atoms.
func (v *view) terms(t *tensor) ([]term, error) {
	if t.isInt() {
		return nil, errors.New("a constant of whole numbers")
	}
	shape := t.shape
	for len(shape) > len(v.dims) && shape[0] == 1 {
		shape = shape[1:]
	}
	var terms []term
	stride := 1
	for i := len(shape) - 1; i >= 0; i-- {
		k := i + len(v.dims) - len(shape)
		if k < 0 || (shape[i] != 1 && shape[i] != size(v.dims[k])) {
			return nil, fmt.Errorf("a constant of shape %v beside %v", t.shape, v.shape())
		}
		if shape[i] == 1 {
			continue
		}
		for j := len(v.dims[k]) - 1; j >= 0; j-- {
			a := v.dims[k][j]
			terms = append(terms, term{a, stride})
			stride *= a.size
		}
	}
	for _, a := range terms {
		if a.axis != 'N' || a.size == 1 {
			continue
		}
		for i, x := range t.floats {
			if x != t.floats[i-i/a.stride%a.size*a.stride] {
				return nil, errors.New("a constant that differs from image to image")
			}
		}
	}
	return terms, nil
}

// index is where in the constant the value for a place lies; at gives the place
// along an axis.
func indexOf(terms []term, at func(axis byte) int) int {
	i := 0
	for _, t := range terms {
		if t.axis != 'N' {
			i += at(t.axis) / t.step % t.size * t.stride
		}
	}
	return i
}

// constant lays a constant that is broadcast to v out as a value for each channel,
// or, if it varies over the pixels too, for each pixel of the grid and channel.
func (v *view) constant(t *tensor) (perChannel, perPixel []float32, err error) {
	terms, err := v.terms(t)
	if err != nil {
		return nil, nil, err
	}
	c, pixels := v.node.Shape().C, 1
	if slices.ContainsFunc(terms, func(t term) bool { return t.axis == 'H' || t.axis == 'W' }) {
		pixels = v.height() * v.width()
		if int64(pixels)*int64(c) > maxActivation {
			return nil, nil, fmt.Errorf("a constant of shape %v is too large", t.shape)
		}
	}
	r := make([]float32, pixels*c)
	for i := range r {
		r[i] = t.floats[indexOf(terms, func(axis byte) int {
			switch axis {
			case 'C':
				return i % c
			case 'H':
				return i / c / v.width()
			}
			return i / c % v.width()
		})]
	}
	if pixels == 1 {
		return r, nil, nil
	}
	return nil, r, nil
}

// perChannel is constant for what cannot vary over the pixels.
func (v *view) perChannel(t *tensor) ([]float32, error) {
	r, pixels, err := v.constant(t)
	if pixels != nil {
		err = fmt.Errorf("a constant of shape %v beside %v, that differs from pixel to pixel", t.shape, v.shape())
	}
	return r, err
}

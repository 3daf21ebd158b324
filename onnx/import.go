package onnx

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nac/arch"
	"nac/nn"
)

// value is what a name of the model stands for: an activation or a constant.
type value struct {
	view  *view
	konst *tensor
	// probabilities marks the softmax of view.
	probabilities bool
	// shared marks a view of a node of which the model has others too: the gradient of
	// the node is not that of this value.
	shared bool
}

// importer builds a network from a model's nodes, in their order.
type importer struct {
	notes
	dir    string
	graph  *nn.Graph
	batch  int
	values map[string]*value
	stored map[string]*tensorProto // not decoded yet
	uses   map[string]int          // how often nodes and outputs read a name
	reads  map[string]int          // how often they will yet
	layers []layer
	named  map[string]bool
	// What an image's activations, all constants for channels, and constants that
	// were computed hold altogether.
	floats, channels, folded int64
}

// layer is an operation's output under its name.
type layer struct {
	name string
	view *view
}

// Limits that keep a small hostile file from asking for all memory.
const (
	maxActivation = 1 << 27 // values of one activation
	maxTotal      = 1 << 31 // of all
	maxChannels   = 1 << 25 // channels of all
	maxAllFolded  = 1 << 27 // values of all computed constants
)

// Load reads a model from a file; external data lie in files beside it.
//
// The network's input is the model's only input that is no initializer, N×C×H×W,
// its logits are the first output; a softmax at the end is left out. Every
// operation's output is a layer, named like the node, or like the value where
// the node has no name or several outputs.
func Load(path string) (*arch.Model, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return decode(filepath.Base(path), filepath.Dir(path), data)
}

// Decode reads a model from memory. It may not refer to external data.
func Decode(name string, data []byte) (*arch.Model, error) { return decode(name, "", data) }

func decode(name, dir string, data []byte) (model *arch.Model, err error) {
	// Package nn panics when shapes do not fit, as for its callers that is a mistake.
	// Here it is the file's.
	defer func() {
		if r := recover(); r != nil {
			text, ok := r.(string)
			if !ok || !strings.HasPrefix(text, "nn: ") {
				panic(r)
			}
			model, err = nil, fmt.Errorf("onnx: %s: %s", name, strings.TrimPrefix(text, "nn: "))
		}
	}()
	p, err := parseModel(data)
	if err != nil {
		return nil, fmt.Errorf("onnx: %s: %w", name, err)
	}
	m := &importer{
		notes: newNotes(), dir: dir, graph: nn.NewGraph(), values: map[string]*value{}, stored: map[string]*tensorProto{},
		uses: map[string]int{}, named: map[string]bool{},
	}
	model, err = m.run(strings.TrimSuffix(name, ".onnx"), p)
	if err != nil {
		return nil, fmt.Errorf("onnx: %s: %w", name, err)
	}
	return model, nil
}

// The versions of the standard operators that are known.
const minOpset, maxOpset = 11, 23

func (m *importer) run(name string, p *modelProto) (*arch.Model, error) {
	if v, ok := p.opsets[""]; !ok || v < minOpset || v > maxOpset {
		return nil, fmt.Errorf("operator set %d: want %d to %d", v, minOpset, maxOpset)
	}
	for _, t := range p.graph.initializers {
		m.stored[t.name] = t
	}
	for _, n := range p.graph.nodes {
		for _, name := range n.inputs {
			m.uses[name]++
		}
	}
	for _, v := range p.graph.outputs {
		m.uses[v.name]++
	}
	m.reads = maps.Clone(m.uses)
	in, err := m.input(p.graph)
	if err != nil {
		return nil, err
	}
	for _, raw := range p.graph.nodes {
		n := &node{raw}
		if err := m.convert(n); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.describe(), err)
		}
	}
	if len(p.graph.outputs) == 0 {
		return nil, errors.New("no output")
	}
	out := p.graph.outputs[0].name
	v, err := m.lookup(out)
	if err != nil {
		return nil, fmt.Errorf("output %q: %w", out, err)
	}
	if v.view == nil {
		return nil, fmt.Errorf("output %q is a constant", out)
	}
	return m.finish(name, in, v.view)
}

func (n *node) describe() string {
	name := n.name
	if name == "" && len(n.outputs) > 0 {
		name = n.outputs[0]
	}
	return fmt.Sprintf("%q (%s)", name, n.op)
}

// input makes the graph's input.
func (m *importer) input(g *graphProto) (*nn.Node, error) {
	var inputs []valueInfo
	for _, v := range g.inputs {
		if _, ok := m.stored[v.name]; !ok {
			inputs = append(inputs, v)
		}
	}
	if len(inputs) != 1 {
		return nil, fmt.Errorf("%d inputs: want one, the images", len(inputs))
	}
	v := inputs[0]
	if v.elemType != typeFloat {
		return nil, fmt.Errorf("input %q has element type %d: want float", v.name, v.elemType)
	}
	if len(v.dims) != 4 {
		return nil, fmt.Errorf("input %q has shape %v: want N, C, H, W", v.name, v.dims)
	}
	for _, d := range v.dims[1:] {
		if d < 1 || d > 1<<14 {
			return nil, fmt.Errorf("input %q has shape %v: want known channels, height and width", v.name, v.dims)
		}
	}
	if v.dims[0] > 1<<14 {
		return nil, fmt.Errorf("input %q has shape %v", v.name, v.dims)
	}
	m.batch = int(max(v.dims[0], 1))
	s := nn.Shape{C: int(v.dims[1]), H: int(v.dims[2]), W: int(v.dims[3])}
	if err := m.account(s); err != nil {
		return nil, err
	}
	n := m.graph.Input(s)
	m.values[v.name] = &value{view: image(n, m.batch)}
	m.layer(v.name, m.values[v.name], m.uses[v.name])
	return n, nil
}

// account refuses activations beyond the limits, before they are made.
func (m *importer) account(s nn.Shape) error {
	n := int64(s.C)
	for _, d := range []int{s.H, s.W} {
		if n *= int64(max(d, 1)); n > maxActivation {
			return fmt.Errorf("an activation of %v is too large", s)
		}
	}
	m.floats, m.channels = m.floats+n, m.channels+int64(s.C)
	if m.floats > maxTotal || m.channels > maxChannels {
		return errors.New("activations are too large altogether")
	}
	return nil
}

// layer makes an activation readable by a name; the first of a name wins. Where
// the grid is not the node's, it is what is made of it, if all that read it do
// so.
func (m *importer) layer(name string, v *value, uses int) {
	own := v.view.permutes()
	if name != "" && !m.named[name] && v.view.part == nil && (own && !v.shared || !own && uses == 1) {
		m.named[name] = true
		m.layers = append(m.layers, layer{name, v.view})
	}
}

// lookup returns what a name stands for.
func (m *importer) lookup(name string) (*value, error) {
	if v, ok := m.values[name]; ok {
		return v, nil
	}
	p, ok := m.stored[name]
	if !ok {
		return nil, fmt.Errorf("no value %q", name)
	}
	t, err := p.decode(m.dir)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	v := &value{konst: t}
	m.values[name] = v
	return v, nil
}

// convert adds one operation to the graph.
func (m *importer) convert(n *node) error {
	if n.domain != "" && n.domain != "ai.onnx" {
		return fmt.Errorf("operators of %q are not supported", n.domain)
	}
	for _, a := range n.attributes {
		if a.graph {
			return errors.New("operators with a graph inside are not supported")
		}
	}
	if len(n.outputs) == 0 {
		return errors.New("no output")
	}
	in := make([]*value, len(n.inputs))
	constant := true
	for i, name := range n.inputs {
		if name == "" {
			continue // an optional input
		}
		v, err := m.lookup(name)
		if err != nil {
			return err
		}
		if v.probabilities && n.op != "Identity" {
			return errors.New("a softmax is supported at the end only")
		}
		in[i] = v
		constant = constant && v.view == nil
	}
	out, err := m.apply(n, in, constant)
	if err != nil {
		return err
	}
	for i, v := range out {
		if i >= len(n.outputs) {
			break
		}
		name := n.outputs[i]
		if _, ok := m.values[name]; ok && name != "" {
			return fmt.Errorf("value %q is made twice", name)
		}
		if v.view != nil {
			w := *v
			v = &w
			for k, x := range in {
				if x != nil && x.view != nil && x.view.node == v.view.node {
					v.shared = v.shared || x.shared || m.uses[n.inputs[k]] > 1 || len(out) > 1
				}
			}
		}
		m.values[name] = v
		if v.view != nil {
			uses := m.uses[name]
			if n.name != "" && len(out) == 1 {
				name = n.name
			}
			m.layer(name, v, uses)
		}
	}
	m.release(n.inputs)
	return nil
}

// release forgets constants that nothing will read any more, which may be most
// of memory.
func (m *importer) release(names []string) {
	for _, name := range names {
		if m.reads[name]--; m.reads[name] == 0 && m.values[name] != nil && m.values[name].konst != nil {
			delete(m.values, name)
		}
	}
}

func (m *importer) apply(n *node, in []*value, constant bool) ([]*value, error) {
	switch n.op {
	case "Constant":
		t, err := m.constant(n)
		return []*value{{konst: t}}, err
	case "Shape":
		return m.shape(n, in)
	}
	f, known := operators[n.op]
	fold := foldable[n.op]
	if !known && fold == nil {
		return nil, errors.New("this operator is not supported")
	}
	if len(in) == 0 || in[0] == nil {
		return nil, errors.New("no input")
	}
	konst := make([]*tensor, len(in))
	for i, v := range in {
		if v != nil {
			konst[i] = v.konst
		}
	}
	if constant {
		if fold == nil {
			return nil, errors.New("this operator of constants alone is not supported")
		}
		for _, t := range konst[:min(len(konst), 2)] {
			if t == nil && n.op != "Clip" {
				return nil, errors.New("an input is missing")
			}
		}
		t, err := fold(n, konst)
		if err != nil {
			return nil, err
		}
		if m.folded += int64(t.len()); m.folded > maxAllFolded {
			return nil, errors.New("computed constants are too large altogether")
		}
		return []*value{{konst: t}}, nil
	}
	if !known {
		return nil, errors.New("this operator is supported of constants only")
	}
	c := &call{importer: m, node: n, in: in, konst: konst}
	if r, err := c.norm(); r != nil || err != nil {
		return r, err
	}
	return f(c)
}

func (m *importer) constant(n *node) (*tensor, error) {
	for name, a := range n.attributes {
		switch name {
		case "value":
			if a.t == nil {
				return nil, errors.New("a constant without a tensor")
			}
			return a.t.decode(m.dir)
		case "value_float":
			return &tensor{shape: []int{}, floats: []float32{a.f}}, nil
		case "value_floats":
			return &tensor{shape: []int{len(a.floats)}, floats: append([]float32{}, a.floats...)}, nil
		case "value_int":
			return &tensor{shape: []int{}, ints: []int64{a.i}}, nil
		case "value_ints":
			return intTensor(a.ints...), nil
		}
	}
	return nil, errors.New("this kind of constant is not supported")
}

func (m *importer) shape(n *node, in []*value) ([]*value, error) {
	if len(in) != 1 || in[0] == nil {
		return nil, errors.New("want one input")
	}
	var shape []int
	if v := in[0].view; v != nil {
		shape = v.shape()
	} else {
		shape = in[0].konst.shape
	}
	bound := func(name string, otherwise int64) int {
		v := n.int(name, otherwise)
		if v < 0 {
			v += int64(len(shape))
		}
		return int(min(max(v, 0), int64(len(shape))))
	}
	from, to := bound("start", 0), bound("end", int64(len(shape)))
	t := intTensor()
	for i := from; i < to; i++ {
		t.ints = append(t.ints, int64(shape[i]))
	}
	t.shape[0] = len(t.ints)
	return []*value{{konst: t}}, nil
}

// finish makes the model of what leads from in to the view of the logits.
func (m *importer) finish(name string, in *nn.Node, v *view) (*arch.Model, error) {
	if v.part != nil {
		return nil, errors.New(v.part.want())
	}
	v, err := m.whole(v)
	if err != nil {
		return nil, err
	}
	s := v.node.Shape()
	if s.H != 1 || s.W != 1 || len(v.dims) < 2 || !m.batched(v.dims[0]) {
		return nil, fmt.Errorf("the output has shape %v: want one row of logits an image", v.shape())
	}
	dim := slices.IndexFunc(v.dims, func(d []atom) bool { return axesOf(d) == "C" })
	if s.C < 2 || dim < 0 {
		return nil, fmt.Errorf("the output has shape %v: want two classes or more", v.shape())
	}
	if v, err = m.plain(v, dim); err != nil {
		return nil, err
	}
	n := arch.Network{Name: name, Graph: m.graph, Input: in, Logits: v.node, Feature: v.node}
	if l, ok := m.linears[v.node]; ok {
		n.Feature = l.in
		n.Head = arch.Head{Weight: l.weight, Bias: l.bias}
		if n.Head.Bias == nil {
			n.Head.Bias = make([]float32, s.C)
		}
	}
	// Layers are what the logits are computed from, all the way through.
	needed := m.graph.Ancestors(v.node)
	for _, l := range m.layers {
		node := l.view.node
		if !l.view.permutes() {
			node = l.view.made
		}
		if needed[node] && !m.bypassed[node] {
			n.Layers = append(n.Layers, arch.NamedNode{Name: l.name, Node: node})
		}
	}
	return n.Model()
}

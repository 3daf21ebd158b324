package onnx

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// A writer of small models, for tests.

type message []byte

func (m message) number(field protowire.Number, v int64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), uint64(v))
}

func (m message) text(field protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), s)
}

func (m message) sub(field protowire.Number, s message) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), s)
}

func (m message) float(field protowire.Number, v float32) message {
	return protowire.AppendFixed32(protowire.AppendTag(m, field, protowire.Fixed32Type), math.Float32bits(v))
}

func floatTensor(name string, data []float32, shape ...int64) message {
	var m message
	for _, d := range shape {
		m = m.number(1, d)
	}
	var raw []byte
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return m.number(2, typeFloat).text(8, name).sub(9, raw)
}

func longTensor(name string, data ...int64) message {
	m := message(nil).number(1, int64(len(data))).number(2, typeInt64).text(8, name)
	for _, v := range data {
		m = m.number(7, v)
	}
	return m
}

// attributes of a node: int64, []int64, float32 or a tensor's message.
type attributes map[string]any

func (n attributes) message(m message) message {
	for _, name := range slices.Sorted(maps.Keys(n)) {
		v := n[name]
		a := message(nil).text(1, name)
		switch v := v.(type) {
		case int:
			a = a.number(3, int64(v))
		case []int:
			for _, i := range v {
				a = a.number(8, int64(i))
			}
		case float32:
			a = a.float(2, v)
		case string:
			a = a.text(4, v)
		case message:
			a = a.sub(5, v)
		}
		m = m.sub(5, a)
	}
	return m
}

// testModel is a model under construction.
type testModel struct {
	nodes, initializers []message
	shape               []int64
	output              string
	opset               int64
}

// node adds a node with one output, named like the node.
func (t *testModel) node(op, name string, a attributes, inputs ...string) string {
	return t.nodeOf(op, name, a, []string{name}, inputs...)
}

func (t *testModel) nodeOf(op, name string, a attributes, outputs []string, inputs ...string) string {
	var m message
	for _, in := range inputs {
		m = m.text(1, in)
	}
	for _, out := range outputs {
		m = m.text(2, out)
	}
	t.nodes = append(t.nodes, a.message(m.text(3, name).text(4, op)))
	t.output = outputs[0]
	return outputs[0]
}

func (t *testModel) floats(name string, data []float32, shape ...int64) string {
	t.initializers = append(t.initializers, floatTensor(name, data, shape...))
	return name
}

func (t *testModel) longs(name string, data ...int64) string {
	t.initializers = append(t.initializers, longTensor(name, data...))
	return name
}

// long is a single whole number.
func (t *testModel) long(name string, v int64) string {
	t.initializers = append(t.initializers, message(nil).number(2, typeInt64).text(8, name).number(7, v))
	return name
}

func (t *testModel) bytes() []byte {
	var g message
	for _, n := range t.nodes {
		g = g.sub(1, n)
	}
	for _, i := range t.initializers {
		g = g.sub(5, i)
	}
	var shape message
	for i, d := range t.shape {
		dim := message(nil).number(1, d)
		if i == 0 && d == 0 {
			dim = message(nil).text(2, "N")
		}
		shape = shape.sub(1, dim)
	}
	g = g.sub(11, message(nil).text(1, "input").sub(2, message(nil).sub(1, message(nil).number(1, typeFloat).sub(2, shape))))
	g = g.sub(12, message(nil).text(1, t.output))
	opset := t.opset
	if opset == 0 {
		opset = 17
	}
	return message(nil).number(1, 8).sub(7, g).sub(8, message(nil).text(1, "").number(2, opset))
}

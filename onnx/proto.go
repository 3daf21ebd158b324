package onnx

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of onnx.proto that an importer needs, decoded by hand: field
// numbers are the schema's. Bytes are kept as slices of the file.

type modelProto struct {
	graph    *graphProto
	opsets   map[string]int64 // version by domain
	producer string
}

type graphProto struct {
	nodes        []*nodeProto
	initializers []*tensorProto
	inputs       []valueInfo
	outputs      []valueInfo
}

type nodeProto struct {
	name, op, domain string
	inputs, outputs  []string
	attributes       map[string]*attribute
}

type attribute struct {
	f      float32
	i      int64
	s      []byte
	t      *tensorProto
	floats []float32
	ints   []int64
	graph  bool
}

type tensorProto struct {
	name     string
	dims     []int64
	dataType int64
	raw      []byte
	hasRaw   bool
	floats   []float32
	doubles  []float64
	ints     []int64 // int32_data, int64_data or uint64_data
	external map[string]string
	segment  bool
}

type valueInfo struct {
	name     string
	elemType int64
	hasShape bool
	dims     []int64 // -1 where symbolic
}

var errCut = errors.New("cut off or not a protocol buffer")

// field is one field of a message: varint for types 0, 1 and 5, bytes for type 2.
type field struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64
	bytes  []byte
}

// fields calls f for each field of a message.
func fields(b []byte, f func(field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errCut
		}
		b = b[n:]
		x := field{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			x.varint, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			x.varint = uint64(v)
		case protowire.Fixed64Type:
			x.varint, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			x.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errCut
		}
		b = b[n:]
		if err := f(x); err != nil {
			return err
		}
	}
	return nil
}

// numbers appends a repeated varint field, packed or not.
func (x field) numbers(to []int64) ([]int64, error) {
	if x.kind == protowire.VarintType {
		return append(to, int64(x.varint)), nil
	}
	for b := x.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, errCut
		}
		to, b = append(to, int64(v)), b[n:]
	}
	return to, nil
}

// float32s appends a repeated float field, packed or not.
func (x field) float32s(to []float32) ([]float32, error) {
	if x.kind == protowire.Fixed32Type {
		return append(to, math.Float32frombits(uint32(x.varint))), nil
	}
	for b := x.bytes; len(b) > 0; {
		v, n := protowire.ConsumeFixed32(b)
		if n < 0 {
			return nil, errCut
		}
		to, b = append(to, math.Float32frombits(v)), b[n:]
	}
	return to, nil
}

func (x field) float64s(to []float64) ([]float64, error) {
	if x.kind == protowire.Fixed64Type {
		return append(to, math.Float64frombits(x.varint)), nil
	}
	for b := x.bytes; len(b) > 0; {
		v, n := protowire.ConsumeFixed64(b)
		if n < 0 {
			return nil, errCut
		}
		to, b = append(to, math.Float64frombits(v)), b[n:]
	}
	return to, nil
}

func parseModel(b []byte) (*modelProto, error) {
	m := &modelProto{opsets: map[string]int64{}}
	err := fields(b, func(x field) (err error) {
		switch x.number {
		case 2:
			m.producer = string(x.bytes)
		case 7:
			m.graph, err = parseGraph(x.bytes)
		case 8:
			domain, version := "", int64(0)
			err = fields(x.bytes, func(x field) error {
				switch x.number {
				case 1:
					domain = string(x.bytes)
				case 2:
					version = int64(x.varint)
				}
				return nil
			})
			m.opsets[domain] = version
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if m.graph == nil {
		return nil, errors.New("no graph in it: not an ONNX model")
	}
	return m, nil
}

func parseGraph(b []byte) (*graphProto, error) {
	g := &graphProto{}
	err := fields(b, func(x field) error {
		switch x.number {
		case 1:
			n, err := parseNode(x.bytes)
			if err != nil {
				return err
			}
			g.nodes = append(g.nodes, n)
		case 5:
			t, err := parseTensor(x.bytes)
			if err != nil {
				return err
			}
			g.initializers = append(g.initializers, t)
		case 11, 12:
			v, err := parseValueInfo(x.bytes)
			if err != nil {
				return err
			}
			if x.number == 11 {
				g.inputs = append(g.inputs, v)
			} else {
				g.outputs = append(g.outputs, v)
			}
		case 15:
			return errors.New("sparse initializers are not supported")
		}
		return nil
	})
	return g, err
}

func parseNode(b []byte) (*nodeProto, error) {
	n := &nodeProto{attributes: map[string]*attribute{}}
	err := fields(b, func(x field) error {
		switch x.number {
		case 1:
			n.inputs = append(n.inputs, string(x.bytes))
		case 2:
			n.outputs = append(n.outputs, string(x.bytes))
		case 3:
			n.name = string(x.bytes)
		case 4:
			n.op = string(x.bytes)
		case 5:
			name, a, err := parseAttribute(x.bytes)
			if err != nil {
				return err
			}
			n.attributes[name] = a
		case 7:
			n.domain = string(x.bytes)
		}
		return nil
	})
	return n, err
}

func parseAttribute(b []byte) (string, *attribute, error) {
	name, a := "", &attribute{}
	err := fields(b, func(x field) (err error) {
		switch x.number {
		case 1:
			name = string(x.bytes)
		case 2:
			a.f = math.Float32frombits(uint32(x.varint))
		case 3:
			a.i = int64(x.varint)
		case 4:
			a.s = x.bytes
		case 5:
			a.t, err = parseTensor(x.bytes)
		case 6, 11:
			a.graph = true
		case 7:
			a.floats, err = x.float32s(a.floats)
		case 8:
			a.ints, err = x.numbers(a.ints)
		}
		return err
	})
	return name, a, err
}

func parseTensor(b []byte) (*tensorProto, error) {
	t := &tensorProto{}
	err := fields(b, func(x field) (err error) {
		switch x.number {
		case 1:
			t.dims, err = x.numbers(t.dims)
		case 2:
			t.dataType = int64(x.varint)
		case 3:
			t.segment = true
		case 4:
			t.floats, err = x.float32s(t.floats)
		case 5, 7, 11:
			t.ints, err = x.numbers(t.ints)
		case 8:
			t.name = string(x.bytes)
		case 9:
			t.raw, t.hasRaw = x.bytes, true
		case 10:
			t.doubles, err = x.float64s(t.doubles)
		case 13:
			key, value := "", ""
			err = fields(x.bytes, func(x field) error {
				switch x.number {
				case 1:
					key = string(x.bytes)
				case 2:
					value = string(x.bytes)
				}
				return nil
			})
			if t.external == nil {
				t.external = map[string]string{}
			}
			t.external[key] = value
		case 14:
			if x.varint == 1 && t.external == nil {
				t.external = map[string]string{}
			}
		}
		return err
	})
	if err != nil && t.name != "" {
		err = fmt.Errorf("tensor %q: %w", t.name, err)
	}
	return t, err
}

func parseValueInfo(b []byte) (valueInfo, error) {
	var v valueInfo
	err := fields(b, func(x field) error {
		switch x.number {
		case 1:
			v.name = string(x.bytes)
		case 2:
			return fields(x.bytes, func(x field) error {
				if x.number == 1 {
					return v.parseTensorType(x.bytes)
				}
				return nil
			})
		}
		return nil
	})
	return v, err
}

func (v *valueInfo) parseTensorType(b []byte) error {
	return fields(b, func(x field) error {
		switch x.number {
		case 1:
			v.elemType = int64(x.varint)
		case 2:
			v.hasShape = true
			return fields(x.bytes, func(x field) error {
				if x.number != 1 {
					return nil
				}
				dim := int64(-1)
				err := fields(x.bytes, func(x field) error {
					if x.number == 1 {
						dim = int64(x.varint)
					}
					return nil
				})
				v.dims = append(v.dims, dim)
				return err
			})
		}
		return nil
	})
}

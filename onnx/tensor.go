package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// tensor is a constant: floats, or ints for the integer types and bool.
type tensor struct {
	shape  []int
	floats []float32
	ints   []int64
}

func (t *tensor) isInt() bool { return t.ints != nil }

func (t *tensor) len() int { return elements(t.shape) }

func elements(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func intTensor(values ...int64) *tensor {
	return &tensor{shape: []int{len(values)}, ints: append([]int64{}, values...)}
}

// Element types of TensorProto.
const (
	typeFloat    = 1
	typeUint8    = 2
	typeInt8     = 3
	typeUint16   = 4
	typeInt16    = 5
	typeInt32    = 6
	typeInt64    = 7
	typeBool     = 9
	typeFloat16  = 10
	typeDouble   = 11
	typeUint32   = 12
	typeUint64   = 13
	typeBfloat16 = 16
)

var sizes = map[int64]int{
	typeFloat: 4, typeUint8: 1, typeInt8: 1, typeUint16: 2, typeInt16: 2, typeInt32: 4, typeInt64: 8,
	typeBool: 1, typeFloat16: 2, typeDouble: 8, typeUint32: 4, typeUint64: 8, typeBfloat16: 2,
}

func isFloatType(t int64) bool {
	return t == typeFloat || t == typeFloat16 || t == typeDouble || t == typeBfloat16
}

// maxElements bounds one constant: more than any weight of the field's networks.
const maxElements = 1 << 31

// decode converts a stored tensor, reading external data relative to dir.
func (p *tensorProto) decode(dir string) (*tensor, error) {
	size, ok := sizes[p.dataType]
	if !ok {
		return nil, fmt.Errorf("element type %d is not supported", p.dataType)
	}
	if p.segment {
		return nil, errors.New("split in segments")
	}
	t := &tensor{shape: []int{}}
	n := int64(1)
	for _, d := range p.dims {
		if d < 0 || (d > 0 && n > maxElements/d) {
			return nil, fmt.Errorf("shape %v is too large", p.dims)
		}
		n *= d
		t.shape = append(t.shape, int(d))
	}
	if p.external != nil || p.hasRaw {
		if p.external == nil && int64(len(p.raw)) != n*int64(size) {
			return nil, fmt.Errorf("%d bytes for shape %v of %d bytes an element", len(p.raw), p.dims, size)
		}
		if p.external != nil {
			return t, p.readExternal(dir, t, int(n), size)
		}
		t.reserve(p.dataType, int(n))
		t.convert(0, p.raw, p.dataType, size)
		return t, nil
	}
	count := len(p.ints)
	switch p.dataType {
	case typeFloat:
		count = len(p.floats)
	case typeDouble:
		count = len(p.doubles)
	}
	if int64(count) != n {
		return nil, fmt.Errorf("%d values for shape %v", count, p.dims)
	}
	switch p.dataType {
	case typeFloat:
		t.floats = append([]float32{}, p.floats...)
	case typeDouble:
		t.floats = make([]float32, n)
		for i, v := range p.doubles {
			t.floats[i] = float32(v)
		}
	case typeFloat16, typeBfloat16:
		t.floats = make([]float32, n)
		for i, v := range p.ints {
			t.floats[i] = halfOf(uint16(v), p.dataType)
		}
	default:
		t.ints = append([]int64{}, p.ints...)
	}
	return t, nil
}

func halfOf(v uint16, dataType int64) float32 {
	if dataType == typeBfloat16 {
		return math.Float32frombits(uint32(v) << 16)
	}
	sign, exponent, fraction := uint32(v>>15)<<31, uint32(v>>10)&31, uint32(v)&1023
	switch exponent {
	case 0: // zero or subnormal: fraction * 2^-24
		f := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31:
		return math.Float32frombits(sign | 255<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// reserve makes room for n elements.
func (t *tensor) reserve(dataType int64, n int) {
	if isFloatType(dataType) {
		t.floats = make([]float32, n)
	} else {
		t.ints = make([]int64, n)
	}
}

// convert sets the elements from the first on to those of raw.
func (t *tensor) convert(first int, raw []byte, dataType int64, size int) {
	little := binary.LittleEndian
	if isFloatType(dataType) {
		to := t.floats[first:][:len(raw)/size]
		for i := range to {
			b := raw[i*size:]
			switch dataType {
			case typeFloat:
				to[i] = math.Float32frombits(little.Uint32(b))
			case typeDouble:
				to[i] = float32(math.Float64frombits(little.Uint64(b)))
			default:
				to[i] = halfOf(little.Uint16(b), dataType)
			}
		}
		return
	}
	to := t.ints[first:][:len(raw)/size]
	for i := range to {
		b := raw[i*size:]
		switch dataType {
		case typeUint8, typeBool:
			to[i] = int64(b[0])
		case typeInt8:
			to[i] = int64(int8(b[0]))
		case typeUint16:
			to[i] = int64(little.Uint16(b))
		case typeInt16:
			to[i] = int64(int16(little.Uint16(b)))
		case typeUint32:
			to[i] = int64(little.Uint32(b))
		case typeInt32:
			to[i] = int64(int32(little.Uint32(b)))
		default:
			to[i] = int64(little.Uint64(b))
		}
	}
}

// externalChunk is how much of external data is read at a time: weights may be
// most of memory, and there is no room for their bytes beside them.
const externalChunk = 1 << 20

// readExternal reads the n elements of a tensor from a file beside the model.
func (p *tensorProto) readExternal(dir string, t *tensor, n, elementSize int) error {
	size := int64(n) * int64(elementSize)
	location := p.external["location"]
	// A model is a stranger's: it may name files below its own folder only.
	if location == "" || !filepath.IsLocal(filepath.FromSlash(location)) {
		return fmt.Errorf("external data in %q: want a file beside the model", location)
	}
	number := func(key string, otherwise int64) (int64, error) {
		text, ok := p.external[key]
		if !ok {
			return otherwise, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("external data: %s is %q", key, text)
		}
		return n, nil
	}
	offset, err := number("offset", 0)
	if err != nil {
		return err
	}
	length, err := number("length", size)
	if err != nil {
		return err
	}
	if length != size {
		return fmt.Errorf("external data: %d bytes for shape %v, want %d", length, p.dims, size)
	}
	f, err := os.OpenInRoot(dir, filepath.FromSlash(location))
	if err != nil {
		return fmt.Errorf("external data: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("external data: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() < size || info.Size()-size < offset {
		return fmt.Errorf("external data: %s ends before byte %d", location, offset+size)
	}
	t.reserve(p.dataType, n)
	r := io.NewSectionReader(f, offset, size)
	chunk := make([]byte, min(size, externalChunk))
	for first := 0; first < n; first += len(chunk) / elementSize {
		chunk = chunk[:min(len(chunk), (n-first)*elementSize)]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return fmt.Errorf("external data: %w", err)
		}
		t.convert(first, chunk, p.dataType, elementSize)
	}
	return nil
}

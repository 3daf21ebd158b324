package weights

import (
	"encoding/binary"
	"math"
	"slices"
)

// dtype is a type of stored elements and how its little-endian bytes become
// float32. Integers and float64 are rounded to the nearest float32.
type dtype struct {
	name    string
	size    int
	convert func(dst []float32, src []byte)
}

var (
	boolType  = &dtype{"bool", 1, convertBool}
	uint8Type = &dtype{"uint8", 1, func(dst []float32, src []byte) {
		convertEach(dst, src, 1, func(b []byte) float32 { return float32(b[0]) })
	}}
	int8Type = &dtype{"int8", 1, func(dst []float32, src []byte) {
		convertEach(dst, src, 1, func(b []byte) float32 { return float32(int8(b[0])) })
	}}
	int16Type = &dtype{"int16", 2, func(dst []float32, src []byte) {
		convertEach(dst, src, 2, func(b []byte) float32 { return float32(int16(le.Uint16(b))) })
	}}
	uint16Type = &dtype{"uint16", 2, func(dst []float32, src []byte) {
		convertEach(dst, src, 2, func(b []byte) float32 { return float32(le.Uint16(b)) })
	}}
	int32Type = &dtype{"int32", 4, func(dst []float32, src []byte) {
		convertEach(dst, src, 4, func(b []byte) float32 { return float32(int32(le.Uint32(b))) })
	}}
	uint32Type = &dtype{"uint32", 4, func(dst []float32, src []byte) {
		convertEach(dst, src, 4, func(b []byte) float32 { return float32(le.Uint32(b)) })
	}}
	int64Type = &dtype{"int64", 8, func(dst []float32, src []byte) {
		convertEach(dst, src, 8, func(b []byte) float32 { return float32(int64(le.Uint64(b))) })
	}}
	uint64Type = &dtype{"uint64", 8, func(dst []float32, src []byte) {
		convertEach(dst, src, 8, func(b []byte) float32 { return float32(le.Uint64(b)) })
	}}
	float16Type = &dtype{"float16", 2, func(dst []float32, src []byte) {
		convertEach(dst, src, 2, func(b []byte) float32 { return half(le.Uint16(b)) })
	}}
	bfloat16Type = &dtype{"bfloat16", 2, func(dst []float32, src []byte) {
		convertEach(dst, src, 2, func(b []byte) float32 { return math.Float32frombits(uint32(le.Uint16(b)) << 16) })
	}}
	float32Type = &dtype{"float32", 4, convertFloat32}
	float64Type = &dtype{"float64", 8, func(dst []float32, src []byte) {
		convertEach(dst, src, 8, func(b []byte) float32 { return float32(math.Float64frombits(le.Uint64(b))) })
	}}
	// byteType is the element of an untyped storage, whose tensors name their own.
	byteType = &dtype{"byte", 1, nil}
)

var le = binary.LittleEndian

var safetensorsTypes = map[string]*dtype{
	"BOOL": boolType, "U8": uint8Type, "I8": int8Type, "I16": int16Type, "U16": uint16Type,
	"I32": int32Type, "U32": uint32Type, "I64": int64Type, "U64": uint64Type,
	"F16": float16Type, "BF16": bfloat16Type, "F32": float32Type, "F64": float64Type,
}

// torchStorages are the storage classes of module torch (and torch.cuda).
var torchStorages = map[string]*dtype{
	"BoolStorage": boolType, "ByteStorage": uint8Type, "CharStorage": int8Type, "ShortStorage": int16Type,
	"IntStorage": int32Type, "LongStorage": int64Type,
	"HalfStorage": float16Type, "BFloat16Storage": bfloat16Type, "FloatStorage": float32Type, "DoubleStorage": float64Type,
}

// torchTypes are the dtypes of module torch.
var torchTypes = map[string]*dtype{
	"bool": boolType, "uint8": uint8Type, "int8": int8Type, "int16": int16Type, "uint16": uint16Type,
	"int32": int32Type, "uint32": uint32Type, "int64": int64Type, "uint64": uint64Type,
	"float16": float16Type, "bfloat16": bfloat16Type, "float32": float32Type, "float64": float64Type,
}

func convertEach(dst []float32, src []byte, size int, value func([]byte) float32) {
	for i := range dst {
		dst[i] = value(src[i*size : (i+1)*size])
	}
}

func convertFloat32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
	}
}

func convertBool(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = 0
		if src[i] != 0 {
			dst[i] = 1
		}
	}
}

// half widens an IEEE 754 binary16, exactly.
func half(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp := uint32(h>>10) & 31
	frac := uint32(h) & 0x3ff
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31: // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// swap reverses the bytes of each element: big-endian to little-endian.
func swap(b []byte, size int) {
	for ; len(b) >= size; b = b[size:] {
		slices.Reverse(b[:size])
	}
}

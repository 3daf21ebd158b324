// Package safetensors reads and writes the safetensors format: named tensors
// as plain bytes, readable from Python in one line.
//
//	8 bytes    length N of the header, little-endian
//	N bytes    JSON: {"__metadata__": {string: string}, name: {"dtype", "shape", "data_offsets"}, ...}
//	the rest   the tensors' values, row-major, little-endian; offsets count from here
//
// The reader believes nothing in the header before it has compared it with the
// size of the file: the tensors must fill the rest exactly, without gap or
// overlap, each with as many bytes as its dtype and shape need. It keeps the
// file open and reads a tensor when asked for, so that one tensor of a large
// file costs the memory of that tensor alone.
package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"strings"
)

// Tensor is one named tensor as it lies in a file.
type Tensor struct {
	Name string
	// DType is the format's word for the type of an element: "F32", "F64",
	// "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", ...
	DType string
	// Shape is empty for a scalar.
	Shape []int
	// Data holds the elements, row-major and little-endian.
	Data []byte
}

// maxHeader is the limit that the format's own implementation sets.
const maxHeader = 100_000_000

const metadataKey = "__metadata__"

// elementSize lists the dtypes of whole bytes. The format's newer 4- and 6-bit
// floats are left out: nothing here can use them.
var elementSize = map[string]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8, "C64": 8,
}

// entry is what the header says of a tensor, once found true.
type entry struct {
	dtype      string
	shape      []int
	begin, end int64 // counted from the start of the data
}

// File is an open safetensors file. Its methods may be called from several
// goroutines at once.
type File struct {
	name     string
	r        io.ReaderAt
	start    int64 // where the data begins
	names    []string
	entries  map[string]entry
	metadata map[string]string
	closer   io.Closer
}

// Read opens the file at path and checks its header. The file stays open until
// Close.
func Read(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if !info.Mode().IsRegular() { // before opening: a pipe would block
		return nil, fmt.Errorf("safetensors: %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	info, err = f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	file, err := Decode(path, f, info.Size())
	if err != nil {
		f.Close()
		return nil, err
	}
	file.closer = f
	return file, nil
}

// Decode checks the header of the size bytes of r; name stands for them in
// errors. r is read again whenever a tensor is asked for.
func Decode(name string, r io.ReaderAt, size int64) (*File, error) {
	f := &File{name: name, r: r, entries: make(map[string]entry)}
	if err := f.readHeader(size); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	return f, nil
}

// Close closes the file that Read opened; after Decode it does nothing.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Names returns the names of all tensors in the order of the header.
func (f *File) Names() []string { return append([]string(nil), f.names...) }

// Metadata returns the free texts of the header, nil when there are none.
func (f *File) Metadata() map[string]string {
	if f.metadata == nil {
		return nil
	}
	m := make(map[string]string, len(f.metadata))
	for k, v := range f.metadata {
		m[k] = v
	}
	return m
}

// Below returns a view of the tensors whose names begin with prefix, without it.
// The view has no metadata, and its Close does nothing.
func (f *File) Below(prefix string) *File {
	v := &File{name: f.name, r: f.r, start: f.start, entries: make(map[string]entry)}
	for _, name := range f.names {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			v.names = append(v.names, rest)
			v.entries[rest] = f.entries[name]
		}
	}
	return v
}

// Section returns a tensor without its Data, and a reader of that data.
func (f *File) Section(name string) (Tensor, *io.SectionReader, error) {
	e, ok := f.entries[name]
	if !ok {
		return Tensor{}, nil, fmt.Errorf("safetensors: %s: no tensor %s", f.name, quote(name))
	}
	t := Tensor{Name: name, DType: e.dtype, Shape: append([]int{}, e.shape...)}
	return t, io.NewSectionReader(f.r, f.start+e.begin, e.end-e.begin), nil
}

// Tensor reads one tensor.
func (f *File) Tensor(name string) (Tensor, error) {
	t, r, err := f.Section(name)
	if err != nil {
		return Tensor{}, err
	}
	if r.Size() > math.MaxInt {
		return Tensor{}, f.fault(name, errors.New("too large for this machine"))
	}
	t.Data = make([]byte, r.Size()) // readHeader has seen that these bytes exist
	if _, err := io.ReadFull(r, t.Data); err != nil {
		return Tensor{}, f.fault(name, cutOff(err))
	}
	return t, nil
}

// Float32s reads a tensor of dtype F32; any other dtype is an error.
func (f *File) Float32s(name string) (data []float32, shape []int, err error) {
	return read[float32](f, name, "F32")
}

// Float64s reads a tensor of dtype F64; any other dtype is an error.
func (f *File) Float64s(name string) (data []float64, shape []int, err error) {
	return read[float64](f, name, "F64")
}

// Int64s reads a tensor of dtype I64; any other dtype is an error.
func (f *File) Int64s(name string) (data []int64, shape []int, err error) {
	return read[int64](f, name, "I64")
}

// Int32s reads a tensor of dtype I32; any other dtype is an error.
func (f *File) Int32s(name string) (data []int32, shape []int, err error) {
	return read[int32](f, name, "I32")
}

// Uint8s reads a tensor of dtype U8; any other dtype is an error.
func (f *File) Uint8s(name string) (data []uint8, shape []int, err error) {
	return read[uint8](f, name, "U8")
}

// element lists the types that have constructors and readers here.
type element interface {
	float32 | float64 | int64 | int32 | uint8
}

// read decodes in pieces, so that the bytes and the values of a large tensor
// are never in memory together.
func read[T element](f *File, name, dtype string) ([]T, []int, error) {
	t, r, err := f.Section(name)
	if err != nil {
		return nil, nil, err
	}
	if t.DType != dtype {
		return nil, nil, f.fault(name, fmt.Errorf("dtype %s, want %s", t.DType, dtype))
	}
	n := r.Size() / int64(elementSize[dtype])
	if n > math.MaxInt/int64(elementSize[dtype]) {
		return nil, nil, f.fault(name, errors.New("too large for this machine"))
	}
	data := make([]T, n)
	buf := make([]byte, min(r.Size(), 1<<18))
	for rest := data; len(rest) > 0; {
		k := min(len(rest), len(buf)/elementSize[dtype])
		b := buf[:k*elementSize[dtype]]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, nil, f.fault(name, cutOff(err))
		}
		if _, err := binary.Decode(b, binary.LittleEndian, rest[:k]); err != nil {
			return nil, nil, f.fault(name, err)
		}
		rest = rest[k:]
	}
	return data, t.Shape, nil
}

func (f *File) fault(tensor string, err error) error {
	return fmt.Errorf("safetensors: %s: tensor %s: %w", f.name, quote(tensor), err)
}

// cutOff words the error of a file that shrank after its header was checked.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends before the tensor does")
	}
	return err
}

// byteCount returns the bytes that a tensor needs, or an error when dtype is
// unknown or the product does not fit.
func byteCount(dtype string, shape []int) (int64, error) {
	size, ok := elementSize[dtype]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %s", quote(dtype))
	}
	n := uint64(size)
	empty, tooLarge := false, false
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("negative size in shape %v", short(shape))
		}
		if d == 0 {
			empty = true
			continue
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			tooLarge = true // an error even beside a zero, as in the format's own implementation
			break
		}
		n = lo
	}
	switch {
	case tooLarge:
		return 0, fmt.Errorf("shape %v is too large", short(shape))
	case empty:
		return 0, nil
	}
	return int64(n), nil
}

// quote shows a name from a file, shortened when it is absurdly long.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return fmt.Sprintf("%q... (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}

func short(shape []int) string {
	const most = 16
	if len(shape) > most {
		return fmt.Sprintf("%v... (%d sizes)", shape[:most], len(shape))
	}
	return fmt.Sprint(shape)
}

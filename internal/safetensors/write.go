package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"nac/internal/atomicfile"
)

// Float32 makes a tensor of dtype F32. Write checks that shape and data agree.
func Float32(name string, shape []int, data []float32) Tensor {
	return tensor(name, "F32", shape, data)
}

// Float64 makes a tensor of dtype F64. Write checks that shape and data agree.
func Float64(name string, shape []int, data []float64) Tensor {
	return tensor(name, "F64", shape, data)
}

// Int64 makes a tensor of dtype I64. Write checks that shape and data agree.
func Int64(name string, shape []int, data []int64) Tensor {
	return tensor(name, "I64", shape, data)
}

// Int32 makes a tensor of dtype I32. Write checks that shape and data agree.
func Int32(name string, shape []int, data []int32) Tensor {
	return tensor(name, "I32", shape, data)
}

// Uint8 makes a tensor of dtype U8. Write checks that shape and data agree.
func Uint8(name string, shape []int, data []uint8) Tensor {
	return tensor(name, "U8", shape, data)
}

func tensor[T element](name, dtype string, shape []int, data []T) Tensor {
	buf := make([]byte, 0, len(data)*elementSize[dtype])
	buf, err := binary.Append(buf, binary.LittleEndian, data)
	if err != nil {
		panic("safetensors: " + err.Error()) // element has fixed sizes only
	}
	return Tensor{Name: name, DType: dtype, Shape: slices.Clone(shape), Data: buf}
}

// Write makes the file at path, whole or not at all. The same tensors and
// metadata always give the same bytes.
func Write(path string, tensors []Tensor, metadata map[string]string) error {
	header, order, err := layout(tensors, metadata)
	if err != nil {
		return fmt.Errorf("safetensors: %s: %w", path, err)
	}
	err = atomicfile.Write(path, func(w io.Writer) error { return emit(w, header, tensors, order) })
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

// Encode is Write to any writer.
func Encode(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	header, order, err := layout(tensors, metadata)
	if err == nil {
		err = emit(w, header, tensors, order)
	}
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

func emit(w io.Writer, header []byte, tensors []Tensor, order []int) error {
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, i := range order {
		if _, err := w.Write(tensors[i].Data); err != nil {
			return err
		}
	}
	return nil
}

// layout returns everything before the data, its length included, and the order
// in which the tensors' data must follow.
func layout(tensors []Tensor, metadata map[string]string) (header []byte, order []int, err error) {
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		if err := check(t, seen); err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		seen[t.Name] = true
	}
	// The header keeps the caller's order. The data goes by falling element size,
	// so that each tensor is aligned to its elements: PyTorch's reader views the
	// mapped file and refuses anything else.
	order = make([]int, len(tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(elementSize[tensors[b].DType], elementSize[tensors[a].DType])
	})
	begin := make([]int, len(tensors))
	at := 0
	for _, i := range order {
		begin[i] = at
		at += len(tensors[i].Data)
	}

	var b bytes.Buffer
	b.Write(make([]byte, 8)) // the length, filled in below
	b.WriteByte('{')
	if metadata != nil {
		if err := writeMetadata(&b, metadata); err != nil {
			return nil, nil, err
		}
	}
	for i, t := range tensors {
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		writeString(&b, t.Name)
		b.WriteString(`:{"dtype":`)
		writeString(&b, t.DType)
		b.WriteString(`,"shape":[`)
		for j, d := range t.Shape {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Itoa(d))
		}
		fmt.Fprintf(&b, `],"data_offsets":[%d,%d]}`, begin[i], begin[i]+len(t.Data))
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	header = b.Bytes()
	if len(header)-8 > maxHeader {
		return nil, nil, fmt.Errorf("a header of %d bytes (the limit is %d)", len(header)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, order, nil
}

func check(t Tensor, seen map[string]bool) error {
	switch {
	case t.Name == "" || t.Name == metadataKey:
		return errors.New("no name for a tensor")
	case !utf8.ValidString(t.Name):
		return errors.New("the name is not UTF-8")
	case seen[t.Name]:
		return errors.New("given twice")
	}
	want, err := byteCount(t.DType, t.Shape)
	if err != nil {
		return err
	}
	if int64(len(t.Data)) != want {
		return fmt.Errorf("dtype %s and shape %v need %d bytes, the data has %d", t.DType, short(t.Shape), want, len(t.Data))
	}
	return nil
}

func writeMetadata(b *bytes.Buffer, metadata map[string]string) error {
	writeString(b, metadataKey)
	b.WriteString(":{")
	for i, k := range slices.Sorted(maps.Keys(metadata)) {
		if !utf8.ValidString(k) || !utf8.ValidString(metadata[k]) {
			return fmt.Errorf("metadata %s: not UTF-8", quote(k))
		}
		if i > 0 {
			b.WriteByte(',')
		}
		writeString(b, k)
		b.WriteByte(':')
		writeString(b, metadata[k])
	}
	b.WriteByte('}')
	return nil
}

func writeString(b *bytes.Buffer, s string) {
	j, err := json.Marshal(s)
	if err != nil {
		panic("safetensors: " + err.Error()) // a string always has a JSON form
	}
	b.Write(j)
}

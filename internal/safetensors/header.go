package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// readHeader fills f from a file of size bytes and checks every claim.
func (f *File) readHeader(size int64) error {
	if size < 8 {
		return fmt.Errorf("cut off: %d bytes, and the length of the header alone takes 8", size)
	}
	var prefix [8]byte
	if _, err := f.r.ReadAt(prefix[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		return fmt.Errorf("not a safetensors file: a header of %d bytes (the limit is %d)", n, maxHeader)
	}
	if int64(n) > size-8 {
		return fmt.Errorf("cut off, or not a safetensors file: a header of %d bytes in a file of %d", n, size)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f.r, 8, int64(n)), header); err != nil {
		return fmt.Errorf("header: %w", cutOff(err))
	}
	f.start = 8 + int64(n)
	if !bytes.HasPrefix(header, []byte("{")) {
		return errors.New("not a safetensors file: the header does not begin with {")
	}
	if !utf8.Valid(header) {
		return errors.New("header: not UTF-8")
	}
	if err := f.parse(header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return f.checkLayout(size - f.start)
}

// parse reads the JSON token by token: encoding/json would let the last of two
// equal keys win and match keys whatever their case.
func (f *File) parse(header []byte) error {
	dec := json.NewDecoder(bytes.NewReader(header))
	dec.UseNumber()
	err := object(dec, func(key string) error {
		if key == metadataKey {
			return f.parseMetadata(dec)
		}
		e, err := parseEntry(dec)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(key), err)
		}
		f.names = append(f.names, key)
		f.entries[key] = e
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) { // padding is white space
		return errors.New("something follows the JSON object")
	}
	return nil
}

func (f *File) parseMetadata(dec *json.Decoder) error {
	f.metadata = make(map[string]string)
	err := object(dec, func(key string) error {
		tok, err := next(dec)
		if err != nil {
			return err
		}
		s, ok := tok.(string)
		if !ok {
			return fmt.Errorf("%s is not a string", quote(key))
		}
		f.metadata[key] = s
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", metadataKey, err)
	}
	return nil
}

func parseEntry(dec *json.Decoder) (entry, error) {
	var e entry
	var shape, offsets []int
	seen := make(map[string]bool, 3)
	err := object(dec, func(key string) error {
		seen[key] = true
		var err error
		switch key {
		case "dtype":
			var tok json.Token
			if tok, err = next(dec); err != nil {
				return err
			}
			var ok bool
			if e.dtype, ok = tok.(string); !ok {
				return errors.New("dtype is not a string")
			}
		case "shape":
			shape, err = integers(dec)
		case "data_offsets":
			offsets, err = integers(dec)
		default:
			return fmt.Errorf("unknown key %s", quote(key))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return e, fmt.Errorf("%s is missing", key)
		}
	}
	if len(offsets) != 2 {
		return e, fmt.Errorf("data_offsets: %d numbers, want 2", len(offsets))
	}
	e.shape, e.begin, e.end = shape, int64(offsets[0]), int64(offsets[1])
	if e.begin > e.end {
		return e, fmt.Errorf("data_offsets %v: the end is before the begin", offsets)
	}
	want, err := byteCount(e.dtype, e.shape)
	if err != nil {
		return e, err
	}
	if e.end-e.begin != want {
		return e, fmt.Errorf("dtype %s and shape %v need %d bytes, data_offsets %v give %d", e.dtype, short(e.shape), want, offsets, e.end-e.begin)
	}
	return e, nil
}

// checkLayout demands that the tensors fill the data exactly: a gap could hide
// something, an overlap or an end outside the file is a lie.
func (f *File) checkLayout(size int64) error {
	order := slices.Clone(f.names)
	slices.SortStableFunc(order, func(a, b string) int {
		x, y := f.entries[a], f.entries[b]
		switch {
		case x.begin < y.begin, x.begin == y.begin && x.end < y.end:
			return -1
		case x.begin == y.begin && x.end == y.end:
			return 0
		}
		return 1
	})
	at := int64(0)
	for _, name := range order {
		e := f.entries[name]
		switch {
		case e.end > size:
			return fmt.Errorf("tensor %s: cut off: its data ends at byte %d of %d", quote(name), e.end, size)
		case e.begin < at:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] overlap the tensor before it, which ends at %d", quote(name), e.begin, e.end, at)
		case e.begin > at:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] leave a gap after byte %d", quote(name), e.begin, e.end, at)
		}
		at = e.end
	}
	if at != size {
		return fmt.Errorf("the tensors end at byte %d of %d of data", at, size)
	}
	return nil
}

// object reads one JSON object and calls value for each key, which must read
// the key's value. A key that stands twice is an error.
func object(dec *json.Decoder, value func(key string) error) error {
	tok, err := next(dec)
	if err != nil {
		return err
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("%v where an object should be", tok)
	}
	seen := make(map[string]bool)
	for dec.More() {
		if tok, err = next(dec); err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return fmt.Errorf("%v where a key should be", tok)
		}
		if seen[key] {
			return fmt.Errorf("key %s stands twice", quote(key))
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	_, err = next(dec)
	return err
}

// integers reads an array of whole numbers from zero up, written plainly.
func integers(dec *json.Decoder) ([]int, error) {
	tok, err := next(dec)
	if err != nil {
		return nil, err
	}
	if tok != json.Delim('[') {
		return nil, fmt.Errorf("%v where an array should be", tok)
	}
	list := []int{}
	for dec.More() {
		if tok, err = next(dec); err != nil {
			return nil, err
		}
		num, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%v where a number should be", tok)
		}
		v, err := strconv.ParseUint(num.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("%s is not a size this machine can hold", quote(num.String()))
		}
		list = append(list, int(v))
	}
	_, err = next(dec)
	return list, err
}

// next is dec.Token with the end of the header as an error like any other.
func next(dec *json.Decoder) (json.Token, error) {
	tok, err := dec.Token()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return tok, err
}

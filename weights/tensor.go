package weights

import (
	"archive/zip"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"nac/internal/memory"
)

// storage is a run of elements in a file, which one or more tensors view.
type storage struct {
	key    string
	dtype  *dtype
	length int64 // elements
	// data holds the bytes; nil until the container has found them. Its size is
	// what the file truly has.
	data *io.SectionReader
	big  bool // big-endian elements
	sum  *checksum
	// root and start: an old checkpoint's view of another storage.
	root  *storage
	start int64
}

// checksum is what a file in an archive says of its bytes.
type checksum struct {
	file  string
	crc32 uint32
}

// verify compares the bytes of a file with its checksum, if there is one.
func (c *checksum) verify(data *io.SectionReader) error {
	if c == nil {
		return nil
	}
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(data, 0, data.Size())); err != nil {
		return fmt.Errorf("zip archive: %s: %w", quote(c.file), err)
	}
	return c.compare(h)
}

func (c *checksum) compare(h hash.Hash32) error {
	if h.Sum32() != c.crc32 {
		return fmt.Errorf("zip archive: %s: %w", quote(c.file), zip.ErrChecksum)
	}
	return nil
}

// tensor is a view of a storage, as a pickle describes it: not yet checked.
type tensor struct {
	storage *storage
	dtype   *dtype // of its own when the storage is untyped, else nil
	offset  int64  // in elements
	shape   []int
	strides []int
}

type namedTensor struct {
	name string
	t    *tensor
}

// slack is what all tensors together may hold beyond four values per byte of the
// file, so that a small file full of expanded scalars is not refused.
const slack = 1 << 20

// piece is the number of elements that are read and converted at a time, so that
// the bytes and the values of a large tensor are never in memory together.
const piece = 1 << 15

// build reads the tensors. Views may share a storage and a stride may be zero, so
// that a small file can claim any amount of values: their sum is bounded by the
// size of the file before anything is allocated.
func build(source string, list []namedTensor, size int64) (*StateDict, error) {
	total := int64(0)
	for _, nt := range list {
		n, err := nt.t.check()
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(nt.name), err)
		}
		if total += n; total-slack > 4*size {
			return nil, fmt.Errorf("tensor %s: a file of %d bytes describes more than %d values: refused", quote(nt.name), size, 4*size)
		}
	}
	left := size
	verifiers := make(map[*storage]int) // which tensor compares a storage with its checksum
	for i, nt := range list {
		st := nt.t.storage.base()
		v, seen := verifiers[st]
		if !seen {
			// Storages that lay over each other could be many times the file.
			if left -= st.data.Size(); left < 0 {
				return nil, fmt.Errorf("tensor %s: storages overlap in the file", quote(nt.name))
			}
		}
		if !seen || nt.t.whole() && !list[v].t.whole() {
			verifiers[st] = i
		}
	}
	data, faults := make([][]float32, len(list)), make([]error, len(list))
	each(len(list), func() func(int) {
		buf := make([]byte, min(total, piece)*8) // no element is larger
		return func(i int) {
			t := list[i].t
			data[i], faults[i] = t.read(buf, verifiers[t.storage.base()] == i)
		}
	})
	s := New(source)
	for i, nt := range list {
		if faults[i] != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(nt.name), faults[i])
		}
		s.Set(nt.name, Tensor{Shape: append([]int{}, nt.t.shape...), Data: data[i]})
	}
	return s, nil
}

// each does n things on all processors; worker makes what one goroutine does them with.
func each(n int, worker func() func(i int)) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wait.Go(func() {
			do := worker()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wait.Wait()
}

// base returns the storage that holds the bytes.
func (s *storage) base() *storage {
	if s.root != nil {
		return s.root
	}
	return s
}

func (t *tensor) elementType() *dtype {
	if t.dtype != nil {
		return t.dtype
	}
	return t.storage.dtype
}

// check compares the view with its storage, and the storage with the bytes in the
// file, and returns the number of values that read will hold, gaps between them
// included.
func (t *tensor) check() (int64, error) {
	st, base := t.storage, t.storage.base()
	d := t.elementType()
	switch {
	case d.convert == nil:
		return 0, errors.New("an untyped storage without a dtype")
	case base.data == nil:
		return 0, fmt.Errorf("its storage %s is not in the file", quote(base.key))
	case t.dtype != nil && st != base:
		return 0, errors.New("a dtype of its own on a view of a storage")
	case len(t.shape) != len(t.strides):
		return 0, fmt.Errorf("%d sizes but %d strides", len(t.shape), len(t.strides))
	case t.offset < 0:
		return 0, fmt.Errorf("negative storage offset %d", t.offset)
	}
	// The container has compared base.length with its bytes; a view has not been.
	if st != base && (st.dtype != base.dtype || st.start < 0 || st.length < 0 || st.start > base.length || st.length > base.length-st.start) {
		return 0, fmt.Errorf("storage view %s lies outside its storage", quote(st.key))
	}
	length := st.length
	if t.dtype != nil { // the storage counts bytes
		length /= int64(d.size)
	}
	for i := range t.shape {
		if t.shape[i] < 0 || t.strides[i] < 0 {
			return 0, fmt.Errorf("negative shape %v or strides %v", t.shape, t.strides)
		}
	}
	n, ok := elements(t.shape)
	if !ok {
		return 0, fmt.Errorf("shape %v is too large", t.shape)
	}
	if n == 0 {
		return 0, nil
	}
	last, ok := t.last()
	if !ok || last >= length {
		return 0, fmt.Errorf("cut off: shape %v, strides %v, offset %d reach outside a storage of %d elements", t.shape, t.strides, t.offset, length)
	}
	return max(n, last-t.offset+1), nil
}

// last returns the storage index of the last element; false when it overflows.
func (t *tensor) last() (int64, bool) {
	last := t.offset
	for i, d := range t.shape {
		hi, lo := bits.Mul64(uint64(d-1), uint64(t.strides[i]))
		if hi != 0 || lo > uint64(math.MaxInt64-last) {
			return 0, false
		}
		last += int64(lo)
	}
	return last, true
}

// whole reports whether the view is all of its storage, in order.
func (t *tensor) whole() bool {
	st := t.storage
	n, _ := elements(t.shape)
	return st == st.base() && t.offset == 0 && t.contiguous() && n*int64(t.elementType().size) == st.data.Size()
}

// read converts the checked view, by way of buf, and with verify compares the bytes of
// its whole storage with their checksum.
func (t *tensor) read(buf []byte, verify bool) ([]float32, error) {
	base := t.storage.base()
	var sum hash.Hash32
	if verify && base.sum != nil && t.whole() {
		sum = crc32.NewIEEE() // of what is read anyway
	} else if verify {
		if err := base.sum.verify(base.data); err != nil {
			return nil, err
		}
	}
	n, _ := elements(t.shape)
	if n == 0 {
		return []float32{}, nil
	}
	span := n
	contiguous := t.contiguous()
	if !contiguous {
		last, _ := t.last()
		span = last - t.offset + 1
	}
	data, err := t.readRun(span, buf, sum)
	if err == nil && sum != nil {
		err = base.sum.compare(sum)
	}
	if err != nil || contiguous {
		return data, err
	}
	// Walk the shape like an odometer; at follows the strides.
	out := make([]float32, n)
	index := make([]int, len(t.shape))
	at := 0
	for i := range out {
		out[i] = data[at]
		for axis := len(index) - 1; axis >= 0; axis-- {
			index[axis]++
			at += t.strides[axis]
			if index[axis] < t.shape[axis] {
				break
			}
			at -= index[axis] * t.strides[axis]
			index[axis] = 0
		}
	}
	return out, nil
}

// readRun converts n neighbouring elements from the tensor's offset on. Their bytes go to
// sum, if there is one.
func (t *tensor) readRun(n int64, buf []byte, sum hash.Hash32) ([]float32, error) {
	d := t.elementType()
	base := t.storage.base()
	from := (t.storage.start + t.offset) * int64(d.size)
	if n > math.MaxInt/8 {
		return nil, errors.New("too large for this machine")
	}
	data := make([]float32, n) // check has seen that these elements exist
	raw, ready := memory.LittleEndian(data)
	ready = ready && d == float32Type && !base.big
	for rest := data; len(rest) > 0; {
		k := min(len(rest), piece)
		b := buf[:k*d.size]
		if ready {
			b, raw = raw[:4*k], raw[4*k:]
		}
		if m, err := base.data.ReadAt(b, from); m < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("the file ends before the tensor does")
			}
			return nil, err
		}
		if sum != nil {
			sum.Write(b)
		}
		if base.big {
			swap(b, d.size)
		}
		if !ready {
			d.convert(rest[:k], b)
		}
		rest = rest[k:]
		from += int64(len(b))
	}
	return data, nil
}

func (t *tensor) contiguous() bool {
	want := 1
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.strides[i] != want {
			return false
		}
		want *= t.shape[i]
	}
	return true
}

// elements returns the number of values of a shape without negative sizes; false
// when it overflows.
func elements(shape []int) (int64, bool) {
	n, empty := uint64(1), false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d == 0 {
			empty = true
			continue
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = lo
	}
	if empty {
		return 0, true
	}
	return int64(n), true
}

// rowMajor returns the strides of a contiguous tensor whose size is known to fit.
func rowMajor(shape []int) []int {
	strides := make([]int, len(shape))
	step := 1
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = step
		step *= max(shape[i], 1)
	}
	return strides
}

// quote shows a name from a file, shortened when it is absurdly long.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return fmt.Sprintf("%q... (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}

package weights

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// The opcodes of pickle protocols 2 to 5, as pickletools documents them. Those of
// protocols 0 and 1 that the later ones never write are left out.
const (
	opMark            = '('
	opStop            = '.'
	opPop             = '0'
	opPopMark         = '1'
	opDup             = '2'
	opBinFloat        = 'G'
	opBinInt          = 'J'
	opBinInt1         = 'K'
	opBinInt2         = 'M'
	opNone            = 'N'
	opBinPersID       = 'Q'
	opReduce          = 'R'
	opBinString       = 'T'
	opShortBinString  = 'U'
	opBinUnicode      = 'X'
	opAppend          = 'a'
	opBuild           = 'b'
	opGlobal          = 'c'
	opAppends         = 'e'
	opBinGet          = 'h'
	opLongBinGet      = 'j'
	opEmptyList       = ']'
	opBinPut          = 'q'
	opLongBinPut      = 'r'
	opSetItem         = 's'
	opTuple           = 't'
	opEmptyTuple      = ')'
	opSetItems        = 'u'
	opEmptyDict       = '}'
	opProto           = 0x80
	opNewObj          = 0x81
	opTuple1          = 0x85
	opTuple2          = 0x86
	opTuple3          = 0x87
	opNewTrue         = 0x88
	opNewFalse        = 0x89
	opLong1           = 0x8a
	opLong4           = 0x8b
	opBinBytes        = 'B'
	opShortBinBytes   = 'C'
	opShortBinUnicode = 0x8c
	opBinUnicode8     = 0x8d
	opBinBytes8       = 0x8e
	opEmptySet        = 0x8f
	opAddItems        = 0x90
	opFrozenSet       = 0x91
	opNewObjEx        = 0x92
	opStackGlobal     = 0x93
	opMemoize         = 0x94
	opFrame           = 0x95
	opByteArray8      = 0x96
)

// maxSteps bounds the work and, as each step makes at most one small value, the
// memory of a pickle. A network of 1,000 tensors takes about 40,000 steps.
const maxSteps = 1 << 21

// The values of a pickle: nil (None), bool, int64, float64, string, and these.
// Nothing else exists here, so nothing else can be built.
type (
	// bytesValue is a bytes or bytearray.
	bytesValue string
	// bigInt is an integer beyond int64: two's complement, little-endian.
	bigInt string
	// sequence is a list, tuple, set or torch.Size.
	sequence struct{ items []any }
	// mapping is a dict or a kind of it. A key set twice stands twice; the last
	// one holds.
	mapping struct{ pairs []pair }
	pair    struct{ key, value any }
	// and *class, *storage, *tensor.
)

// unpickler runs pickles that follow each other in one stream.
type unpickler struct {
	r        *bufio.Reader
	left     int64 // bytes of the stream not yet read
	size     int64
	steps    *int
	nested   bool // inside the bytes of another pickle
	storages map[string]*storage

	stack []any
	marks []int
	memo  map[uint32]any
}

func newUnpickler(r io.ReaderAt, size int64, steps *int) *unpickler {
	return &unpickler{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<13), left: size, size: size, steps: steps, storages: make(map[string]*storage)}
}

// position is the number of bytes read so far.
func (u *unpickler) position() int64 { return u.size - u.left }

// fault is how the code below leaves load: a pickle machine has an error at
// every other line.
type fault struct{ err error }

func fail(format string, args ...any) { panic(fault{fmt.Errorf(format, args...)}) }

// load runs one pickle and returns what it leaves.
func (u *unpickler) load() (value any, err error) {
	u.stack, u.marks, u.memo = nil, nil, make(map[uint32]any)
	defer func() {
		switch f := recover().(type) {
		case nil:
		case fault:
			value, err = nil, fmt.Errorf("pickle, byte %d: %w", u.position(), f.err)
		default:
			panic(f)
		}
	}()
	for {
		u.spend(1)
		op := u.byte()
		if op == opStop {
			return u.pop(), nil
		}
		u.step(op)
	}
}

func (u *unpickler) step(op byte) {
	switch op {
	case opProto:
		if v := u.byte(); v < 2 || v > 5 {
			fail("protocol %d, want 2 to 5", v)
		}
	case opFrame:
		u.bytes(8)

	case opNone:
		u.push(nil)
	case opNewTrue:
		u.push(true)
	case opNewFalse:
		u.push(false)
	case opBinInt:
		u.push(int64(int32(u.uint(4))))
	case opBinInt1:
		u.push(int64(u.uint(1)))
	case opBinInt2:
		u.push(int64(u.uint(2)))
	case opLong1:
		u.push(integer(u.bytes(u.uint(1))))
	case opLong4:
		u.push(integer(u.bytes(u.uint(4))))
	case opBinFloat:
		var bits uint64
		for _, b := range []byte(u.bytes(8)) { // the one big-endian number
			bits = bits<<8 | uint64(b)
		}
		u.push(math.Float64frombits(bits))
	case opShortBinUnicode, opShortBinString:
		u.push(u.bytes(u.uint(1)))
	case opBinUnicode, opBinString:
		u.push(u.bytes(u.uint(4)))
	case opBinUnicode8:
		u.push(u.bytes(u.uint(8)))
	case opShortBinBytes:
		u.push(bytesValue(u.bytes(u.uint(1))))
	case opBinBytes:
		u.push(bytesValue(u.bytes(u.uint(4))))
	case opBinBytes8, opByteArray8:
		u.push(bytesValue(u.bytes(u.uint(8))))

	case opMark:
		u.marks = append(u.marks, len(u.stack))
	case opPop:
		u.pop()
	case opPopMark:
		u.popMark()
	case opDup:
		u.push(u.top())
	case opBinPut:
		u.memo[uint32(u.uint(1))] = u.top()
	case opLongBinPut:
		u.memo[uint32(u.uint(4))] = u.top()
	case opMemoize:
		u.memo[uint32(len(u.memo))] = u.top()
	case opBinGet:
		u.get(uint32(u.uint(1)))
	case opLongBinGet:
		u.get(uint32(u.uint(4)))

	case opEmptyTuple, opEmptyList, opEmptySet:
		u.push(&sequence{})
	case opTuple1:
		u.tuple(1)
	case opTuple2:
		u.tuple(2)
	case opTuple3:
		u.tuple(3)
	case opTuple, opFrozenSet:
		u.push(&sequence{u.popMark()})
	case opAppend:
		v := u.pop()
		u.extend([]any{v})
	case opAppends, opAddItems:
		items := u.popMark()
		u.extend(items)
	case opEmptyDict:
		u.push(&mapping{})
	case opSetItem:
		v := u.pop()
		k := u.pop()
		u.update([]any{k, v})
	case opSetItems:
		items := u.popMark()
		u.update(items)

	case opGlobal:
		module := u.line()
		u.push(u.class(module, u.line()))
	case opStackGlobal:
		name, ok := u.pop().(string)
		module, ok2 := u.pop().(string)
		if !ok || !ok2 {
			fail("the name of a class is not a string")
		}
		u.push(u.class(module, name))
	case opReduce:
		args := u.args()
		u.push(u.callable().call(u, args))
	case opNewObj:
		args := u.args()
		c := u.callable()
		if !c.container {
			fail("makes an object of class %s: refused; %s", c.name, onlyTensors)
		}
		u.push(c.call(u, args))
	case opBuild:
		u.pop() // what is not looked at cannot do harm
		if _, ok := u.top().(*mapping); !ok {
			fail("sets the state of %s: refused; %s", describe(u.top()), onlyTensors)
		}
	case opBinPersID:
		u.push(u.persistent(u.pop()))
	case opNewObjEx:
		fail("opcode NEWOBJ_EX: refused; %s", onlyTensors)
	default:
		fail("opcode %#02x is not one that checkpoints have", op)
	}
}

// spend takes n from the steps that are left.
func (u *unpickler) spend(n int) {
	if *u.steps -= n; *u.steps < 0 {
		fail("more than %d steps: refused", maxSteps)
	}
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() any {
	v := u.top()
	u.stack[len(u.stack)-1] = nil
	u.stack = u.stack[:len(u.stack)-1]
	return v
}

// top returns the last value since the last mark.
func (u *unpickler) top() any {
	floor := 0
	if len(u.marks) > 0 {
		floor = u.marks[len(u.marks)-1]
	}
	if len(u.stack) <= floor {
		fail("the stack is empty")
	}
	return u.stack[len(u.stack)-1]
}

// popMark removes all values since the last mark, and the mark.
func (u *unpickler) popMark() []any {
	if len(u.marks) == 0 {
		fail("no mark on the stack")
	}
	floor := u.marks[len(u.marks)-1]
	u.marks = u.marks[:len(u.marks)-1]
	items := append([]any(nil), u.stack[floor:]...)
	clear(u.stack[floor:])
	u.stack = u.stack[:floor]
	return items
}

func (u *unpickler) get(i uint32) {
	v, ok := u.memo[i]
	if !ok {
		fail("memo %d was never set", i)
	}
	u.push(v)
}

func (u *unpickler) tuple(n int) {
	items := make([]any, n)
	for i := n - 1; i >= 0; i-- {
		items[i] = u.pop()
	}
	u.push(&sequence{items})
}

func (u *unpickler) extend(items []any) {
	s, ok := u.top().(*sequence)
	if !ok {
		fail("appends to %s", describe(u.top()))
	}
	s.items = append(s.items, items...)
}

func (u *unpickler) update(items []any) {
	m, ok := u.top().(*mapping)
	if !ok {
		fail("sets an item of %s: refused; %s", describe(u.top()), onlyTensors)
	}
	if len(items)%2 != 0 {
		fail("a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		m.pairs = append(m.pairs, pair{items[i], items[i+1]})
	}
}

func (u *unpickler) args() []any {
	s, ok := u.pop().(*sequence)
	if !ok {
		fail("arguments of a call that are no tuple")
	}
	return s.items
}

func (u *unpickler) callable() *class {
	v := u.pop()
	c, ok := v.(*class)
	if !ok {
		fail("calls %s", describe(v))
	}
	if c.call == nil {
		fail("calls %s: refused; %s", c.name, onlyTensors)
	}
	return c
}

var errCutOff = errors.New("cut off: the file ends inside the pickle")

func (u *unpickler) byte() byte {
	b, err := u.r.ReadByte()
	if err != nil {
		u.readFailed(err)
	}
	u.left--
	return b
}

// bytes reads n bytes, which are compared with what is left before any memory is
// taken for them.
func (u *unpickler) bytes(n uint64) string {
	if n > uint64(u.left) {
		u.readFailed(io.ErrUnexpectedEOF)
	}
	var b strings.Builder
	b.Grow(int(n))
	if _, err := io.CopyN(&b, u.r, int64(n)); err != nil {
		u.readFailed(err)
	}
	u.left -= int64(n)
	return b.String()
}

func (u *unpickler) readFailed(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errCutOff
	}
	panic(fault{err})
}

// uint reads a little-endian unsigned number of size bytes.
func (u *unpickler) uint(size int) uint64 {
	var v uint64
	for i := range size {
		v |= uint64(u.byte()) << (8 * i)
	}
	return v
}

// line reads up to a newline: half of a class's name, hence short.
func (u *unpickler) line() string {
	const most = 1000
	var b []byte
	for len(b) <= most {
		c := u.byte()
		if c == '\n' {
			return string(b)
		}
		b = append(b, c)
	}
	fail("a class's name of more than %d bytes", most)
	return ""
}

// integer decodes a two's complement, little-endian number.
func integer(s string) any {
	if len(s) > 8 {
		return bigInt(s)
	}
	var v uint64
	for i := range len(s) {
		v |= uint64(s[i]) << (8 * i)
	}
	if n := len(s); n > 0 && n < 8 && s[n-1]&0x80 != 0 {
		v |= ^uint64(0) << (8 * n)
	}
	return int64(v)
}

// describe names a value's kind for errors.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64, bigInt:
		return "an integer"
	case float64:
		return "a float"
	case string:
		return "a string"
	case bytesValue:
		return "bytes"
	case *sequence:
		return "a list or tuple"
	case *mapping:
		return "a dict"
	case *class:
		return "class " + v.name
	case *storage:
		return "a storage"
	case *tensor:
		return "a tensor"
	}
	return fmt.Sprintf("a %T", v)
}

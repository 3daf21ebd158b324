package imageset

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// zigzag gives the place in an 8x8 block of the k-th coefficient of the file. A
// run in damaged data can lead up to 16 places past the end: to the last place.
// 128 entries make an index of 7 bits safe without a check.
var zigzag = [128]uint8{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
}

// lookBits is the number of bits that are looked up at once.
const lookBits = 10

// huffman is a table of codes.
type huffman struct {
	defined bool
	count   [17]uint8 // codes of each length
	value   [256]uint8

	built   bool // the rest belongs to count and value
	builtDC bool
	maxCode [18]int32
	offset  [18]int32
	// look is indexed by the next lookBits bits. 0 means that the code is longer.
	// Bits 0-4: bits to consume; bits 8-15: the code's value, which is run<<4 | size.
	// If the size bits after the code are also within the bits looked at, then bit 5
	// is set, they are consumed too, and bits 16-31 hold the coefficient.
	look [1 << lookBits]uint32
}

const lookHasValue = 1 << 5

// readHuffman reads a DHT segment.
func (d *jpegDecoder) readHuffman(s []byte) error {
	for len(s) > 16 {
		var count [17]uint8
		var value [256]uint8
		copy(count[1:], s[1:17])
		n := 0
		for _, c := range count {
			n += int(c)
		}
		index := s[0]
		s = s[17:]
		if n > 256 || n > len(s) {
			return errors.New("a Huffman table of the wrong length")
		}
		copy(value[:], s[:n])
		s = s[n:]
		tables := &d.dc
		if index&0x10 != 0 {
			tables, index = &d.ac, index-0x10
		}
		if index > 3 {
			return fmt.Errorf("a Huffman table of number %d", index)
		}
		tables[index].define(count, value)
	}
	if len(s) != 0 {
		return errors.New("a Huffman table of the wrong length")
	}
	return nil
}

// define sets the codes. Most files of a data set have the same tables, so that
// nothing need be built again.
func (h *huffman) define(count [17]uint8, value [256]uint8) {
	h.defined = true
	if h.count != count || h.value != value {
		h.count, h.value, h.built = count, value, false
	}
}

// build makes the look-up tables (T.81, annex C and F.2.2.3).
func (h *huffman) build(dc bool) error {
	if h.built && h.builtDC == dc {
		return nil
	}
	h.built = false
	clear(h.look[:])
	code, p := int32(0), int32(0)
	for l := 1; l <= 16; l++ {
		n := int32(h.count[l])
		h.offset[l] = p - code
		h.maxCode[l] = -1
		if n > 0 {
			h.maxCode[l] = code + n - 1
			// No code may be all ones.
			if code+n >= 1<<l {
				return errors.New("a damaged Huffman table")
			}
		}
		for range n {
			v := h.value[p]
			if dc && v > 15 {
				return errors.New("a damaged Huffman table")
			}
			if l <= lookBits {
				h.fill(uint32(code), l, v)
			}
			code++
			p++
		}
		code <<= 1
	}
	h.maxCode[17] = 1 << 30
	h.built, h.builtDC = true, dc
	return nil
}

// fill enters a short code for every way in which the bits after it may go on.
func (h *huffman) fill(code uint32, length int, v uint8) {
	size := int(v & 15)
	rest := lookBits - length
	for tail := range uint32(1) << rest {
		e := uint32(v)<<8 | uint32(length)
		if size > 0 && size <= rest {
			raw := int32(tail >> (rest - size))
			e = uint32(extend(raw, uint(size)))<<16 | uint32(v)<<8 | lookHasValue | uint32(length+size)
		}
		h.look[code<<rest|tail] = e
	}
}

// extend makes the signed number of s raw bits (T.81, figure F.12).
func extend(raw int32, s uint) int32 {
	return raw + (raw-1<<(s-1))>>31&(-1<<s+1)
}

// bitReader reads the bits of a scan, first bit highest. At a marker or the
// file's end it goes on with zeros, and overrun tells whether any was used.
type bitReader struct {
	data   []byte
	pos    int
	acc    uint64 // the next bit is the highest; below the n valid bits may be more
	n      int
	fake   int // how many of the n bits, the last ones, are not from the file
	marker uint8
	ended  bool // at the file's end rather than at a marker
}

// refill brings n above 56.
func (b *bitReader) refill() {
	if b.marker == 0 && !b.ended && len(b.data)-b.pos >= 8 {
		x := binary.BigEndian.Uint64(b.data[b.pos:])
		// No byte is 0xff: the highest bit of each byte of ^x is then kept, or the
		// borrow shows, when 1 is taken from every byte.
		y := ^x
		if (y-0x0101010101010101)&^y&0x8080808080808080 == 0 {
			b.acc |= x >> uint(b.n)
			take := (63 - b.n) >> 3
			b.pos += take
			b.n += 8 * take
			return
		}
	}
	b.refillSlow()
}

func (b *bitReader) refillSlow() {
	// What the fast path left below the n valid bits are the same bytes again.
	b.acc &= ^uint64(0) << uint(64-b.n)
	for b.n <= 56 {
		if b.marker != 0 || b.ended {
			b.fake += 64 - b.n
			b.n = 64
			return
		}
		if b.pos == len(b.data) {
			b.ended = true
			continue
		}
		c := b.data[b.pos]
		b.pos++
		if c == 0xff {
			for c == 0xff && b.pos < len(b.data) {
				c = b.data[b.pos]
				b.pos++
			}
			switch c {
			case 0:
				c = 0xff
			case 0xff:
				b.ended = true
				continue
			default:
				b.marker = c
				continue
			}
		}
		b.acc |= uint64(c) << uint(56-b.n)
		b.n += 8
	}
}

// overrun tells whether bits were used that the file does not have.
func (b *bitReader) overrun() bool { return b.n < b.fake }

func (b *bitReader) need(n int) {
	if b.n < n {
		b.refill()
	}
}

// take returns the next s bits, 1 to 16; they must be there.
func (b *bitReader) take(s uint) int32 {
	v := int32(b.acc >> (64 - s))
	b.acc <<= s
	b.n -= int(s)
	return v
}

// symbol reads a code and returns its value.
func (b *bitReader) symbol(h *huffman) uint8 {
	b.need(17)
	e := h.look[b.acc>>(64-lookBits)]
	if e == 0 {
		return b.longSymbol(h)
	}
	v := uint8(e >> 8)
	n := uint(e & 31)
	if e&lookHasValue != 0 {
		n -= uint(v & 15)
	}
	b.acc <<= n
	b.n -= int(n)
	return v
}

// longSymbol reads a code of more than lookBits bits. 17 bits must be there. A
// code that there is not counts as 0, as in libjpeg.
func (b *bitReader) longSymbol(h *huffman) uint8 {
	for l := uint(lookBits + 1); ; l++ {
		code := int32(b.acc >> (64 - l))
		if code <= h.maxCode[l] {
			b.acc <<= l
			b.n -= int(l)
			if l == 17 {
				return 0
			}
			return h.value[uint8(code+h.offset[l])]
		}
	}
}

// The tables of T.81, annex K.3, which some files leave out: codes of each
// length, and values.
var standardTables = [4]struct{ count, value string }{
	{"\x00\x01\x05\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"},
	{"\x00\x03\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00",
		"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"},
	{"\x00\x02\x01\x03\x03\x02\x04\x03\x05\x05\x04\x04\x00\x00\x01\x7d",
		"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71" +
			"\x14\x32\x81\x91\xa1\x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72" +
			"\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37" +
			"\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59" +
			"\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83" +
			"\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3" +
			"\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3" +
			"\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2" +
			"\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa"},
	{"\x00\x02\x01\x02\x04\x04\x03\x04\x07\x05\x04\x04\x00\x01\x02\x77",
		"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22" +
			"\x32\x81\x08\x14\x42\x91\xa1\xb1\xc1\x09\x23\x33\x52\xf0\x15\x62\x72\xd1" +
			"\x0a\x16\x24\x34\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36" +
			"\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58" +
			"\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a" +
			"\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a" +
			"\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba" +
			"\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda" +
			"\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa"},
}

// useStandardTables defines tables 0 and 1 where the file does not.
func (d *jpegDecoder) useStandardTables() {
	for i, t := range []*huffman{&d.dc[0], &d.dc[1], &d.ac[0], &d.ac[1]} {
		if t.defined {
			continue
		}
		var count [17]uint8
		var value [256]uint8
		copy(count[1:], standardTables[i].count)
		copy(value[:], standardTables[i].value)
		t.define(count, value)
	}
}

package imageset

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Ways in which pixels lie in a BMP file.
const (
	bmpRaw  = 0
	bmpRLE8 = 1
	bmpRLE4 = 2
	bmpMask = 3
)

var errBMPCut = errors.New("the file ends too early")

// decodeBMP decodes what Pillow decodes: besides what golang.org/x/image/bmp knows,
// the headers of OS/2, 16 bits, colour masks, and runs.
func decodeBMP(data []byte, maxPixels int, dst *Image) error {
	if len(data) < 26 {
		return errBMPCut
	}
	little := binary.LittleEndian
	at, size := int(little.Uint32(data[10:])), int(little.Uint32(data[14:]))
	if size > len(data)-14 {
		return errBMPCut
	}
	var width, height, bits, compression, colors int
	entry, topDown := 4, false
	switch head := data[14:][:size]; size {
	case 12:
		width, height, bits = int(little.Uint16(head[4:])), int(little.Uint16(head[6:])), int(little.Uint16(head[10:]))
		entry = 3
	case 40, 52, 56, 64, 108, 124:
		width, height, bits = int(int32(little.Uint32(head[4:]))), int(int32(little.Uint32(head[8:]))), int(little.Uint16(head[14:]))
		compression, colors = int(little.Uint32(head[16:])), int(little.Uint32(head[32:]))
		if height < 0 {
			height, topDown = -height, true
		}
	default:
		return fmt.Errorf("a header of %d bytes is not supported", size)
	}
	if err := checkSize(width, height, maxPixels); err != nil {
		return err
	}
	palette := 14 + size
	masks := [3]uint32{0xff0000, 0xff00, 0xff}
	switch compression {
	case bmpRaw:
		if bits == 16 {
			masks = [3]uint32{0x7c00, 0x3e0, 0x1f}
		}
	case bmpMask:
		if bits < 16 {
			return fmt.Errorf("colour masks for pixels of %d bits", bits)
		}
		if len(data) < 66 {
			return errBMPCut
		}
		if size == 40 {
			palette += 12
		}
		for c := range masks {
			masks[c] = little.Uint32(data[54+4*c:])
		}
		if masks == [3]uint32{} && bits == 32 {
			masks = [3]uint32{0xff0000, 0xff00, 0xff}
		}
	case bmpRLE8, bmpRLE4:
		if want := 8 / compression; bits != want {
			return fmt.Errorf("runs of pixels of %d bits", bits)
		}
	default:
		return fmt.Errorf("compression %d is not supported", compression)
	}
	row, err := bmpPixels(bits, masks)
	if err != nil {
		return err
	}
	if bits <= 8 {
		if colors == 0 {
			colors = 1 << bits
		}
		if colors < 0 || colors > 1<<16 {
			return fmt.Errorf("a palette of %d colours", colors)
		}
		table, n := bmpPalette(data[min(palette, len(data)):], entry, colors)
		row = bmpIndexed(bits, table)
		if palette += n; at == 14+size {
			at = palette
		}
	}
	if at == 0 {
		at = palette
	}
	if at < 0 || at > len(data) {
		return errBMPCut
	}
	pixels, stride := data[at:], (width*bits+31)/32*4
	if compression == bmpRLE8 || compression == bmpRLE4 {
		if height/64 > len(pixels) { // four bytes may skip 255 rows
			return fmt.Errorf("%w: the header says %dx%d, but the file has only %d bytes", ErrTooLarge, width, height, len(data))
		}
		pixels, err = bmpRuns(pixels, at%2, width, height, bits == 4)
		if err != nil {
			return err
		}
		table, _ := bmpPalette(data[min(14+size, len(data)):], entry, colors)
		row, stride = bmpIndexed(8, table), width
	}
	if stride > len(pixels)/height && stride*(height-1)+(width*bits+7)/8 > len(pixels) {
		return fmt.Errorf("%w: the header says %dx%d, but the file has only %d bytes", ErrTooLarge, width, height, len(data))
	}
	dst.resize(width, height)
	for y := range height {
		to := y
		if !topDown {
			to = height - 1 - y
		}
		row(dst.Pix[3*width*to:][:3*width], pixels[stride*y:])
	}
	return nil
}

// bmpPalette returns the table of colours and the length of it in the file.
func bmpPalette(data []byte, entry, colors int) (table [256][3]uint8, n int) {
	n = min(entry*colors, len(data))
	grey := true // index i is level i: then so are those without an entry
	for i := range min(colors, 256, n/entry) {
		e := data[entry*i:]
		table[i] = [3]uint8{e[2], e[1], e[0]}
		grey = grey && e[0] == uint8(i) && e[1] == uint8(i) && e[2] == uint8(i)
	}
	for i := min(colors, 256); grey && i < 256; i++ {
		table[i] = [3]uint8{uint8(i), uint8(i), uint8(i)}
	}
	return table, n
}

// bmpPixels returns what turns a row of 16, 24 or 32 bits into RGB. Fewer bits
// than 8 are scaled to the whole range.
func bmpPixels(bits int, masks [3]uint32) (func(out []uint8, in []byte), error) {
	size := bits / 8
	var shift [3]int
	var most [3]uint32
	for c, m := range masks {
		for m&1 == 0 && shift[c] < 31 {
			m >>= 1
			shift[c]++
		}
		most[c] = m
		if bits > 8 && (m == 0 || m > 255 || m&(m+1) != 0 || bits == 24 && masks != [3]uint32{0xff0000, 0xff00, 0xff}) {
			return nil, fmt.Errorf("colour masks %x are not supported", masks)
		}
	}
	switch bits {
	case 1, 4, 8:
		return nil, nil // see bmpIndexed
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("pixels of %d bits are not supported", bits)
	}
	return func(out []uint8, in []byte) {
		for x := 0; x < len(out); x += 3 {
			var v uint32
			for i, b := range in[x/3*size:][:size] {
				v |= uint32(b) << (8 * i)
			}
			for c := range 3 {
				out[x+c] = uint8(v >> shift[c] & most[c] * 255 / most[c])
			}
		}
	}, nil
}

// bmpIndexed returns what turns a row of indices into RGB.
func bmpIndexed(bits int, table [256][3]uint8) func(out []uint8, in []byte) {
	return func(out []uint8, in []byte) {
		for x := range len(out) / 3 {
			v := in[x*bits/8] >> (8 - bits - x*bits%8) & uint8(1<<bits-1)
			copy(out[3*x:3*x+3], table[v][:])
		}
	}
}

// bmpRuns decodes runs to one byte a pixel, rows from the bottom. Like Pillow, it
// takes a row's end that comes after a whole row for that row's, cuts runs
// off at a row's end, and wants all pixels. The first byte's place in the file is odd
// or even.
func bmpRuns(in []byte, odd, width, height int, nibbles bool) ([]byte, error) {
	total := width * height
	out := make([]byte, 0, total)
	take := func(n int) []byte {
		b := in[:min(n, len(in))]
		in = in[len(b):]
		return b
	}
	x, end := 0, len(in)+odd
	for len(out) < total {
		code := take(2)
		if len(code) < 2 {
			return nil, errBMPCut
		}
		n, v := int(code[0]), code[1]
		switch {
		case n > 0:
			n = min(n, max(width-x, 0))
			for i := range min(n, total-len(out)) {
				switch {
				case !nibbles:
					out = append(out, v)
				case i%2 == 0:
					out = append(out, v>>4)
				default:
					out = append(out, v&15)
				}
			}
			x += n
		case v == 0:
			for len(out)%width != 0 {
				out = append(out, 0)
			}
			x = 0
		case v == 1:
			return nil, errBMPCut
		case v == 2:
			d := take(2)
			if len(d) < 2 {
				return nil, errBMPCut
			}
			out = append(out, make([]byte, min(total-len(out), int(d[0])+int(d[1])*width))...)
			x = len(out) % width
		default:
			n := min(int(v), total-len(out))
			bytes := n
			if nibbles {
				bytes = (n + 1) / 2
			}
			b := take(bytes)
			if len(b) < bytes {
				return nil, errBMPCut
			}
			for i := range n {
				switch {
				case !nibbles:
					out = append(out, b[i])
				case i%2 == 0:
					out = append(out, b[i/2]>>4)
				default:
					out = append(out, b[i/2]&15)
				}
			}
			x += int(v)
			if (end-len(in))%2 != 0 {
				take(1)
			}
		}
	}
	return out, nil
}

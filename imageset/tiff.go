package imageset

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"

	"golang.org/x/image/ccitt"
	"golang.org/x/image/tiff/lzw"
)

// Tags of TIFF 6.0.
const (
	tiffWidth         = 256
	tiffHeight        = 257
	tiffBits          = 258
	tiffCompression   = 259
	tiffPhotometric   = 262
	tiffFillOrder     = 266
	tiffStripOffsets  = 273
	tiffOrientation   = 274
	tiffSamples       = 277
	tiffRowsPerStrip  = 278
	tiffStripCounts   = 279
	tiffPlanar        = 284
	tiffFaxOptions    = 292
	tiffPredictor     = 317
	tiffColorMap      = 320
	tiffTileWidth     = 322
	tiffTileHeight    = 323
	tiffTileOffsets   = 324
	tiffTileCounts    = 325
	tiffExtraSamples  = 338
	tiffSampleFormat  = 339
	tiffJPEGTables    = 347
	tiffUndefinedType = 7
)

// Kinds of colour, as tiffPhotometric has them.
const (
	whiteIsZero = 0
	blackIsZero = 1
	tiffRGB     = 2
	tiffPalette = 3
	tiffCMYK    = 5
	tiffYCbCr   = 6
)

// Compressions.
const (
	tiffRaw      = 1
	tiffGroup3   = 3
	tiffGroup4   = 4
	tiffLZW      = 5
	tiffJPEG     = 7
	tiffDeflate  = 8
	tiffDeflate0 = 32946
	tiffPackBits = 32773
)

// tiffRatio bounds how many bytes one byte makes. Fax codes are bounded by rows.
var tiffRatio = map[uint32]int{tiffRaw: 1, tiffPackBits: 64, tiffDeflate: 1032, tiffDeflate0: 1032, tiffLZW: 4096}

// tiffDecoder reads the first picture of a file. Pixels are read here, for Pillow
// takes CMYK, grey with alpha, whole numbers and floats of 32 bits, JPEG within
// TIFF, and turns a picture as its orientation says, none of which
// golang.org/x/image/tiff does. Decompression is libraries' work.
type tiffDecoder struct {
	data  []byte
	order binary.ByteOrder
	tags  map[uint16][]uint32

	width, height  int
	bits, samples  int
	photometric    uint32
	compression    uint32
	format         uint32 // of samples: 1 unsigned, 2 signed, 3 float
	premultiplied  bool
	planes         int // 1, or a plane for each sample
	chunkW, chunkH int // of a strip or tile
	across, down   int
	offsets        []uint32
	counts         []uint32
	palette        [256][3]uint8
	jpeg           jpegDecoder
}

func decodeTIFF(data []byte, maxPixels int, dst *Image) error {
	t := &tiffDecoder{data: data, order: binary.LittleEndian, tags: map[uint16][]uint32{}}
	if data[0] == 'M' {
		t.order = binary.BigEndian
	}
	if err := t.readTags(); err != nil {
		return err
	}
	if err := t.setUp(maxPixels); err != nil {
		return err
	}
	dst.resize(t.width, t.height)
	for i := range t.across * t.down {
		if err := t.chunk(i, dst); err != nil {
			return err
		}
	}
	turn(dst, t.one(tiffOrientation, 1))
	return nil
}

var errTIFFCut = errors.New("the file ends too early")

// at returns n bytes of the file.
func (t *tiffDecoder) at(offset, n int64) ([]byte, error) {
	if offset < 0 || n < 0 || offset > int64(len(t.data))-n {
		return nil, errTIFFCut
	}
	return t.data[offset:][:n], nil
}

// readTags reads the first directory. Tags of types that no known tag has are left out.
func (t *tiffDecoder) readTags() error {
	head, err := t.at(0, 8)
	if err != nil {
		return err
	}
	at := int64(t.order.Uint32(head[4:]))
	count, err := t.at(at, 2)
	if err != nil {
		return err
	}
	entries, err := t.at(at+2, 12*int64(t.order.Uint16(count)))
	if err != nil {
		return err
	}
	for ; len(entries) > 0; entries = entries[12:] {
		size := map[uint16]int64{1: 1, 3: 2, 4: 4, tiffUndefinedType: 1}[t.order.Uint16(entries[2:])]
		if size == 0 {
			continue
		}
		n := int64(t.order.Uint32(entries[4:]))
		value := entries[8:12]
		if size*n > 4 {
			if value, err = t.at(int64(t.order.Uint32(value)), size*n); err != nil {
				return err
			}
		}
		numbers := make([]uint32, n)
		for i := range numbers {
			switch size {
			case 1:
				numbers[i] = uint32(value[i])
			case 2:
				numbers[i] = uint32(t.order.Uint16(value[2*i:]))
			default:
				numbers[i] = t.order.Uint32(value[4*i:])
			}
		}
		t.tags[t.order.Uint16(entries)] = numbers
	}
	return nil
}

// one returns a tag's first number.
func (t *tiffDecoder) one(tag uint16, otherwise uint32) uint32 {
	if v := t.tags[tag]; len(v) > 0 {
		return v[0]
	}
	return otherwise
}

// same returns the number that a tag gives for every sample.
func (t *tiffDecoder) same(tag uint16) (uint32, error) {
	v := t.tags[tag]
	for _, n := range v {
		if n != v[0] {
			return 0, fmt.Errorf("samples that differ are not supported: tag %d is %v", tag, v)
		}
	}
	return t.one(tag, 1), nil
}

func (t *tiffDecoder) setUp(maxPixels int) error {
	width, height := t.one(tiffWidth, 0), t.one(tiffHeight, 0)
	if err := checkSize(int(width), int(height), maxPixels); err != nil {
		return err
	}
	t.width, t.height = int(width), int(height)
	bits, err := t.same(tiffBits)
	if err != nil {
		return err
	}
	if t.format, err = t.same(tiffSampleFormat); err != nil {
		return err
	}
	t.photometric, t.compression = t.one(tiffPhotometric, 0), t.one(tiffCompression, 1)
	t.bits, t.samples = int(min(bits, 64)), int(min(t.one(tiffSamples, 1), 64))
	if err := t.checkKind(); err != nil {
		return err
	}
	t.planes = 1
	if t.one(tiffPlanar, 1) == 2 {
		t.planes = t.samples
	}
	t.chunkW, t.chunkH = t.width, int(min(t.one(tiffRowsPerStrip, height), height))
	t.offsets, t.counts = t.tags[tiffStripOffsets], t.tags[tiffStripCounts]
	if _, tiled := t.tags[tiffTileOffsets]; tiled {
		if err := checkSize(int(t.one(tiffTileWidth, 0)), int(t.one(tiffTileHeight, 0)), maxPixels); err != nil {
			return fmt.Errorf("tiles: %w", err)
		}
		t.chunkW, t.chunkH = int(t.one(tiffTileWidth, 0)), int(t.one(tiffTileHeight, 0))
		t.offsets, t.counts = t.tags[tiffTileOffsets], t.tags[tiffTileCounts]
	}
	if t.chunkH < 1 {
		return errors.New("strips of no rows")
	}
	t.across, t.down = (t.width-1)/t.chunkW+1, (t.height-1)/t.chunkH+1
	if n := t.across * t.down * t.planes; len(t.offsets) < n || len(t.counts) < n && (t.compression != tiffRaw || len(t.counts) > 0) {
		return fmt.Errorf("%d offsets and %d lengths of %d pieces", len(t.offsets), len(t.counts), n)
	}
	return nil
}

// checkKind refuses what Pillow refuses, and little more.
func (t *tiffDecoder) checkKind() error {
	base := map[uint32]int{whiteIsZero: 1, blackIsZero: 1, tiffRGB: 3, tiffPalette: 1, tiffCMYK: 4, tiffYCbCr: 3}[t.photometric]
	if base == 0 {
		return fmt.Errorf("colours of kind %d (tag %d) are not supported", t.photometric, tiffPhotometric)
	}
	extra := t.samples - base
	if extra < 0 || t.samples > 6 {
		return fmt.Errorf("%d samples for colours of kind %d", t.samples, t.photometric)
	}
	fail := func() error {
		return fmt.Errorf("colours of kind %d in %d samples of %d bits in format %d are not supported", t.photometric, t.samples, t.bits, t.format)
	}
	grey := base == 1 && t.photometric != tiffPalette
	switch t.bits {
	case 1, 2, 4:
		if base > 1 || extra > 0 || t.format != 1 {
			return fail()
		}
	case 8:
		if t.format != 1 && (t.format != 2 || t.photometric != blackIsZero || extra > 0) {
			return fail()
		}
	case 16:
		if t.photometric == tiffPalette || t.photometric == tiffYCbCr || grey && extra > 0 || t.format != 1 && (t.format != 2 || !grey) {
			return fail()
		}
	case 32:
		if !grey || extra > 0 {
			return fail()
		}
	default:
		return fail()
	}
	if t.photometric == tiffYCbCr && t.compression != tiffJPEG {
		return errors.New("YCbCr is supported within JPEG only")
	}
	switch t.compression {
	case tiffRaw, tiffLZW, tiffDeflate, tiffDeflate0, tiffPackBits:
	case tiffGroup3, tiffGroup4:
		if t.bits*t.samples != 1 || t.one(tiffFaxOptions, 0)&1 != 0 {
			return errors.New("fax codes of this kind are not supported")
		}
	case tiffJPEG:
		if t.bits != 8 || t.photometric == tiffCMYK || t.photometric == tiffPalette || extra > 0 || t.one(tiffPlanar, 1) == 2 {
			return errors.New("JPEG in TIFF is supported for grey, RGB and YCbCr of 8 bits only")
		}
	default:
		return fmt.Errorf("compression %d is not supported", t.compression)
	}
	switch t.one(tiffPredictor, 1) {
	case 1:
	case 2:
		if t.bits < 8 {
			return fail()
		}
	default:
		return fmt.Errorf("predictor %d is not supported", t.one(tiffPredictor, 1))
	}
	if t.premultiplied = extra > 0 && t.one(tiffExtraSamples, 0) == 1; t.premultiplied && t.photometric != tiffRGB {
		return errors.New("premultiplied alpha is supported for RGB only")
	}
	if t.photometric == tiffPalette {
		m := t.tags[tiffColorMap]
		n := len(m) / 3
		for i := range min(n, 256) {
			t.palette[i] = [3]uint8{uint8(m[i] >> 8), uint8(m[n+i] >> 8), uint8(m[2*n+i] >> 8)}
		}
	}
	return nil
}

// chunk decodes a strip or tile into its place.
func (t *tiffDecoder) chunk(i int, dst *Image) error {
	x, y := i%t.across*t.chunkW, i/t.across*t.chunkH
	w, h := min(t.chunkW, t.width-x), min(t.chunkH, t.height-y)
	rows := t.chunkH // of which the file has data: tiles are whole, the last strip is not
	if t.tags[tiffTileOffsets] == nil {
		rows = h
	}
	to := func(r int) []uint8 { return dst.Pix[3*((y+r)*t.width+x):][:3*w] }
	if t.compression == tiffJPEG {
		return t.jpegChunk(i, w, h, to)
	}
	if t.planes == 1 {
		stride := (t.chunkW*t.samples*t.bits + 7) / 8
		raw, err := t.plain(i, stride, rows, t.samples)
		if err != nil {
			return err
		}
		for r := range h {
			t.row(to(r), raw[r*stride:][:stride])
		}
		return nil
	}
	size := t.bits / 8
	stride := t.chunkW * size
	planes := make([][]byte, t.planes)
	for p := range planes {
		var err error
		if planes[p], err = t.plain(p*t.across*t.down+i, stride, rows, 1); err != nil {
			return err
		}
	}
	row := make([]byte, stride*t.planes)
	for r := range h {
		for p, plane := range planes {
			for c, k := r*stride, p*size; k < len(row); c, k = c+size, k+size*t.planes {
				copy(row[k:k+size], plane[c:])
			}
		}
		t.row(to(r), row)
	}
	return nil
}

// stored returns a piece of the file as it lies there.
func (t *tiffDecoder) stored(i int, n int64) ([]byte, error) {
	if t.compression != tiffRaw {
		n = int64(t.counts[i])
	}
	b, err := t.at(int64(t.offsets[i]), n)
	if err == nil && t.one(tiffFillOrder, 1) == 2 {
		b = bytes.Clone(b)
		for k, v := range b {
			b[k] = bits.Reverse8(v)
		}
	}
	return b, err
}

// plain returns a piece decompressed, rows of stride bytes.
func (t *tiffDecoder) plain(i, stride, rows, samples int) ([]byte, error) {
	n := stride * rows
	in, err := t.stored(i, int64(n))
	if err != nil {
		return nil, err
	}
	if ratio, ok := tiffRatio[t.compression]; ok && n/ratio > len(in) || !ok && rows/8 > len(in) {
		return nil, fmt.Errorf("%w: %d bytes for a piece of %d", ErrTooLarge, len(in), n)
	}
	var r io.Reader
	switch t.compression {
	case tiffRaw:
		return in, nil
	case tiffLZW:
		l := lzw.NewReader(bytes.NewReader(in), lzw.MSB, 8)
		defer l.Close()
		r = l
	case tiffDeflate, tiffDeflate0:
		z, err := zlib.NewReader(bytes.NewReader(in))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	case tiffPackBits:
		return unpackBits(in, n)
	case tiffGroup3, tiffGroup4:
		kind := ccitt.Group4
		if t.compression == tiffGroup3 {
			kind = ccitt.Group3
		}
		r = ccitt.NewReader(bytes.NewReader(in), ccitt.MSB, kind, t.chunkW, rows, &ccitt.Options{Invert: true})
	}
	out := make([]byte, n)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, cmp.Or(map[error]error{io.EOF: errTIFFCut, io.ErrUnexpectedEOF: errTIFFCut}[err], err)
	}
	if t.one(tiffPredictor, 1) == 2 {
		for r := range rows {
			t.integrate(out[r*stride:][:stride], samples)
		}
	}
	return out, nil
}

// unpackBits decodes run lengths until n bytes are there.
func unpackBits(in []byte, n int) ([]byte, error) {
	out := make([]byte, 0, n)
	for len(out) < n {
		if len(in) < 2 {
			return nil, errTIFFCut
		}
		code := int(int8(in[0]))
		in = in[1:]
		switch {
		case code >= 0:
			k := min(code+1, n-len(out))
			if k > len(in) {
				return nil, errTIFFCut
			}
			out = append(out, in[:k]...)
			in = in[min(code+1, len(in)):]
		case code > -128:
			out = append(out, bytes.Repeat(in[:1], min(1-code, n-len(out)))...)
			in = in[1:]
		}
	}
	return out, nil
}

// integrate undoes horizontal differencing within a row.
func (t *tiffDecoder) integrate(row []byte, samples int) {
	switch t.bits {
	case 8:
		for i := samples; i < len(row); i++ {
			row[i] += row[i-samples]
		}
	case 16:
		for i := 2 * samples; i+2 <= len(row); i += 2 {
			t.order.PutUint16(row[i:], t.order.Uint16(row[i:])+t.order.Uint16(row[i-2*samples:]))
		}
	case 32:
		for i := 4 * samples; i+4 <= len(row); i += 4 {
			t.order.PutUint32(row[i:], t.order.Uint32(row[i:])+t.order.Uint32(row[i-4*samples:]))
		}
	}
}

// row turns samples into RGB, as Pillow's convert does.
func (t *tiffDecoder) row(out []uint8, raw []byte) {
	step := t.samples * t.bits / 8 // bytes of a pixel, if whole
	// The upper byte of a sample of 8 or 16 bits.
	high := 0
	if t.bits == 16 && t.order == binary.ByteOrder(binary.LittleEndian) {
		high = 1
	}
	sample := func(x, c int) uint8 { return raw[x*step+c*t.bits/8+high] }
	for x := range len(out) / 3 {
		o := out[3*x : 3*x+3]
		switch t.photometric {
		case tiffRGB:
			o[0], o[1], o[2] = sample(x, 0), sample(x, 1), sample(x, 2)
			if t.premultiplied {
				divideBy(o, sample(x, 3))
			}
		case tiffCMYK:
			o[0], o[1], o[2] = cmykToRGB(sample(x, 0), sample(x, 1), sample(x, 2), sample(x, 3))
		case tiffPalette:
			copy(o, t.palette[t.small(raw, x, step)][:])
		default:
			v := t.grey(raw, x, step)
			o[0], o[1], o[2] = v, v, v
		}
	}
}

// small returns sample x of 8 bits or less.
func (t *tiffDecoder) small(raw []byte, x, step int) uint8 {
	if t.bits == 8 {
		return raw[x*step]
	}
	return raw[x*t.bits/8] >> (8 - t.bits - x*t.bits%8) & (1<<t.bits - 1)
}

// grey returns a level. Those of 16 and 32 bits are cut at 255 and not scaled.
func (t *tiffDecoder) grey(raw []byte, x, step int) uint8 {
	switch {
	case t.bits <= 8:
		v := t.small(raw, x, step) * (255 / (1<<t.bits - 1))
		if t.photometric == whiteIsZero {
			v = 255 - v
		}
		return v
	case t.bits == 16 && t.format == 2:
		return clampTo8(float64(int16(t.order.Uint16(raw[x*step:]))))
	case t.bits == 16:
		return clip(t.order.Uint16(raw[x*step:]))
	case t.format == 3:
		return clampTo8(float64(math.Float32frombits(t.order.Uint32(raw[x*step:]))))
	default:
		return clampTo8(float64(int32(t.order.Uint32(raw[x*step:]))))
	}
}

func clampTo8(v float64) uint8 {
	if !(v > 0) {
		return 0
	}
	return uint8(min(v, 255))
}

// divideBy takes the alpha out of a premultiplied colour.
func divideBy(o []uint8, alpha uint8) {
	for c, v := range o {
		switch alpha {
		case 0:
			o[c] = 0
		case 255:
		default:
			o[c] = uint8(min(255*int(v)/int(alpha), 255))
		}
	}
}

// jpegChunk decodes a strip or tile that is a JPEG file without its tables.
func (t *tiffDecoder) jpegChunk(i, w, h int, to func(row int) []uint8) error {
	data, err := t.stored(i, 0)
	if err != nil {
		return err
	}
	if len(data) < 2 {
		return errTIFFCut
	}
	file := []byte{0xff, markerSOI}
	if t.photometric == tiffRGB {
		// An Adobe marker says that there is nothing to convert.
		file = append(file, 0xff, markerAPP14, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0)
	}
	if tables := t.tags[tiffJPEGTables]; len(tables) >= 4 {
		for _, b := range tables[2 : len(tables)-2] {
			file = append(file, uint8(b))
		}
	}
	file = append(file, data[2:]...)
	var m Image
	if err := t.jpeg.decode(file, max(t.chunkW*t.chunkH, 1), &m); err != nil {
		return fmt.Errorf("JPEG: %w", err)
	}
	if m.Width < w || m.Height < h {
		return fmt.Errorf("JPEG: %dx%d pixels for %dx%d", m.Width, m.Height, w, h)
	}
	for r := range h {
		copy(to(r), m.Pix[3*r*m.Width:][:3*w])
	}
	return nil
}

// turn brings a picture upright from what TIFF calls an orientation, as Pillow
// does for TIFF and for nothing else.
func turn(m *Image, orientation uint32) {
	if orientation < 2 || orientation > 8 {
		return
	}
	w, h := m.Width, m.Height
	swap := orientation >= 5
	mirrorX := orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8
	mirrorY := orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7
	if swap {
		w, h = h, w
	}
	pix := make([]uint8, len(m.Pix))
	for y := range h {
		for x := range w {
			// Where the pixel comes from.
			fx, fy := x, y
			if swap {
				fx, fy = y, x
			}
			if mirrorX {
				fx = m.Width - 1 - fx
			}
			if mirrorY {
				fy = m.Height - 1 - fy
			}
			copy(pix[3*(y*w+x):][:3], m.Pix[3*(fy*m.Width+fx):])
		}
	}
	m.Width, m.Height, m.Pix = w, h, pix
}

package imageset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The JPEG decoder of this package answers what libjpeg-turbo answers with its
// defaults, to the bit: the "slow" integer inverse transform, triangle ("fancy")
// upsampling of chroma, integer colour conversion, smoothing of progressive files
// that lack scans, and the same recovery from damaged data. What Pillow refuses
// it refuses too: above all files that are cut off.
//
// jpeg.go reads markers; jpeg_huffman.go bits and codes; jpeg_scan.go turns scans
// into coefficients; jpeg_idct.go coefficients into samples; jpeg_color.go samples
// into RGB; jpeg_smooth.go is for progressive files that end early.

// Marker codes (ITU-T T.81, table B.1).
const (
	markerTEM   = 0x01
	markerSOF0  = 0xc0 // baseline
	markerSOF1  = 0xc1 // extended sequential
	markerSOF2  = 0xc2 // progressive
	markerDHT   = 0xc4
	markerDAC   = 0xcc // arithmetic coding; means nothing to Huffman coding
	markerRST0  = 0xd0
	markerRST7  = 0xd7
	markerSOI   = 0xd8
	markerEOI   = 0xd9
	markerSOS   = 0xda
	markerDQT   = 0xdb
	markerDNL   = 0xdc
	markerDRI   = 0xdd
	markerAPP0  = 0xe0
	markerAPP14 = 0xee
	markerAPP15 = 0xef
	markerCOM   = 0xfe
)

// errCutOff is what is found at the end of a file that lacks its end.
var errCutOff = errors.New("the file is cut off")

// component is one colour channel.
type component struct {
	id         uint8
	h, v       int // sampling factors
	quantIndex uint8
	// quant is the table as it stood when the component was first scanned, in
	// natural order. The products wrap at 16 bits, as libjpeg-turbo's vector code
	// computes them, hence the signed type.
	quant    [64]int16
	quant16  [64]uint16 // the same before wrapping
	hasQuant bool

	width, height   int // in samples, without padding
	blocksX         int // in blocks that hold samples
	blocksY         int
	paddedX         int // in blocks, filled up to whole MCUs
	paddedY         int
	plane           []uint8 // decoded samples, stride blocksX*8
	stride          int
	coef            []int16 // coefficients of all blocks, if there are several scans
	dcTable         uint8
	acTable         uint8
	pred            int32   // DC prediction
	bits, priorBits [64]int // precision of each coefficient known so far; -1: nothing
}

// jpegDecoder decodes one file at a time and keeps its memory for the next.
type jpegDecoder struct {
	data []byte
	pos  int

	marker       uint8 // found but not yet dealt with; 0: none
	sawSOF       bool
	progressive  bool
	width        int
	height       int
	comps        []component
	maxH, maxV   int
	jfif, adobe  bool
	transform    uint8
	restart      int
	nextRestart  uint8
	scans        int
	visits       int  // blocks visited by all scans
	blocks       int  // blocks of the picture
	multi        bool // several scans: coefficients are kept
	lastGoodRow  int  // last row of MCUs reached before data ran out
	quant        [4][64]uint16
	hasQuant     [4]bool
	dc, ac       [4]huffman
	scan         []*component
	ss, se       int
	ah, al       uint
	bits         bitReader
	eobRun       int
	insufficient bool // the segment's data have ended; the rest stays as it is
	color        colorizer
	block        [64]int16
}

// decode decodes the first picture of data into dst.
func (d *jpegDecoder) decode(data []byte, maxPixels int, dst *Image) error {
	d.reset(data)
	defer func() { d.data, d.bits.data = nil, nil }()
	if len(data) < 2 || data[0] != 0xff || data[1] != markerSOI {
		return errors.New("no start-of-image marker")
	}
	d.pos = 2
	sos, err := d.readMarkers(maxPixels)
	if err != nil {
		return err
	}
	if !sos {
		if d.sawSOF {
			return errors.New("a frame header and no image data")
		}
		return errors.New("tables only, no picture")
	}
	if err := d.start(); err != nil {
		return err
	}
	for {
		if err := d.startScan(); err != nil {
			return err
		}
		if err := d.decodeScan(); err != nil {
			return err
		}
		sos, err := d.readMarkers(maxPixels)
		if !d.multi {
			// All samples are there. Pillow does not mind a missing end, but does
			// mind what is wrong.
			if err != nil && !errors.Is(err, errCutOff) {
				return err
			}
			if err == nil && sos {
				return errors.New("a second scan after a scan of all components")
			}
			break
		}
		if err != nil {
			return err
		}
		if !sos {
			break
		}
	}
	if d.multi {
		d.output()
	}
	dst.resize(d.width, d.height)
	d.color.convert(d, dst)
	return nil
}

func (d *jpegDecoder) reset(data []byte) {
	d.data, d.pos, d.marker = data, 0, 0
	d.sawSOF, d.jfif, d.adobe, d.transform = false, false, false, 0
	d.restart, d.scans, d.visits = 0, 0, 0
	d.comps = d.comps[:0]
	d.hasQuant = [4]bool{}
	for i := range d.dc {
		d.dc[i].defined, d.ac[i].defined = false, false
	}
}

// nextMarker looks for the next marker, passing over anything else.
func (d *jpegDecoder) nextMarker() error {
	for {
		i := bytes.IndexByte(d.data[d.pos:], 0xff)
		if i < 0 {
			d.pos = len(d.data)
			return errCutOff
		}
		d.pos += i
		for d.pos < len(d.data) && d.data[d.pos] == 0xff {
			d.pos++
		}
		if d.pos == len(d.data) {
			return errCutOff
		}
		c := d.data[d.pos]
		d.pos++
		if c != 0 {
			d.marker = c
			return nil
		}
	}
}

// segment returns the parameters of a marker.
func (d *jpegDecoder) segment() ([]byte, error) {
	if len(d.data)-d.pos < 2 {
		return nil, errCutOff
	}
	n := int(binary.BigEndian.Uint16(d.data[d.pos:]))
	if n < 2 {
		// Harmless where nothing is read.
		if d.marker < markerAPP0 {
			return nil, fmt.Errorf("marker %#x has the length %d", d.marker, n)
		}
		d.pos += 2
		return nil, nil
	}
	if len(d.data)-d.pos < n {
		if d.marker < markerAPP0 {
			// Even after the picture, where damaged data can look like a marker.
			return nil, fmt.Errorf("marker %#x and its parameters do not fit the file", d.marker)
		}
		return nil, errCutOff
	}
	s := d.data[d.pos+2 : d.pos+n]
	d.pos += n
	return s, nil
}

// readMarkers reads to the beginning of a scan, or to the end of the picture.
func (d *jpegDecoder) readMarkers(maxPixels int) (sos bool, err error) {
	for {
		if d.marker == 0 {
			if err := d.nextMarker(); err != nil {
				return false, err
			}
		}
		m := d.marker
		var s []byte
		switch {
		case m == markerSOI:
			return false, errors.New("a second start-of-image marker")
		case m == markerEOI:
			d.marker = 0
			return false, nil
		case m >= markerRST0 && m <= markerRST7 || m == markerTEM:
			d.marker = 0
			continue
		case m < markerSOF0 || m > markerCOM || m > markerAPP15 && m < markerCOM ||
			m == 0xc8 || m == 0xde || m == 0xdf:
			return false, fmt.Errorf("unsupported marker %#x", m)
		}
		if s, err = d.segment(); err != nil {
			return false, err
		}
		switch {
		case m == markerSOF0 || m == markerSOF1 || m == markerSOF2:
			err = d.readFrame(s, m == markerSOF2, maxPixels)
		case m == markerDHT:
			err = d.readHuffman(s)
		case m == markerDQT:
			err = d.readQuant(s)
		case m == markerDRI:
			if len(s) != 2 {
				return false, errors.New("a restart interval of the wrong length")
			}
			d.restart = int(binary.BigEndian.Uint16(s))
		case m == markerSOS:
			if err := d.readScan(s); err != nil {
				return false, err
			}
			d.marker = 0
			return true, nil
		case m == markerAPP0:
			d.jfif = d.jfif || len(s) >= 14 && bytes.HasPrefix(s, []byte("JFIF\x00"))
		case m == markerAPP14:
			if len(s) >= 12 && bytes.HasPrefix(s, []byte("Adobe")) {
				d.adobe, d.transform = true, s[11]
			}
		case m == markerDNL || m == markerDAC || m > markerAPP0:
		case m == 0xc3 || m == 0xc7 || m == 0xcb || m == 0xcf:
			err = errors.New("lossless JPEG is not supported")
		case m >= 0xc9 && m <= 0xcf:
			err = errors.New("arithmetic coding is not supported")
		default:
			err = errors.New("hierarchical JPEG is not supported")
		}
		if err != nil {
			return false, err
		}
		d.marker = 0
	}
}

func (d *jpegDecoder) readQuant(s []byte) error {
	for len(s) > 0 {
		wide, n := s[0]>>4 != 0, s[0]&15
		s = s[1:]
		if n > 3 {
			return fmt.Errorf("a quantisation table of number %d", n)
		}
		size := 64
		if wide {
			size = 128
		}
		if len(s) < size {
			return errors.New("a quantisation table of the wrong length")
		}
		for k := range 64 {
			if wide {
				d.quant[n][zigzag[k]] = binary.BigEndian.Uint16(s[2*k:])
			} else {
				d.quant[n][zigzag[k]] = uint16(s[k])
			}
		}
		d.hasQuant[n] = true
		s = s[size:]
	}
	return nil
}

func (d *jpegDecoder) readFrame(s []byte, progressive bool, maxPixels int) error {
	if d.sawSOF {
		return errors.New("a second frame header")
	}
	if len(s) < 6 {
		return errors.New("a frame header of the wrong length")
	}
	precision, n := s[0], int(s[5])
	d.height, d.width = int(binary.BigEndian.Uint16(s[1:])), int(binary.BigEndian.Uint16(s[3:]))
	if len(s) != 6+3*n {
		return errors.New("a frame header of the wrong length")
	}
	if precision != 8 {
		return fmt.Errorf("%d bits a sample; only 8 are supported", precision)
	}
	if n != 1 && n != 3 && n != 4 {
		return fmt.Errorf("%d components; want 1, 3 or 4", n)
	}
	if err := checkSize(d.width, d.height, maxPixels); err != nil {
		return err
	}
	if d.width > 65500 || d.height > 65500 {
		return fmt.Errorf("%w: %dx%d, above 65500", ErrTooLarge, d.width, d.height)
	}
	d.sawSOF, d.progressive = true, progressive
	if cap(d.comps) < n {
		d.comps = append(d.comps[:cap(d.comps)], make([]component, n-cap(d.comps))...)
	}
	d.comps = d.comps[:n]
	d.maxH, d.maxV = 1, 1
	for i := range d.comps {
		c := &d.comps[i]
		*c = component{plane: c.plane, coef: c.coef} // their memory is used again
		p := s[6+3*i:]
		c.id, c.h, c.v, c.quantIndex = p[0], int(p[1]>>4), int(p[1]&15), p[2]
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 {
			return fmt.Errorf("sampling factors %dx%d", c.h, c.v)
		}
		d.maxH, d.maxV = max(d.maxH, c.h), max(d.maxV, c.v)
		for k := range c.bits {
			c.bits[k] = -1
		}
	}
	return nil
}

// start prepares the memory for the first scan.
func (d *jpegDecoder) start() error {
	mcusX := ceilDiv(d.width, 8*d.maxH)
	mcusY := ceilDiv(d.height, 8*d.maxV)
	d.blocks = 0
	for i := range d.comps {
		c := &d.comps[i]
		if d.maxH%c.h != 0 || d.maxV%c.v != 0 {
			return fmt.Errorf("sampling factors %dx%d beside %dx%d are not supported", c.h, c.v, d.maxH, d.maxV)
		}
		c.width, c.height = ceilDiv(d.width*c.h, d.maxH), ceilDiv(d.height*c.v, d.maxV)
		c.blocksX, c.blocksY = ceilDiv(d.width*c.h, 8*d.maxH), ceilDiv(d.height*c.v, 8*d.maxV)
		c.paddedX, c.paddedY = mcusX*c.h, mcusY*c.v
		c.stride = 8 * c.blocksX
		d.blocks += c.blocksX * c.blocksY
	}
	// Every block takes at least one bit in some scan, so that a short file cannot
	// ask for much memory.
	if d.blocks/8 > len(d.data) {
		return fmt.Errorf("%w: the header says %dx%d, but the file has only %d bytes", ErrTooLarge, d.width, d.height, len(d.data))
	}
	d.multi = d.progressive || len(d.scan) < len(d.comps)
	for i := range d.comps {
		c := &d.comps[i]
		if n := 64 * c.blocksX * c.blocksY; cap(c.plane) < n {
			c.plane = make([]uint8, n)
		} else {
			c.plane = c.plane[:n]
		}
		if !d.multi {
			continue
		}
		if n := 64 * c.paddedX * c.paddedY; cap(c.coef) < n {
			c.coef = make([]int16, n)
		} else {
			c.coef = c.coef[:n]
			clear(c.coef)
		}
	}
	if !d.progressive {
		// Files of motion JPEG leave out the standard's own tables.
		d.useStandardTables()
	}
	return nil
}

// readScan reads the header of a scan.
func (d *jpegDecoder) readScan(s []byte) error {
	if !d.sawSOF {
		return errors.New("a scan before the frame header")
	}
	if len(s) < 1 || int(s[0]) < 1 || s[0] > 4 || len(s) != 4+2*int(s[0]) {
		return errors.New("a scan header of the wrong length")
	}
	n := int(s[0])
	d.scan = d.scan[:0]
	for i := range n {
		var c *component
		for j := range d.comps {
			if d.comps[j].id == s[1+2*i] && len(d.scan) <= j {
				c = &d.comps[j]
				break
			}
		}
		if c == nil {
			return fmt.Errorf("a scan of component %d, which there is not", s[1+2*i])
		}
		for _, other := range d.scan {
			if other == c {
				return fmt.Errorf("a scan that names component %d twice", c.id)
			}
		}
		c.dcTable, c.acTable = s[2+2*i]>>4, s[2+2*i]&15
		d.scan = append(d.scan, c)
	}
	p := s[1+2*n:]
	d.ss, d.se, d.ah, d.al = int(p[0]), int(p[1]), uint(p[2]>>4), uint(p[2]&15)
	d.nextRestart = 0
	d.scans++
	return nil
}

// startScan checks a scan's tables and makes ready for its data.
func (d *jpegDecoder) startScan() error {
	if len(d.scan) > 1 {
		n := 0
		for _, c := range d.scan {
			n += c.h * c.v
		}
		if n > 10 {
			return fmt.Errorf("%d blocks an MCU; the standard allows 10", n)
		}
	}
	for _, c := range d.scan {
		if c.hasQuant {
			continue
		}
		if c.quantIndex > 3 || !d.hasQuant[c.quantIndex] {
			return fmt.Errorf("no quantisation table %d", c.quantIndex)
		}
		c.quant16, c.hasQuant = d.quant[c.quantIndex], true
		for k, q := range c.quant16 {
			c.quant[k] = int16(q)
		}
	}
	if d.progressive {
		if err := d.startProgressive(); err != nil {
			return err
		}
	}
	for _, c := range d.scan {
		needDC := !d.progressive || d.ss == 0 && d.ah == 0
		needAC := !d.progressive || d.ss > 0
		if needDC {
			if c.dcTable > 3 || !d.dc[c.dcTable].defined {
				return fmt.Errorf("no Huffman table DC %d", c.dcTable)
			}
			if err := d.dc[c.dcTable].build(true); err != nil {
				return err
			}
		}
		if needAC {
			if c.acTable > 3 || !d.ac[c.acTable].defined {
				return fmt.Errorf("no Huffman table AC %d", c.acTable)
			}
			if err := d.ac[c.acTable].build(false); err != nil {
				return err
			}
		}
		c.pred = 0
	}
	d.bits = bitReader{data: d.data, pos: d.pos}
	d.eobRun, d.insufficient = 0, false
	return nil
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// maxDC is where libjpeg-turbo gives up on a progressive DC value.
const maxDC = math.MaxInt32

package imageset

import (
	"errors"
	"fmt"
)

// decodeScan reads all MCUs of the current scan. The coefficients become samples
// at once when this is the only scan, else they are kept.
func (d *jpegDecoder) decodeScan() error {
	mcusX, mcusY := ceilDiv(d.width, 8*d.maxH), ceilDiv(d.height, 8*d.maxV)
	single := len(d.scan) == 1
	rowsPerIMCU := 1
	if single {
		mcusX, mcusY = d.scan[0].blocksX, d.scan[0].blocksY
		rowsPerIMCU = d.scan[0].v
	}
	for _, c := range d.scan {
		d.visits += c.blocksX * c.blocksY
	}
	// A real file has a handful of scans. Without a limit a small one could keep a
	// processor busy for hours.
	if d.visits > 100*d.blocks+50_000_000 || d.scans > 10_000 {
		return errors.New("too many scans")
	}
	restartsToGo := d.restart
	for y := range mcusY {
		for x := range mcusX {
			if !d.insufficient {
				d.lastGoodRow = y / rowsPerIMCU
			}
			if d.restart > 0 {
				if restartsToGo == 0 {
					if err := d.processRestart(); err != nil {
						return err
					}
					restartsToGo = d.restart
				}
				restartsToGo--
			}
			var err error
			switch {
			case d.progressive:
				err = d.progressiveMCU(x, y, single)
			case d.insufficient:
				d.greyMCU(x, y, single)
			default:
				err = d.sequentialMCU(x, y, single)
			}
			if err != nil {
				return err
			}
			if d.bits.overrun() {
				if d.bits.ended {
					return errCutOff
				}
				d.bits.fake = d.bits.n
				d.insufficient = true
			}
		}
	}
	if d.bits.ended {
		// Even if every bit was there, which libjpeg-turbo knows only when it has
		// looked further than the last block.
		return errCutOff
	}
	d.pos, d.marker = d.bits.pos, d.bits.marker
	return nil
}

// processRestart looks for the next restart marker, and finds the way back when
// it is not the right one, as libjpeg does.
func (d *jpegDecoder) processRestart() error {
	d.pos, d.marker = d.bits.pos, d.bits.marker
	if d.marker == 0 {
		if err := d.nextMarker(); err != nil {
			return err
		}
	}
	want := d.nextRestart
	if d.marker == markerRST0+want {
		d.marker = 0
	} else if err := d.resync(want); err != nil {
		return err
	}
	d.nextRestart = (want + 1) & 7
	for _, c := range d.scan {
		c.pred = 0
	}
	d.eobRun = 0
	d.bits = bitReader{data: d.data, pos: d.pos, marker: d.marker}
	if d.marker == 0 {
		d.insufficient = false
	}
	return nil
}

func (d *jpegDecoder) resync(want uint8) error {
	for {
		m := d.marker
		switch ahead := (m - markerRST0 - want) & 7; {
		case m < markerSOF0:
			// No marker at all: look on.
		case m < markerRST0 || m > markerRST7 || ahead == 1 || ahead == 2:
			// The wanted one is lost. The segment is taken as empty.
			return nil
		case ahead == 6 || ahead == 7:
			// One that has passed: look on.
		default:
			d.marker = 0
			return nil
		}
		if err := d.nextMarker(); err != nil {
			return err
		}
	}
}

// eachBlock calls f for each block of an MCU, those that only pad the picture's
// edge among them.
func (d *jpegDecoder) eachBlock(x, y int, single bool, f func(c *component, bx, by int) error) error {
	if single {
		return f(d.scan[0], x, y)
	}
	for _, c := range d.scan {
		for v := range c.v {
			for h := range c.h {
				if err := f(c, x*c.h+h, y*c.v+v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sequentialMCU decodes an MCU of a baseline or extended scan.
func (d *jpegDecoder) sequentialMCU(x, y int, single bool) error {
	for _, c := range d.scan {
		w, h := c.h, c.v
		if single {
			w, h = 1, 1
		}
		dc, ac := &d.dc[c.dcTable], &d.ac[c.acTable]
		for v := range h {
			by := y*h + v
			for u := range w {
				bx := x*w + u
				if d.multi {
					b := (*[64]int16)(c.coef[64*(by*c.paddedX+bx):])
					// A later scan of the same component starts from what is there:
					// only coefficients in the data are replaced.
					d.bits.block(c, dc, ac, b, &ones)
					continue
				}
				mask := d.bits.block(c, dc, ac, &d.block, &c.quant)
				if bx < c.blocksX && by < c.blocksY {
					idct(&d.block, mask, c.plane[8*(by*c.stride+bx):], c.stride)
				}
				if mask != 0 {
					d.block = [64]int16{}
				} else {
					d.block[0] = 0
				}
			}
		}
	}
	return nil
}

// greyMCU is an MCU of which there are no data.
func (d *jpegDecoder) greyMCU(x, y int, single bool) {
	if d.multi {
		return
	}
	d.eachBlock(x, y, single, func(c *component, bx, by int) error {
		if bx < c.blocksX && by < c.blocksY {
			idct(&d.block, 0, c.plane[8*(by*c.stride+bx):], c.stride)
		}
		return nil
	})
}

var ones = func() (q [64]int16) {
	for i := range q {
		q[i] = 1
	}
	return q
}()

// block decodes a block of a sequential scan into b, which must be zero, times
// the quantisation steps q. It returns the places of coefficients other than the
// first as bits.
func (r *bitReader) block(c *component, dc, ac *huffman, b, q *[64]int16) uint64 {
	// The reader's state is kept in variables, which the compiler keeps in
	// registers.
	acc, n := r.acc, r.n
	if n < 48 {
		r.acc, r.n = acc, n
		r.refill()
		acc, n = r.acc, r.n
	}
	var diff int32
	if e := dc.look[acc>>(64-lookBits)]; e&lookHasValue != 0 {
		diff = int32(e) >> 16
		acc <<= e & 31
		n -= int(e & 31)
	} else {
		var s uint
		if e != 0 {
			s = uint(e >> 8 & 15)
			acc <<= e & 31
			n -= int(e & 31)
		} else {
			r.acc, r.n = acc, n
			s = uint(r.longSymbol(dc) & 15)
			acc, n = r.acc, r.n
		}
		if s > 0 {
			diff = extend(int32(acc>>(64-s)), s)
			acc <<= s
			n -= int(s)
		}
	}
	c.pred += diff
	b[0] = int16(c.pred) * q[0]
	var mask uint64
	for k := 1; k < 64; k++ {
		if n < 32 {
			r.acc, r.n = acc, n
			r.refill()
			acc, n = r.acc, r.n
		}
		e := ac.look[acc>>(64-lookBits)]
		if e&lookHasValue != 0 {
			acc <<= e & 31
			n -= int(e & 31)
			k += int(e >> 12 & 15)
			z := zigzag[k&127] & 63
			b[z] = int16(e>>16) * q[z]
			mask |= 1 << z
			continue
		}
		var v uint
		if e != 0 {
			v = uint(e >> 8 & 255)
			acc <<= e & 31
			n -= int(e & 31)
		} else {
			r.acc, r.n = acc, n
			v = uint(r.longSymbol(ac))
			acc, n = r.acc, r.n
		}
		s := v & 15
		if s == 0 {
			if v != 0xf0 {
				break
			}
			k += 15
			continue
		}
		k += int(v >> 4)
		z := zigzag[k&127] & 63
		b[z] = int16(extend(int32(acc>>(64-s)), s)) * q[z]
		mask |= 1 << z
		acc <<= s
		n -= int(s)
	}
	r.acc, r.n = acc, n
	return mask
}

// startProgressive checks a progressive scan's parameters and notes how precisely
// its coefficients will be known.
func (d *jpegDecoder) startProgressive() error {
	bad := d.ah != 0 && d.al != d.ah-1 || d.al > 13
	if d.ss == 0 {
		bad = bad || d.se != 0
	} else {
		bad = bad || d.ss > d.se || d.se > 63 || len(d.scan) != 1
	}
	if bad {
		return fmt.Errorf("progressive parameters %d to %d, bits %d to %d", d.ss, d.se, d.ah, d.al)
	}
	for _, c := range d.scan {
		for k := min(d.ss, 1); k <= max(d.se, 9); k++ {
			c.priorBits[k] = 0
			if d.scans > 1 {
				c.priorBits[k] = c.bits[k]
			}
		}
		for k := d.ss; k <= d.se; k++ {
			c.bits[k] = int(d.al)
		}
	}
	return nil
}

// progressiveMCU decodes an MCU of a progressive scan.
func (d *jpegDecoder) progressiveMCU(x, y int, single bool) error {
	if d.ss == 0 {
		return d.eachBlock(x, y, single, func(c *component, bx, by int) error {
			b := (*[64]int16)(c.coef[64*(by*c.paddedX+bx):])
			if d.ah == 0 {
				return d.firstDC(c, b)
			}
			d.bits.need(1)
			if d.bits.take(1) != 0 {
				b[0] |= 1 << d.al
			}
			return nil
		})
	}
	if d.insufficient {
		return nil
	}
	c := d.scan[0]
	b := (*[64]int16)(c.coef[64*(y*c.paddedX+x):])
	if d.ah == 0 {
		d.firstAC(&d.ac[c.acTable], b)
	} else {
		d.refineAC(&d.ac[c.acTable], b)
	}
	return nil
}

func (d *jpegDecoder) firstDC(c *component, b *[64]int16) error {
	if d.insufficient {
		return nil
	}
	var diff int32
	if s := uint(d.bits.symbol(&d.dc[c.dcTable])); s > 0 {
		d.bits.need(16)
		diff = extend(d.bits.take(s), s)
	}
	sum := int64(c.pred) + int64(diff)
	if sum > maxDC || sum < -maxDC-1 {
		return errors.New("a DC value out of range")
	}
	c.pred = int32(sum)
	b[0] = int16(c.pred << d.al)
	return nil
}

func (d *jpegDecoder) firstAC(h *huffman, b *[64]int16) {
	if d.eobRun > 0 {
		d.eobRun--
		return
	}
	r := &d.bits
	for k := d.ss; k <= d.se; k++ {
		if r.n < 32 {
			r.refill()
		}
		e := h.look[r.acc>>(64-lookBits)]
		if e&lookHasValue != 0 {
			r.acc <<= e & 31
			r.n -= int(e & 31)
			k += int(e >> 12 & 15)
			b[zigzag[k&127]&63] = int16(int32(e) >> 16 << d.al)
			continue
		}
		v := r.symbol(h)
		run, s := int(v>>4), uint(v&15)
		if s == 0 {
			if run == 15 {
				k += 15
				continue
			}
			d.eobRun = 1 << run
			if run > 0 {
				r.need(16)
				d.eobRun += int(r.take(uint(run)))
			}
			d.eobRun--
			return
		}
		k += run
		r.need(16)
		b[zigzag[k&127]&63] = int16(extend(r.take(s), s) << d.al)
	}
}

func (d *jpegDecoder) refineAC(h *huffman, b *[64]int16) {
	r := &d.bits
	plus, minus := int16(1)<<d.al, int16(-1)<<d.al
	k := d.ss
	if d.eobRun == 0 {
		for ; k <= d.se; k++ {
			v := r.symbol(h)
			run, s := int(v>>4), v&15
			var fresh int16
			if s != 0 {
				r.need(1)
				fresh = minus
				if r.take(1) != 0 {
					fresh = plus
				}
			} else if run != 15 {
				d.eobRun = 1 << run
				if run > 0 {
					r.need(16)
					d.eobRun += int(r.take(uint(run)))
				}
				break
			}
			// Pass over coefficients known to be other than zero, which take a bit
			// of correction each, and over run zeros.
			for k <= d.se {
				if p := &b[zigzag[k]&63]; *p != 0 {
					r.correct(p, plus, minus)
				} else if run--; run < 0 {
					break
				}
				k++
			}
			if s != 0 {
				b[zigzag[k]&63] = fresh
			}
		}
	}
	if d.eobRun > 0 {
		for ; k <= d.se; k++ {
			if p := &b[zigzag[k]&63]; *p != 0 {
				r.correct(p, plus, minus)
			}
		}
		d.eobRun--
	}
}

// correct reads one bit more of a coefficient.
func (r *bitReader) correct(p *int16, plus, minus int16) {
	r.need(1)
	if r.take(1) != 0 && *p&plus == 0 {
		if *p >= 0 {
			*p += plus
		} else {
			*p += minus
		}
	}
}

// output turns the kept coefficients into samples.
func (d *jpegDecoder) output() {
	// A component that no scan held has steps of zero, which makes it even.
	if d.progressive && d.smoothable() {
		d.smoothOutput()
		return
	}
	for i := range d.comps {
		c := &d.comps[i]
		for by := range c.blocksY {
			row := c.coef[64*by*c.paddedX:]
			for bx := range c.blocksX {
				d.emit(c, (*[64]int16)(row[64*bx:]), bx, by)
			}
		}
	}
}

// emit turns one kept block into samples.
func (d *jpegDecoder) emit(c *component, b *[64]int16, bx, by int) {
	var block [64]int16
	var mask uint64
	block[0] = b[0] * c.quant[0]
	for k := 1; k < 64; k++ {
		if v := b[k]; v != 0 {
			block[k] = v * c.quant[k]
			mask |= 1 << k
		}
	}
	idct(&block, mask, c.plane[8*(by*c.stride+bx):], c.stride)
}

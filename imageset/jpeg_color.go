package imageset

// colorizer brings components to full size and to RGB, row by row.
type colorizer struct {
	rows [4][]uint8
}

// convert writes the decoded planes of d into dst, which has their size.
func (z *colorizer) convert(d *jpegDecoder, dst *Image) {
	var row [4][]uint8
	for y := range d.height {
		for i := range d.comps {
			row[i] = z.upsample(d, i, y)[:d.width]
		}
		out := dst.Pix[3*d.width*y:][:3*d.width]
		switch {
		case len(d.comps) == 1:
			greyRow(out, row[0])
		case len(d.comps) == 4 && d.adobe && d.transform != 0:
			ycckRow(out, row[0], row[1], row[2], row[3])
		case len(d.comps) == 4:
			cmykRow(out, row[0], row[1], row[2], row[3])
		case d.isRGB():
			rgbRow(out, row[0], row[1], row[2])
		default:
			ycbcrRow(out, row[0], row[1], row[2])
		}
	}
}

// isRGB tells whether three components are not YCbCr.
func (d *jpegDecoder) isRGB() bool {
	switch {
	case d.jfif:
		return false
	case d.adobe:
		return d.transform == 0
	}
	return d.comps[0].id == 'R' && d.comps[1].id == 'G' && d.comps[2].id == 'B'
}

// upsample returns row y of component i at full width; what it returns is valid
// until the next call for that component.
func (z *colorizer) upsample(d *jpegDecoder, i, y int) []uint8 {
	c := &d.comps[i]
	h, v := d.maxH/c.h, d.maxV/c.v
	at := func(r int) []uint8 { return c.plane[r*c.stride:][:c.width] }
	near := y / v
	if h == 1 && v == 1 {
		return at(y)
	}
	if n := h * c.width; cap(z.rows[i]) < n {
		z.rows[i] = make([]uint8, n)
	}
	out := z.rows[i][:h*c.width]
	// The triangle filter also takes the row on the other side of the output row,
	// or the same one at the picture's edge.
	far := max(near-1, 0)
	if y%v == 1 {
		far = min(near+1, c.height-1)
	}
	switch {
	case h == 2 && v == 1 && c.width > 2:
		upsample2x1(out, at(near))
	case h == 1 && v == 2:
		bias := uint16(1 + y%2)
		a, b := at(near), at(far)
		for x := range out {
			out[x] = uint8((3*uint16(a[x]) + uint16(b[x]) + bias) >> 2)
		}
	case h == 2 && v == 2 && c.width > 2:
		upsample2x2(out, at(near), at(far))
	default:
		// Other ratios, and very narrow pictures, are repeated.
		in := at(near)
		for x := range out {
			out[x] = in[x/h]
		}
	}
	return out
}

// upsample2x1 doubles a row: 3/4 of the nearer sample and 1/4 of the farther one,
// halves rounded alternately down and up.
func upsample2x1(out, in []uint8) {
	n := len(in)
	out = out[:2*n]
	out[0] = in[0]
	out[1] = uint8((3*uint16(in[0]) + uint16(in[1]) + 2) >> 2)
	last, this := uint16(in[0]), uint16(in[1])
	for x, v := range in[2:] {
		next := uint16(v)
		o := out[2*x+2 : 2*x+4 : 2*x+4]
		o[0] = uint8((3*this + last + 1) >> 2)
		o[1] = uint8((3*this + next + 2) >> 2)
		last, this = this, next
	}
	out[2*n-2] = uint8((3*this + last + 1) >> 2)
	out[2*n-1] = uint8(this)
}

// upsample2x2 is the same in both directions: out is the one of near's two rows
// that lies towards far.
func upsample2x2(out, near, far []uint8) {
	n := len(near)
	far, out = far[:n], out[:2*n]
	last := 3*uint16(near[0]) + uint16(far[0])
	this := 3*uint16(near[1]) + uint16(far[1])
	out[0] = uint8((4*last + 8) >> 4)
	out[1] = uint8((3*last + this + 7) >> 4)
	near, far = near[2:], far[2:]
	for x, v := range near {
		next := 3*uint16(v) + uint16(far[x])
		o := out[2*x+2 : 2*x+4 : 2*x+4]
		o[0] = uint8((3*this + last + 8) >> 4)
		o[1] = uint8((3*this + next + 7) >> 4)
		last, this = this, next
	}
	out[2*n-2] = uint8((3*this + last + 8) >> 4)
	out[2*n-1] = uint8((4*this + 7) >> 4)
}

func greyRow(out, y []uint8) {
	for _, v := range y {
		_ = out[2]
		out[0], out[1], out[2] = v, v, v
		out = out[3:]
	}
}

func rgbRow(out, r, g, b []uint8) {
	g, b = g[:len(r)], b[:len(r)]
	for x, v := range r {
		_ = out[2]
		out[0], out[1], out[2] = v, g[x], b[x]
		out = out[3:]
	}
}

// toRGB is ITU-R BT.601 for the full range, in 16-bit fixed point.
func toRGB(y, cb, cr uint8) (r, g, b int32) {
	u, v := int32(cb)-128, int32(cr)-128
	r = int32(y) + (91881*v+1<<15)>>16
	g = int32(y) + (-22554*u-46802*v+1<<15)>>16
	b = int32(y) + (116130*u+1<<15)>>16
	return r, g, b
}

func clamp(v int32) uint8 {
	if uint32(v) > 255 {
		v = ^(v >> 31)
	}
	return uint8(v)
}

func ycbcrRow(out, y, cb, cr []uint8) {
	cb, cr = cb[:len(y)], cr[:len(y)]
	if vectors && len(y) >= 16 {
		// Two pixels are left at least: they are what it spoils.
		n := (len(y) - 2) &^ 7
		_ = out[3*len(y)-1]
		ycbcrAVX2(&out[0], &y[0], &cb[0], &cr[0], n)
		out, y, cb, cr = out[3*n:], y[n:], cb[n:], cr[n:]
	}
	for x, v := range y {
		r, g, b := toRGB(v, cb[x], cr[x])
		_ = out[2]
		if uint32(r|g|b) > 255 {
			r, g, b = int32(clamp(r)), int32(clamp(g)), int32(clamp(b))
		}
		out[0], out[1], out[2] = uint8(r), uint8(g), uint8(b)
		out = out[3:]
	}
}

// cmykRow takes inks as Adobe's programs write them, which is inverted, and so
// does Pillow whatever wrote the file.
func cmykRow(out, c, m, y, k []uint8) {
	for x := range c {
		out[3*x], out[3*x+1], out[3*x+2] = cmykToRGB(255-c[x], 255-m[x], 255-y[x], 255-k[x])
	}
}

func ycckRow(out, y, cb, cr, k []uint8) {
	for x := range y {
		r, g, b := toRGB(y[x], cb[x], cr[x])
		// The three inks are the inverse of RGB and inverted once more, as above.
		out[3*x], out[3*x+1], out[3*x+2] = cmykToRGB(clamp(r), clamp(g), clamp(b), 255-k[x])
	}
}

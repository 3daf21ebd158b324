package kernel

import "unsafe"

var portable = &Set{name: "portable", tiles: []Tile{{Width: portableWidth, Run: tile6x16}}, winograd: portableWinograd}

const portableWidth = 16

type sums [Rows * portableWidth]float32

// tile6x16 is TileArgs' formula for 16 channels in portable Go. It works in
// blocks of three pixels by four channels: twelve sums that the compiler keeps
// in registers.
func tile6x16(a *TileArgs) {
	tile := *a
	in, out := unsafe.Slice(a.InOff, a.Count), unsafe.Slice(a.OutOff, a.Count)
	for n := range in {
		tile.InOff, tile.OutOff = &in[n], &out[n]
		oneTile(&tile)
	}
}

func oneTile(a *TileArgs) {
	var acc sums
	for i := range Rows {
		row := acc[i*portableWidth:][:portableWidth]
		switch {
		case a.Flags&Accumulate != 0:
			copy(row, floats(a.Out, a.OutOff[i]))
		case a.Bias != nil:
			copy(row, floats(a.Bias, 0))
		}
	}
	for i := 0; i < Rows; i += 3 {
		for j := 0; j < portableWidth; j += 4 {
			addBlock(&acc, a, i, j)
		}
	}
	for i := range Rows {
		row := acc[i*portableWidth:][:portableWidth]
		if a.Res != nil {
			for j, r := range floats(a.Res, a.OutOff[i]) {
				row[j] += r
			}
		}
		if a.Flags&ReLU != 0 {
			for j, v := range row {
				if v < 0 {
					row[j] = 0
				}
			}
		}
		if a.Mask != nil {
			for j, m := range floats(a.Mask, a.OutOff[i]) {
				if !(m > 0) {
					row[j] = 0
				}
			}
		}
		copy(floats(a.Out, a.OutOff[i]), row)
	}
}

func addBlock(acc *sums, a *TileArgs, i, j int) {
	o := acc[i*portableWidth+j:]
	p0 := (*[4]float32)(o)
	p1 := (*[4]float32)(o[portableWidth:])
	p2 := (*[4]float32)(o[2*portableWidth:])
	a0, a1, a2, a3 := p0[0], p0[1], p0[2], p0[3]
	b0, b1, b2, b3 := p1[0], p1[1], p1[2], p1[3]
	c0, c1, c2, c3 := p2[0], p2[1], p2[2], p2[3]
	w := unsafe.Slice(a.Weights, a.Taps*a.Cin*portableWidth)
	for t := range a.Taps {
		off := *(*int64)(unsafe.Add(unsafe.Pointer(a.TapOff), 8*t))
		// One addition each: a pointer in between might lie outside of the slice.
		in := unsafe.Pointer(a.In)
		x := unsafe.Slice((*float32)(unsafe.Add(in, a.InOff[i]+off)), a.Cin)
		y := unsafe.Slice((*float32)(unsafe.Add(in, a.InOff[i+1]+off)), a.Cin)
		z := unsafe.Slice((*float32)(unsafe.Add(in, a.InOff[i+2]+off)), a.Cin)
		y, z = y[:len(x)], z[:len(x)]
		for c, u := range x {
			k := (*[4]float32)(w[j : j+4 : j+4])
			k0, k1, k2, k3 := k[0], k[1], k[2], k[3]
			a0 += u * k0
			a1 += u * k1
			a2 += u * k2
			a3 += u * k3
			v := y[c]
			b0 += v * k0
			b1 += v * k1
			b2 += v * k2
			b3 += v * k3
			s := z[c]
			c0 += s * k0
			c1 += s * k1
			c2 += s * k2
			c3 += s * k3
			w = w[portableWidth:]
		}
	}
	*p0 = [4]float32{a0, a1, a2, a3}
	*p1 = [4]float32{b0, b1, b2, b3}
	*p2 = [4]float32{c0, c1, c2, c3}
}

func floats(p *float32, byteOffset int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), byteOffset)), portableWidth)
}

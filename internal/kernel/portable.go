package kernel

import "unsafe"

var portable = &Set{
	name: "portable", tiles: []Tile{{Width: portableWidth, Run: tile6x16}}, winograd: portableWinograd,
	products:    []Product{{portableWidth, Rows, portableRest, productPortable}},
	transformer: &portableTransformer,
}

const portableWidth = 16

type sums [Rows * portableWidth]float32

// tile6x16 is TileArgs' formula for 16 channels in portable Go, in blocks of three
// pixels by two channels.
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
		for j := 0; j < portableWidth; j += 2 {
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

// addBlock adds to the sums of three pixels and two channels.
func addBlock(acc *sums, a *TileArgs, i, j int) {
	o := acc[i*portableWidth+j:]
	p0 := (*[2]float32)(o)
	p1 := (*[2]float32)(o[portableWidth:])
	p2 := (*[2]float32)(o[2*portableWidth:])
	block := [6]float32{p0[0], p0[1], p1[0], p1[1], p2[0], p2[1]}
	w := unsafe.Slice(a.Weights, a.Taps*a.Cin*portableWidth)
	for t := range a.Taps {
		off := *(*int64)(unsafe.Add(unsafe.Pointer(a.TapOff), 8*t))
		// One addition each: a pointer in between might lie outside of the slice.
		in := unsafe.Pointer(a.In)
		x := unsafe.Slice((*float32)(unsafe.Add(in, a.InOff[i]+off)), a.Cin)
		y := unsafe.Slice((*float32)(unsafe.Add(in, a.InOff[i+1]+off)), a.Cin)
		z := unsafe.Slice((*float32)(unsafe.Add(in, a.InOff[i+2]+off)), a.Cin)
		addTap(&block, x, y, z, &w[t*a.Cin*portableWidth+int64(j)])
	}
	*p0, *p1, *p2 = [2]float32(block[:]), [2]float32(block[2:]), [2]float32(block[4:])
}

// addTap adds a tap's channels. By itself and in this shape all that a step needs stays
// in amd64's registers.
//
//go:noinline
func addTap(block *[6]float32, x, y, z []float32, weights *float32) {
	a0, a1, b0, b1, c0, c1 := block[0], block[1], block[2], block[3], block[4], block[5]
	y, z = y[:len(x)], z[:len(x)]
	for c, u := range x {
		k := (*[2]float32)(unsafe.Add(unsafe.Pointer(weights), 4*portableWidth*c))
		v, s := y[c], z[c]
		k0, k1 := k[0], k[1]
		a0 += u * k0
		a1 += u * k1
		b0 += v * k0
		b1 += v * k1
		c0 += s * k0
		c1 += s * k1
	}
	block[0], block[1], block[2], block[3], block[4], block[5] = a0, a1, b0, b1, c0, c1
}

func floats(p *float32, byteOffset int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), byteOffset)), portableWidth)
}

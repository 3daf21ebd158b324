package nn

import "nac/internal/kernel"

// winogradRepack lays the filters of a winogradJob out again after a step of
// training: as a product of the transform's matrix with many filters at once, in
// float32, where the first time each filter is transformed by itself in float64.
// A part is a panel of output channels, as wide as the tile.
func winogradRepack(j *winogradJob, tile kernel.Tile, outputs, inputs int, filter func(o, i int) [9]float32) *packing {
	w, planes := tile.Width, j.form.Planes()
	// The transform is linear: its matrix is what it makes of the unit filters.
	matrix := kernel.Aligned(planes * 9)
	for t := range 9 {
		var unit [9]float32
		unit[t] = 1
		u := make([]float32, planes)
		j.form.Filter(&unit, u, 1)
		for plane, v := range u {
			matrix[plane*9+t] = v
		}
	}
	panelSize := j.cin * w
	tiles := (planes + kernel.Rows - 1) / kernel.Rows
	in, out := make([][kernel.Rows]int64, tiles), make([][kernel.Rows]int64, tiles)
	for t := range tiles {
		for r := range kernel.Rows {
			plane := min(t*kernel.Rows+r, planes-1) // fill the last tile with its last plane
			in[t][r], out[t][r] = 4*int64(plane*9), 4*int64(plane*j.panels*panelSize)
		}
	}
	var tap [1]int64
	return &packing{j.groups * j.panels, func(part int) {
		g, p := part/j.panels, part%j.panels
		filters := kernel.Aligned(9 * w)
		a := &kernel.TileArgs{
			In: &matrix[0], Weights: &filters[0], TapOff: &tap[0], Taps: 1, Cin: 9,
			InOff: &in[0], OutOff: &out[0], Count: int64(tiles),
		}
		for i := range inputs {
			for lane := range w {
				if o := g*j.group + p*w + lane; o < outputs {
					for t, v := range filter(o, i) {
						filters[t*w+lane] = v
					}
				}
			}
			a.Out = &j.weights[(g*planes*j.panels+p)*panelSize+i*w]
			tile.Run(a)
		}
	}}
}

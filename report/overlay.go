package report

import (
	"image"
	"image/color"

	"golang.org/x/image/draw"

	"nac/imageset"
)

// Heat is a map of values from 0 to 1, row by row; larger ones count as 1.
type Heat struct {
	Height, Width int
	Values        []float32
}

// pane is the least side of an image in Beside, and gap the pixels between two.
const (
	pane = 224
	gap  = 8
)

// Beside draws an image and at its right, for each map, the image in grey under the
// map's colours, from dark for 0 to light yellow for 1.
func Beside(img *imageset.Image, maps []Heat) image.Image {
	scale := max(1, (pane+min(img.Width, img.Height)-1)/min(img.Width, img.Height))
	w, h := img.Width*scale, img.Height*scale
	all := image.NewRGBA(image.Rect(0, 0, w+len(maps)*(w+gap), h))
	draw.Draw(all, all.Rect, image.White, image.Point{}, draw.Src)
	left := all.SubImage(image.Rect(0, 0, w, h)).(*image.RGBA)
	at := func(x, y int) color.RGBA {
		p := img.Pix[3*(y/scale*img.Width+x/scale):]
		return color.RGBA{p[0], p[1], p[2], 255}
	}
	for y := range h {
		for x := range w {
			left.SetRGBA(x, y, at(x, y))
		}
	}
	for i, m := range maps {
		small := image.NewGray16(image.Rect(0, 0, m.Width, m.Height))
		for k, v := range m.Values {
			small.SetGray16(k%m.Width, k/m.Width, color.Gray16{Y: uint16(0xffff * min(max(v, 0), 1))})
		}
		smooth := image.NewGray16(image.Rect(0, 0, w, h))
		draw.BiLinear.Scale(smooth, smooth.Rect, small, small.Rect, draw.Src, nil)
		for y := range h {
			for x := range w {
				heat := mapColours[int(smooth.Gray16At(x, y).Y)*(mapLevels-1)/0xffff].(color.NRGBA)
				grey := color.GrayModel.Convert(at(x, y)).(color.Gray).Y
				mix := func(c uint8) uint8 { return uint8((2*int(c) + int(grey)) / 3) }
				all.SetRGBA((i+1)*(w+gap)+x, y, color.RGBA{mix(heat.R), mix(heat.G), mix(heat.B), 255})
			}
		}
	}
	return all
}

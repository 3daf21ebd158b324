package imageset

import (
	"bytes"
	"image/color"
	"image/jpeg"
)

type jpegDecoder struct{}

func (*jpegDecoder) decode(data []byte, maxPixels int, dst *Image) error {
	c, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if err := checkSize(c.Width, c.Height, maxPixels); err != nil {
		return err
	}
	m, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	dst.resize(c.Width, c.Height)
	for y := range c.Height {
		for x := range c.Width {
			p := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
			i := 3 * (y*c.Width + x)
			dst.Pix[i], dst.Pix[i+1], dst.Pix[i+2] = p.R, p.G, p.B
		}
	}
	return nil
}

package imageset

import "fmt"

// Resized returns the picture resampled to exactly the given size, as Pillow's
// Image.resize does with the filter.
func (img *Image) Resized(width, height int, f Filter) (*Image, error) {
	if width < 1 || height < 1 || width > maxSide || height > maxSide {
		return nil, fmt.Errorf("resize to %dx%d: want 1 to %d", width, height, maxSide)
	}
	if f != Bilinear && f != Bicubic {
		return nil, fmt.Errorf("resize: unknown filter %v", f)
	}
	if img.Width < 1 || img.Height < 1 || len(img.Pix) != 3*img.Width*img.Height {
		return nil, fmt.Errorf("resize: an image of %dx%d pixels with %d bytes", img.Width, img.Height, len(img.Pix))
	}
	out := new(Image)
	out.resize(width, height)
	new(resizer).resize(img, f, width, height, window{0, 0, width, height}, out.Pix, 3*width)
	return out, nil
}

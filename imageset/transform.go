package imageset

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"sync"
)

// Transform turns a picture into a network's input as torchvision's Resize,
// CenterCrop, ToTensor and Normalize do, in this order.
type Transform struct {
	// Resize is the length to which the shorter side is brought; the longer one
	// follows, rounded down. 0 leaves the picture as it is.
	Resize int `json:"resize"`
	// Crop is the side of the square cut from the centre; a smaller picture is
	// first padded with black. 0 cuts nothing.
	Crop   int    `json:"crop"`
	Filter Filter `json:"filter"`
	// Mean and Std normalise the channels R, G, B after division by 255:
	// (x - mean) / std, in float32.
	Mean [3]float32 `json:"mean"`
	Std  [3]float32 `json:"std"`
}

var (
	imagenetMean = [3]float32{0.485, 0.456, 0.406}
	imagenetStd  = [3]float32{0.229, 0.224, 0.225}
)

// presets are OpenOOD v1.5's by data set, and torchvision's by weights.
var presets = map[string]Transform{
	"cifar10":     {32, 32, Bilinear, [3]float32{0.4914, 0.4822, 0.4465}, [3]float32{0.2470, 0.2435, 0.2616}},
	"cifar100":    {32, 32, Bilinear, [3]float32{0.5071, 0.4867, 0.4408}, [3]float32{0.2675, 0.2565, 0.2761}},
	"imagenet":    {256, 224, Bilinear, imagenetMean, imagenetStd},
	"imagenet200": {256, 224, Bilinear, imagenetMean, imagenetStd},
	"imagenet_c":  {0, 0, Bilinear, imagenetMean, imagenetStd},
	"aircraft":    {512, 448, Bilinear, [3]float32{0.5, 0.5, 0.5}, [3]float32{0.5, 0.5, 0.5}},
	"cub":         {512, 448, Bilinear, [3]float32{0.5, 0.5, 0.5}, [3]float32{0.5, 0.5, 0.5}},

	"resnet18_v1":      {256, 224, Bilinear, imagenetMean, imagenetStd},
	"resnet34_v1":      {256, 224, Bilinear, imagenetMean, imagenetStd},
	"resnet50_v1":      {256, 224, Bilinear, imagenetMean, imagenetStd},
	"resnet50_v2":      {232, 224, Bilinear, imagenetMean, imagenetStd},
	"resnet101_v1":     {256, 224, Bilinear, imagenetMean, imagenetStd},
	"resnet101_v2":     {232, 224, Bilinear, imagenetMean, imagenetStd},
	"densenet121_v1":   {256, 224, Bilinear, imagenetMean, imagenetStd},
	"mobilenet_v2_v1":  {256, 224, Bilinear, imagenetMean, imagenetStd},
	"mobilenet_v2_v2":  {232, 224, Bilinear, imagenetMean, imagenetStd},
	"vit_b_16_v1":      {256, 224, Bilinear, imagenetMean, imagenetStd},
	"swin_t_v1":        {232, 224, Bicubic, imagenetMean, imagenetStd},
	"convnext_tiny_v1": {236, 224, Bilinear, imagenetMean, imagenetStd},
}

// Preset returns the transform of a benchmark's data set (cifar10, imagenet, ...)
// or of torchvision's weights (resnet50_v2, swin_t_v1, ...). Mean and Std belong
// to the checkpoint and may be replaced.
func Preset(name string) (Transform, error) {
	t, ok := presets[name]
	if !ok {
		return Transform{}, fmt.Errorf("unknown transform preset %q: want one of %s", name, strings.Join(PresetNames(), ", "))
	}
	return t, nil
}

// PresetNames returns the names that Preset takes, sorted.
func PresetNames() []string {
	names := make([]string, 0, len(presets))
	for n := range presets {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// maxSide bounds Resize and Crop, so that a slip of the keyboard is told and not
// computed.
const maxSide = 1 << 14

// Validate says what is wrong with the settings.
func (t Transform) Validate() error {
	switch {
	case t.Resize < 0 || t.Resize > maxSide:
		return fmt.Errorf("transform: resize to %d: want 0 to %d", t.Resize, maxSide)
	case t.Crop < 0 || t.Crop > maxSide:
		return fmt.Errorf("transform: crop to %d: want 0 to %d", t.Crop, maxSide)
	case t.Filter != Bilinear && t.Filter != Bicubic:
		return fmt.Errorf("transform: unknown filter %v", t.Filter)
	}
	for c := range 3 {
		if m := float64(t.Mean[c]); math.IsNaN(m) || math.IsInf(m, 0) {
			return fmt.Errorf("transform: the mean of channel %d is %v", c, m)
		}
		if s := float64(t.Std[c]); !(s > 0) || math.IsInf(s, 0) {
			return fmt.Errorf("transform: the standard deviation of channel %d is %v: want a positive number", c, s)
		}
	}
	return nil
}

// Size returns the height and width of what Apply makes, or zeros when they
// depend on the picture because nothing is cropped.
func (t Transform) Size() (height, width int) { return t.Crop, t.Crop }

// Pixels resizes and crops, as bytes. img is not changed; the result may share
// its memory if there is nothing to do.
func (t Transform) Pixels(img *Image) (*Image, error) {
	a := appliers.Get().(*applier)
	defer appliers.Put(a)
	if err := a.set(t); err != nil {
		return nil, err
	}
	out := new(Image)
	if err := a.pixels(img, &out); err != nil {
		return nil, err
	}
	return out, nil
}

// Apply writes the network's input for img, 3 × height × width values, to dst,
// whose length must be just that.
func (t Transform) Apply(img *Image, dst []float32) error {
	a := appliers.Get().(*applier)
	defer appliers.Put(a)
	if err := a.set(t); err != nil {
		return err
	}
	return a.apply(img, dst)
}

var appliers = sync.Pool{New: func() any { return new(applier) }}

// applier is a Transform made ready, with the memory it needs. It is not for
// concurrent use.
type applier struct {
	t       Transform
	ready   bool
	table   [3][256]float32 // normalised value of each byte
	resizer resizer
	tmp     Image
}

func (a *applier) set(t Transform) error {
	if a.ready && a.t == t {
		return nil
	}
	if err := t.Validate(); err != nil {
		return err
	}
	a.t, a.ready = t, true
	for c := range 3 {
		for v := range 256 {
			a.table[c][v] = (float32(v)/255 - t.Mean[c]) / t.Std[c]
		}
	}
	return nil
}

// layout says how a picture becomes the output: it is resampled to width x
// height, and of that the window is put at (left, top) of the output.
type layout struct {
	width, height       int
	win                 window
	left, top           int
	outWidth, outHeight int
}

func (t Transform) layout(width, height int) layout {
	if t.Resize > 0 {
		short, long := min(width, height), max(width, height)
		if short != t.Resize {
			l := max(int(float64(t.Resize*long)/float64(short)), 1)
			if width <= height {
				width, height = t.Resize, l
			} else {
				width, height = l, t.Resize
			}
		}
	}
	l := layout{width: width, height: height, win: window{0, 0, width, height}, outWidth: width, outHeight: height}
	if t.Crop > 0 {
		l.outWidth, l.outHeight = t.Crop, t.Crop
		l.win.x, l.win.width, l.left = cropSide(width, t.Crop)
		l.win.y, l.win.height, l.top = cropSide(height, t.Crop)
	}
	return l
}

// cropSide cuts crop pixels from the middle of size, or pads: it returns where
// the cut begins, how much it takes, and where that goes in the output.
func cropSide(size, crop int) (from, n, at int) {
	if size <= crop {
		return 0, size, (crop - size) / 2
	}
	d := size - crop
	from = d / 2
	if d%2 == 1 && from%2 == 1 {
		from++ // half is rounded to even
	}
	return from, crop, 0
}

func (a *applier) pixels(img *Image, out **Image) error {
	if img.Width <= 0 || img.Height <= 0 || len(img.Pix) != 3*img.Width*img.Height {
		return fmt.Errorf("transform: an image of %dx%d pixels with %d bytes", img.Width, img.Height, len(img.Pix))
	}
	l := a.t.layout(img.Width, img.Height)
	if err := checkSize(l.outWidth, l.outHeight, MaxPixels); err != nil {
		return fmt.Errorf("transform: after resizing: %w", err)
	}
	if l.width == img.Width && l.height == img.Height && l.outWidth == img.Width && l.outHeight == img.Height {
		*out = img
		return nil
	}
	o := *out
	o.resize(l.outWidth, l.outHeight)
	if l.win.width != l.outWidth || l.win.height != l.outHeight {
		clear(o.Pix)
	}
	a.resizer.resize(img, a.t.Filter, l.width, l.height, l.win, o.Pix[3*(l.top*l.outWidth+l.left):], 3*l.outWidth)
	return nil
}

func (a *applier) apply(img *Image, dst []float32) error {
	out := &a.tmp
	if err := a.pixels(img, &out); err != nil {
		return err
	}
	n := out.Width * out.Height
	if len(dst) != 3*n {
		return fmt.Errorf("transform: room for %d values, the image makes 3x%dx%d", len(dst), out.Height, out.Width)
	}
	r, g, b := dst[:n], dst[n:2*n], dst[2*n:3*n]
	pix := out.Pix[:3*n]
	for i := range r {
		p := pix[3*i : 3*i+3 : 3*i+3]
		r[i] = a.table[0][p[0]]
		g[i] = a.table[1][p[1]]
		b[i] = a.table[2][p[2]]
	}
	return nil
}

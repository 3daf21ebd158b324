package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"nac/imageset"
)

// Augment changes training images at random, as torchvision's transforms of the
// same names do, in the order of the fields.
type Augment struct {
	// Pad is the width of a black border, before a random place is cut out
	// (RandomCrop with padding).
	Pad int `json:"pad,omitempty"`
	// Scale is the range of the share of the area that RandomResizedCrop cuts out,
	// Ratio that of the sides' quotient. A Scale of zeros does not crop.
	Scale [2]float64 `json:"scale,omitzero"`
	Ratio [2]float64 `json:"ratio,omitzero"`
	// Flip turns one picture in two left to right.
	Flip bool `json:"flip,omitempty"`
	// The strengths of ColorJitter, which applies its parts in random order.
	Brightness float64 `json:"brightness,omitempty"`
	Contrast   float64 `json:"contrast,omitempty"`
	Saturation float64 `json:"saturation,omitempty"`
	Hue        float64 `json:"hue,omitempty"`
	// Grayscale is the share of pictures that lose their colour.
	Grayscale float64 `json:"grayscale,omitempty"`
}

var augments = map[string]Augment{
	"none":     {},
	"flip":     {Flip: true},
	"cifar":    {Pad: 4, Flip: true},
	"imagenet": {Scale: [2]float64{0.08, 1}, Ratio: [2]float64{3. / 4, 4. / 3}, Flip: true},
	"domainbed": {
		Scale: [2]float64{0.7, 1}, Ratio: [2]float64{3. / 4, 4. / 3}, Flip: true,
		Brightness: 0.3, Contrast: 0.3, Saturation: 0.3, Hue: 0.3, Grayscale: 0.1,
	},
}

// AugmentNames lists the names that NamedAugment takes.
func AugmentNames() []string {
	var names []string
	for n := range augments {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// NamedAugment returns the augmentation of that name: cifar pads by 4, crops and
// flips; imagenet is RandomResizedCrop and a flip; domainbed is DomainBed's.
func NamedAugment(name string) (Augment, error) {
	a, ok := augments[name]
	if !ok {
		return a, fmt.Errorf("no augmentation %q: want one of %s", name, strings.Join(AugmentNames(), ", "))
	}
	return a, nil
}

// Validate says what is wrong with the settings.
func (a Augment) Validate() error {
	switch {
	case a.Pad < 0 || a.Pad > 1<<12:
		return fmt.Errorf("augmentation: a border of %d", a.Pad)
	case a.Scale != [2]float64{} && !(a.Scale[0] > 0 && a.Scale[0] <= a.Scale[1] && a.Scale[1] <= 1 && a.Ratio[0] > 0 && a.Ratio[0] <= a.Ratio[1]):
		return fmt.Errorf("augmentation: crops of %v of the area, sides as %v", a.Scale, a.Ratio)
	case !(min(a.Brightness, a.Contrast, a.Saturation) >= 0) || !(a.Hue >= 0 && a.Hue <= 0.5) || !(a.Grayscale >= 0 && a.Grayscale <= 1):
		return fmt.Errorf("augmentation: jitter of %v, %v, %v, %v, grey %v: want 0 or above, hue to 0.5, grey to 1", a.Brightness, a.Contrast, a.Saturation, a.Hue, a.Grayscale)
	}
	return nil
}

// Apply returns the picture, changed, at width x height. img is left alone.
func (a Augment) Apply(img *imageset.Image, width, height int, r *rand.Rand) (*imageset.Image, error) {
	var err error
	switch {
	case a.Scale != [2]float64{}:
		x, y, w, h := a.crop(img.Width, img.Height, r)
		if img, err = cut(img, x, y, w, h).Resized(width, height, imageset.Bilinear); err != nil {
			return nil, err
		}
	case img.Width != width || img.Height != height:
		if img, err = img.Resized(width, height, imageset.Bilinear); err != nil {
			return nil, err
		}
	}
	if a.Pad > 0 {
		img = cut(img, r.IntN(2*a.Pad+1)-a.Pad, r.IntN(2*a.Pad+1)-a.Pad, width, height)
	} else {
		img = cut(img, 0, 0, width, height) // a copy
	}
	if a.Flip && r.IntN(2) == 1 {
		flip(img)
	}
	a.jitter(img, r)
	if a.Grayscale > 0 && r.Float64() < a.Grayscale {
		saturate(img, 0)
	}
	return img, nil
}

// crop is torchvision's RandomResizedCrop.get_params.
func (a Augment) crop(width, height int, r *rand.Rand) (x, y, w, h int) {
	area := float64(width * height)
	low, high := math.Log(a.Ratio[0]), math.Log(a.Ratio[1])
	for range 10 {
		target := area * (a.Scale[0] + (a.Scale[1]-a.Scale[0])*r.Float64())
		ratio := math.Exp(low + (high-low)*r.Float64())
		w, h = int(math.RoundToEven(math.Sqrt(target*ratio))), int(math.RoundToEven(math.Sqrt(target/ratio)))
		if w > 0 && w <= width && h > 0 && h <= height {
			return r.IntN(width - w + 1), r.IntN(height - h + 1), w, h
		}
	}
	w, h = width, height // the middle, as near to the picture's own ratio as may be
	if q := float64(width) / float64(height); q < a.Ratio[0] {
		h = int(math.RoundToEven(float64(w) / a.Ratio[0]))
	} else if q > a.Ratio[1] {
		w = int(math.RoundToEven(float64(h) * a.Ratio[1]))
	}
	return (width - w) / 2, (height - h) / 2, w, h
}

// cut copies a part, black where it leaves the picture.
func cut(img *imageset.Image, x, y, w, h int) *imageset.Image {
	out := &imageset.Image{Width: w, Height: h, Pix: make([]uint8, 3*w*h)}
	from, to := max(x, 0), min(x+w, img.Width)
	for row := max(y, 0); row < min(y+h, img.Height) && from < to; row++ {
		copy(out.Pix[3*((row-y)*w+from-x):], img.Pix[3*(row*img.Width+from):3*(row*img.Width+to)])
	}
	return out
}

func flip(img *imageset.Image) {
	for y := range img.Height {
		row := img.Pix[3*y*img.Width:][:3*img.Width]
		for i, j := 0, len(row)-3; i < j; i, j = i+3, j-3 {
			for c := range 3 {
				row[i+c], row[j+c] = row[j+c], row[i+c]
			}
		}
	}
}

func (a Augment) jitter(img *imageset.Image, r *rand.Rand) {
	if max(a.Brightness, a.Contrast, a.Saturation, a.Hue) == 0 {
		return
	}
	factor := func(strength float64) float64 {
		low := max(1-strength, 0)
		return low + (1+strength-low)*r.Float64()
	}
	parts := []func(){
		func() { brighten(img, factor(a.Brightness)) },
		func() { contrast(img, factor(a.Contrast)) },
		func() { saturate(img, factor(a.Saturation)) },
		func() { turnHue(img, a.Hue*(2*r.Float64()-1)) },
	}
	strengths := []float64{a.Brightness, a.Contrast, a.Saturation, a.Hue}
	for _, i := range r.Perm(len(parts)) {
		if strengths[i] > 0 {
			parts[i]()
		}
	}
}

// blend is Pillow's Image.blend of one value: truncated, and clipped when it
// extrapolates.
func blend(from, to uint8, factor float64) uint8 {
	v := float32(from) + float32(factor)*(float32(to)-float32(from))
	return uint8(min(max(v, 0), 255))
}

func brighten(img *imageset.Image, factor float64) {
	for i, v := range img.Pix {
		img.Pix[i] = blend(0, v, factor)
	}
}

// grey is Pillow's luma.
func grey(p []uint8) uint8 {
	return uint8((int(p[0])*19595 + int(p[1])*38470 + int(p[2])*7471 + 0x8000) >> 16)
}

func contrast(img *imageset.Image, factor float64) {
	sum := 0
	for i := 0; i < len(img.Pix); i += 3 {
		sum += int(grey(img.Pix[i:]))
	}
	mean := uint8(float64(sum)/float64(img.Width*img.Height) + 0.5)
	for i, v := range img.Pix {
		img.Pix[i] = blend(mean, v, factor)
	}
}

func saturate(img *imageset.Image, factor float64) {
	for i := 0; i < len(img.Pix); i += 3 {
		g := grey(img.Pix[i:])
		for c := i; c < i+3; c++ {
			img.Pix[c] = blend(g, img.Pix[c], factor)
		}
	}
}

// turnHue shifts the hue by a share of the circle, through Pillow's bytes of HSV.
func turnHue(img *imageset.Image, share float64) {
	shift := uint8(int(share * 255))
	for i := 0; i < len(img.Pix); i += 3 {
		p := img.Pix[i : i+3 : i+3]
		h, s, v := toHSV(p)
		fromHSV(h+shift, s, v, p)
	}
}

// toHSV is Pillow's conversion, in float32 where it is there.
func toHSV(p []uint8) (h, s, v uint8) {
	r, g, b := p[0], p[1], p[2]
	top, low := max(r, g, b), min(r, g, b)
	if top == low {
		return 0, 0, top
	}
	span := float32(top - low)
	rc, gc, bc := float32(top-r)/span, float32(top-g)/span, float32(top-b)/span
	var hue float32
	switch top {
	case r:
		hue = bc - gc
	case g:
		hue = 2 + rc - bc
	default:
		hue = 4 + gc - rc
	}
	f := math.Mod(float64(hue)/6+1, 1)
	byteOf := func(x int) uint8 { return uint8(min(max(x, 0), 255)) }
	return byteOf(int(float32(f) * 255)), byteOf(int(span / float32(top) * 255)), top
}

func fromHSV(h, s, v uint8, p []uint8) {
	if s == 0 {
		p[0], p[1], p[2] = v, v, v
		return
	}
	hue := float32(h) * 6 / 255
	sector := int(math.Floor(float64(hue)))
	f, fs := hue-float32(sector), float32(s)/255
	value := float32(v)
	round := func(x float64) uint8 { return uint8(min(max(math.Round(x), 0), 255)) }
	a := round(float64(value * (1 - fs)))
	b := round(float64(value * (1 - fs*f)))
	c := round(float64(value * (1 - fs*(1-f))))
	switch sector % 6 {
	case 0:
		p[0], p[1], p[2] = v, c, a
	case 1:
		p[0], p[1], p[2] = b, v, a
	case 2:
		p[0], p[1], p[2] = a, v, c
	case 3:
		p[0], p[1], p[2] = a, b, v
	case 4:
		p[0], p[1], p[2] = c, a, v
	default:
		p[0], p[1], p[2] = v, a, b
	}
}

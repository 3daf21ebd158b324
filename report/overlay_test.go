package report

import (
	"image/color"
	"testing"

	"nac/imageset"
)

func TestBeside(t *testing.T) {
	img := &imageset.Image{Width: 2, Height: 1, Pix: []uint8{255, 0, 0, 0, 0, 255}}
	m := Beside(img, []Heat{{1, 2, []float32{0, 7}}})
	b := m.Bounds()
	if b.Dy() != pane || b.Dx() != 4*pane+gap {
		t.Fatalf("size %v", b)
	}
	if m.At(1, 1) != (color.RGBA{255, 0, 0, 255}) || m.At(2*pane-1, 1) != (color.RGBA{0, 0, 255, 255}) {
		t.Errorf("the image: %v, %v", m.At(1, 1), m.At(2*pane-1, 1))
	}
	light := func(x int) uint8 { return color.GrayModel.Convert(m.At(x, 1)).(color.Gray).Y }
	if light(2*pane+gap) >= light(4*pane+gap-1) {
		t.Errorf("covered is as light as uncovered")
	}
}

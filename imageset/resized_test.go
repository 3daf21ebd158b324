package imageset

import (
	"bytes"
	"testing"
)

// A Transform that only resizes makes the same picture.
func TestResized(t *testing.T) {
	img := &Image{Width: 30, Height: 20}
	for i := range 3 * 30 * 20 {
		img.Pix = append(img.Pix, uint8(i*i*7))
	}
	for _, f := range []Filter{Bilinear, Bicubic} {
		got, err := img.Resized(21, 14, f)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Transform{Resize: 14, Filter: f, Std: [3]float32{1, 1, 1}}.Pixels(img)
		if err != nil {
			t.Fatal(err)
		}
		if got.Width != 21 || got.Height != 14 || !bytes.Equal(got.Pix, want.Pix) {
			t.Errorf("filter %v: another picture than the transform's", f)
		}
	}
	for _, size := range [][2]int{{0, 5}, {5, -1}, {1 << 20, 5}} {
		if _, err := img.Resized(size[0], size[1], Bilinear); err == nil {
			t.Errorf("resizing to %v is accepted", size)
		}
	}
	if _, err := (&Image{Width: 2, Height: 2}).Resized(1, 1, Bilinear); err == nil {
		t.Error("a picture without bytes is resized")
	}
}

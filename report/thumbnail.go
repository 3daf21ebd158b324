package report

import (
	"bytes"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"path/filepath"
	"slices"

	"golang.org/x/image/draw"

	"nac/imageset"
	"nac/openood"
)

// shown is how many images of each set are shown.
const shown = 8

// confusing are the images of one set that the detector takes for the other kind.
type confusing struct {
	Set     string
	Group   string
	About   string
	Images  []thumbnail
	Missing int // that could not be read
}

type thumbnail struct {
	Source        template.URL
	Width, Height int
	Tiny          bool // to be shown larger, pixel by pixel
	Name, Path    string
	Prediction    string
	Score         float64
	Share         float64 // of the other kind's images that look less in-distribution
}

// mostConfusing returns the OOD images with the highest and the ID images with
// the lowest scores.
func mostConfusing(p Page, key string, test *openood.SetScores, sets []oodSet) (all []confusing) {
	if p.Open == nil {
		return nil
	}
	id := scoresOf(test, key)
	sorted := slices.Sorted(slices.Values(id))
	for _, s := range sets {
		scores := scoresOf(s.scores, key)
		c := confusing{Set: s.Name, Group: s.Group + "-OOD", About: "highest scores; percentages: ID test images that score less"}
		c.add(p, s.scores, scores, order(scores, true), sorted)
		all = append(all, c)
	}
	c := confusing{Set: "ID test images", Group: "ID", About: "lowest scores"}
	c.add(p, test, id, order(id, false), nil)
	return append(all, c)
}

// order returns the indices of the highest or lowest scores.
func order(scores []float64, highest bool) []int {
	indices := make([]int, len(scores))
	for i := range indices {
		indices[i] = i
	}
	slices.SortStableFunc(indices, func(a, b int) int {
		switch {
		case scores[a] == scores[b]:
			return 0
		case scores[a] < scores[b] == highest:
			return 1
		}
		return -1
	})
	return indices[:min(shown, len(indices))]
}

func (c *confusing) add(p Page, set *openood.SetScores, scores []float64, indices []int, others []float64) {
	for _, i := range indices {
		t := thumbnail{
			Path: set.Paths[i], Name: filepath.Base(filepath.ToSlash(set.Paths[i])), Score: scores[i],
			Prediction: className(p.Classes, set.Predictions[i]),
		}
		if set.Labels[i] >= 0 && set.Labels[i] != set.Predictions[i] {
			t.Prediction += ", is " + className(p.Classes, set.Labels[i])
		}
		if n, _ := slices.BinarySearch(others, scores[i]); len(others) > 0 {
			t.Share = float64(n) / float64(len(others))
		}
		img, err := p.Open(set.Paths[i])
		if err == nil {
			err = t.draw(img)
		}
		if err != nil {
			c.Missing++
			continue
		}
		c.Images = append(c.Images, t)
	}
}

// maxThumbnail is the longest side of a thumbnail.
const maxThumbnail = 112

func (t *thumbnail) draw(img *imageset.Image) error {
	full := image.NewNRGBA(image.Rect(0, 0, img.Width, img.Height))
	for i := range img.Width * img.Height {
		copy(full.Pix[4*i:], img.Pix[3*i:3*i+3])
		full.Pix[4*i+3] = 255
	}
	t.Width, t.Height = img.Width, img.Height
	var b bytes.Buffer
	if long := max(img.Width, img.Height); long > maxThumbnail {
		t.Width, t.Height = max(img.Width*maxThumbnail/long, 1), max(img.Height*maxThumbnail/long, 1)
		small := image.NewNRGBA(image.Rect(0, 0, t.Width, t.Height))
		draw.CatmullRom.Scale(small, small.Rect, full, full.Rect, draw.Src, nil)
		if err := jpeg.Encode(&b, small, &jpeg.Options{Quality: 82}); err != nil {
			return err
		}
		t.Source = dataLink("image/jpeg", b.Bytes())
		return nil
	}
	t.Tiny = true
	var small image.Image = full
	if grey := asGrey(full); grey != nil {
		small = grey
	}
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small); err != nil {
		return err
	}
	t.Source = dataLink("image/png", b.Bytes())
	return nil
}

// asGrey returns the image with one channel if it has no colour, else nil.
func asGrey(m *image.NRGBA) image.Image {
	g := image.NewGray(m.Rect)
	for i := range g.Pix {
		c := color.NRGBA{m.Pix[4*i], m.Pix[4*i+1], m.Pix[4*i+2], 255}
		if c.R != c.G || c.G != c.B {
			return nil
		}
		g.Pix[i] = c.R
	}
	return g
}

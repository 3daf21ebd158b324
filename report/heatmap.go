package report

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"math"
	"slices"

	"nac/coverage"
)

// A map has at most so many rows of neurons and columns of bins; more are joined.
const (
	mapRows    = 192
	mapColumns = 160
)

// Map shows what ID training images cover in one layer: a row for each neuron (or
// the mean of some), a column for each bin of its state, from low to high.
type Map struct {
	Settings coverage.LayerSettings
	Neurons  int
	Samples  int64
	// Reached is the share of bins with a state in them, Covered the mean coverage of
	// those.
	Reached, Covered float64
	// First and Last are the outermost bins of M-1 that any neuron reaches. The
	// picture ends there.
	First, Last int
	picture     []byte // PNG
}

// Maps draws the layers of a coverage.
func Maps(c *coverage.Coverage) ([]Map, error) {
	maps := make([]Map, len(c.Layers))
	for i, l := range c.Layers {
		m := &maps[i]
		*m = Map{Settings: l.Settings(), Neurons: l.Channels(), Samples: l.Samples()}
		if err := m.draw(l.Counts()); err != nil {
			return nil, fmt.Errorf("report: coverage of layer %s: %w", m.Settings.Layer, err)
		}
	}
	return maps, nil
}

func (m *Map) draw(counts []uint32) error {
	bins, full := m.Settings.M-1, float64(m.Settings.O)
	order := make([]int, m.Neurons)
	centre := make([]float64, m.Neurons)
	m.First, m.Last = bins, -1
	reached := 0
	for n := range m.Neurons {
		order[n] = n
		var sum, at float64
		for b, count := range counts[n*bins : (n+1)*bins] {
			if count == 0 {
				continue
			}
			reached++
			m.First, m.Last = min(m.First, b), max(m.Last, b)
			m.Covered += min(float64(count)/full, 1)
			sum += float64(count)
			at += float64(b) * float64(count)
		}
		centre[n] = at / max(sum, 1)
	}
	if reached == 0 {
		m.First, m.Last = 0, bins-1
	}
	m.Reached = float64(reached) / float64(len(counts))
	m.Covered /= float64(max(reached, 1))
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(centre[a], centre[b]) })

	rows, columns := min(m.Neurons, mapRows), min(m.Last-m.First+1, mapColumns)
	sums, cells := make([]float64, rows*columns), make([]float64, rows*columns)
	for i, n := range order {
		for b := m.First; b <= m.Last; b++ {
			at := i*rows/m.Neurons*columns + (b-m.First)*columns/(m.Last-m.First+1)
			sums[at] += min(float64(counts[n*bins+b])/full, 1)
			cells[at]++
		}
	}
	picture := image.NewPaletted(image.Rect(0, 0, columns, rows), mapColours)
	for i, s := range sums {
		picture.Pix[i] = uint8(math.Ceil(s / cells[i] * (mapLevels - 1))) // no trace is lost
	}
	var b bytes.Buffer
	err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, picture)
	m.picture = b.Bytes()
	return err
}

// Source is the picture as a link that holds it.
func (m Map) Source() template.URL { return dataLink("image/png", m.picture) }

func dataLink(kind string, data []byte) template.URL {
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data))
}

const mapLevels = 64

// mapColours run from dark to light through blue and green, evenly in lightness,
// so that they read in grey too.
var mapColours = func() color.Palette {
	stops := [][3]float64{{38, 25, 64}, {52, 74, 140}, {35, 128, 142}, {62, 178, 112}, {170, 218, 70}, {253, 240, 120}}
	var p color.Palette
	for i := range mapLevels {
		at := float64(i) / (mapLevels - 1) * float64(len(stops)-1)
		k := min(int(at), len(stops)-2)
		mix := func(c int) uint8 {
			return uint8(math.Round(stops[k][c] + (at-float64(k))*(stops[k+1][c]-stops[k][c])))
		}
		p = append(p, color.NRGBA{mix(0), mix(1), mix(2), 255})
	}
	return p
}()

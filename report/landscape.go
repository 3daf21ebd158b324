package report

import (
	"fmt"
	"slices"
)

// Landscape is what a parameter search found: the outcome of every combination
// that was evaluated.
type Landscape struct {
	// Layers names the layers, and Points[i].Choices the setting of each.
	Layers []string
	Points []Point
	// Best is the index of the combination that was chosen.
	Best int
}

// Point is one combination.
type Point struct {
	// Choices are the layers' settings in words, as "M=50 O=50 alpha=100".
	Choices []string
	// AUROC and FPR95 are those of ID against OOD validation images; TrainAUROC, if it is
	// known, that of training images not fitted on against ID validation images.
	AUROC, FPR95 float64
	TrainAUROC   *float64
}

// strip is one setting of one layer: the AUROCs of all combinations with it.
type strip struct {
	Name              string
	Low, Middle, High float64 // fractions
	X0, XM, X1        float64 // where they are drawn
	Chosen            bool
}

type layerStrips struct {
	Layer  string
	Strips []strip
}

// landscapeView is a Landscape made ready to be drawn.
type landscapeView struct {
	Count     int
	Best      Point
	BestText  []string
	Layers    []layerStrips
	Low, High float64 // the ends of the strips
}

const stripLeft, stripWidth = 4, 292

func newLandscape(l *Landscape) (*landscapeView, error) {
	if l == nil || len(l.Points) == 0 {
		return nil, nil
	}
	if l.Best < 0 || l.Best >= len(l.Points) {
		return nil, fmt.Errorf("the search's best combination is number %d of %d", l.Best, len(l.Points))
	}
	v := &landscapeView{Count: len(l.Points), Best: l.Points[l.Best]}
	low, high := l.Points[0].AUROC, l.Points[0].AUROC
	for i, p := range l.Points {
		if len(p.Choices) != len(l.Layers) {
			return nil, fmt.Errorf("combination %d of the search has %d choices for %d layers", i, len(p.Choices), len(l.Layers))
		}
		low, high = min(low, p.AUROC), max(high, p.AUROC)
	}
	if high-low < 1e-6 {
		low, high = low-5e-4, high+5e-4
	}
	x := func(a float64) float64 { return stripLeft + stripWidth*(a-low)/(high-low) }
	v.Low, v.High = low, high
	for k, layer := range l.Layers {
		of := map[string][]float64{}
		var names []string
		for _, p := range l.Points {
			c := p.Choices[k]
			if of[c] == nil {
				names = append(names, c)
			}
			of[c] = append(of[c], p.AUROC)
		}
		strips := layerStrips{Layer: layer}
		for _, name := range names {
			a := slices.Sorted(slices.Values(of[name]))
			s := strip{Name: name, Low: a[0], Middle: a[len(a)/2], High: a[len(a)-1], Chosen: name == v.Best.Choices[k]}
			s.X0, s.XM, s.X1 = x(s.Low), x(s.Middle), x(s.High)
			strips.Strips = append(strips.Strips, s)
		}
		v.Layers = append(v.Layers, strips)
		v.BestText = append(v.BestText, layer+": "+v.Best.Choices[k])
	}
	return v, nil
}

package detector

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
)

// layersGolden is what bench/nac-auto/golden.py computed with scikit-learn.
type layersGolden struct {
	Classes       int
	Labels        []int
	Score         []float64
	Train, Images map[string][]float32
}

func (g *layersGolden) inputs(from map[string][]float32) *Inputs {
	in := &Inputs{N: len(from["feature"]) / 3, Feature: from["feature"]}
	in.Logits = make([]float32, in.N*g.Classes)
	twice := make([]float32, len(in.Feature))
	for i, v := range in.Feature {
		twice[i] = 2 * v
	}
	in.States = []coverage.States{{Layer: "pool", Z: twice}, {Layer: "early", Z: from["early"]}, {Layer: "late", Z: from["late"]}}
	return in
}

func TestMDSLayers(t *testing.T) {
	raw, err := os.ReadFile("testdata/mds_layers.json")
	if err != nil {
		t.Fatal(err)
	}
	var g layersGolden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	network := Network{Classes: g.Classes, Features: 3, Channels: map[string]int{"pool": 3, "early": 5, "late": 4}}
	d, err := New("mds_layers", Settings{LayerNames: []string{"pool", "early", "late"}})
	if err != nil {
		t.Fatal(err)
	}
	train, images := g.inputs(g.Train), g.inputs(g.Images)
	train.Labels = g.Labels
	fitOn(t, d, network, train, nil, 7)
	if got := d.Needs(network, Scoring).Layers; !slices.Equal(got, []string{"early", "late"}) {
		t.Errorf("it reads %q, want all but the feature's layer", got)
	}
	got := make([]float64, images.N)
	if err := d.Score(images, got); err != nil {
		t.Fatal(err)
	}
	for i, want := range g.Score {
		if math.Abs(got[i]-want) > 1e-9*math.Abs(want) {
			t.Errorf("score %d is %v, want %v", i, got[i], want)
		}
	}

	// The feature alone is not left out.
	if d, err = New("mds_layers", Settings{LayerNames: []string{"pool"}}); err != nil {
		t.Fatal(err)
	}
	fitOn(t, d, network, train, nil, 7)
	if got := d.Needs(network, Scoring).Layers; !slices.Equal(got, []string{"pool"}) {
		t.Errorf("it reads %q, want pool", got)
	}
	if err := d.Score(images, got); err != nil {
		t.Fatal(err)
	}
	if got[0] == got[1] {
		t.Errorf("all scores are %v", got[0])
	}
}

func TestMDSLayersRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		settings Settings
		change   func(*Inputs)
		want     string
	}{
		"no layers":          {Settings{}, nil, "no layers"},
		"a layer twice":      {Settings{LayerNames: []string{"early", "early"}}, nil, "twice"},
		"an unknown layer":   {Settings{LayerNames: []string{"early", "attic"}}, nil, `no layer "attic"`},
		"states missing":     {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { in.States = nil }, "missing"},
		"states too short":   {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { in.States[0].Z = in.States[0].Z[:1] }, "early"},
		"NaN":                {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { in.States[0].Z[2] = float32(math.NaN()) }, "not finite"},
		"no labels":          {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { in.Labels = nil }, "labels"},
		"a wrong label":      {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { in.Labels[1] = -1 }, "label"},
		"an image a class":   {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { in.Labels = []int{0, 1} }, "vary"},
		"the same each time": {Settings{LayerNames: []string{"early"}}, func(in *Inputs) { clear(in.States[0].Z) }, "vary"},
	} {
		t.Run(name, func(t *testing.T) {
			network := Network{Classes: 2, Features: 3, Channels: map[string]int{"early": 2}}
			in := &Inputs{N: 2, Logits: make([]float32, 4), Feature: make([]float32, 6), Labels: []int{0, 0},
				States: []coverage.States{{Layer: "early", Z: []float32{1, 2, 3, 5}}}}
			if c.change != nil {
				c.change(in)
			}
			err := tryAll(t, "mds_layers", network, c.settings, in, in, in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error about %q", err, c.want)
			}
		})
	}
}

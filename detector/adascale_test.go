package detector

import (
	"math"
	"slices"
	"testing"
)

func init() {
	for _, key := range []string{"adascale_a", "adascale_l"} {
		toyParams[key+".percentile_low"], toyParams[key+".percentile_high"] = 1, 10
	}
}

// What the moves of single values do, by hand.
func TestMoves(t *testing.T) {
	image := []float32{1, 2, 3, 4, 5, 6}
	for _, c := range []struct {
		name     string
		move     Move
		gradient []float32
		want     []float32
	}{
		{"largest", LargestStep{[3]float32{1, 10, 100}}, []float32{1, 0, -3, 2, 0, 0}, []float32{1, 2, 13, 4, 5, 6}},
		{"largest, all zero", LargestStep{[3]float32{1, 10, 100}}, make([]float32, 6), []float32{0, 2, 3, 4, 5, 6}},
		{"first of equal ones", LargestStep{[3]float32{1, 10, 100}}, []float32{0, 0, 0, 0, 2, -2}, []float32{1, 2, 3, 4, -95, 6}},
		{"smallest", SmallestStep{0.5, 0.5}, []float32{-1, 2, 0, -3, 1.5, 9}, []float32{0.5, 2, 3, 4, 5.5, 6}},
		{"none", SmallestStep{0.1, 0.5}, []float32{-1, 2, 0, -3, 1.5, 9}, image},
		{"all", SmallestStep{1, 0.5}, []float32{-1, 2, 1, -3, 1.5, 9}, []float32{0.5, 2.5, 3.5, 3.5, 5.5, 6.5}},
		{"equal ones", SmallestStep{0.5, 0.5}, []float32{1, 1, 1, 1, 1, 1}, []float32{1.5, 2.5, 3.5, 4, 5, 6}},
	} {
		got := make([]float32, len(image))
		c.move.Apply(image, c.gradient, got, 3)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// An image without positive features is scaled by nothing.
func TestAdaScaleOfZeros(t *testing.T) {
	m := newMade()
	for _, key := range []string{"adascale_a", "adascale_l"} {
		d, err := New(key, Settings{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Begin(m.network); err != nil {
			t.Fatal(err)
		}
		pass := d.(*adaScale).pass()
		with := func(in *Inputs) *Inputs {
			out := *in
			out.Passes = []PassInputs{{Pass: pass, Inputs: in}}
			return &out
		}
		if err := d.(ValidationFitter).FitValidation(with(m.val)); err != nil {
			t.Fatal(err)
		}
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		zeros := &Inputs{N: 1, Logits: make([]float32, 10), Feature: make([]float32, 64)}
		dst := make([]float64, 1)
		if err := d.Score(with(zeros), dst); err != nil {
			t.Fatal(err)
		}
		want := math.Log(10) // of equal logits
		if key == "adascale_a" {
			logits := make([]float64, 10)
			want = logSumExp(widen(m.network.Bias, logits), 1)
		}
		if math.Abs(dst[0]-want) > 1e-12 {
			t.Errorf("%s: %v, want %v", key, dst[0], want)
		}
	}
}

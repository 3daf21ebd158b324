package metric

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// scoresOf draws scores with many ties, few, or none.
func scoresOf(r *rand.Rand, n, levels int, shift float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = r.NormFloat64() + shift
		if levels > 0 {
			v[i] = math.Round(v[i]*float64(levels)) / float64(levels)
		}
	}
	return v
}

// tiesOf counts scores as a distributed sort does: through a map of ordered bits.
func tiesOf(id, ood []float64) (ties []Tie) {
	counts := map[uint64]Tie{}
	for _, s := range id {
		t := counts[OrderedBits(s)]
		t.ID++
		counts[OrderedBits(s)] = t
	}
	for _, s := range ood {
		t := counts[OrderedBits(s)]
		t.OOD++
		counts[OrderedBits(s)] = t
	}
	var keys []uint64
	for k := range counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		ties = append(ties, counts[k])
	}
	return ties
}

func TestTiesAreOOD(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 0))
	for round := range 400 {
		levels := []int{0, 1, 3, 50}[round%4]
		id, ood := scoresOf(r, 1+r.IntN(200), levels, 1), scoresOf(r, 1+r.IntN(200), levels, 0)
		if round%5 == 0 {
			id[0], ood[0] = math.Copysign(0, -1), 0 // equal
		}
		want, err := OOD(id, ood)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OODOfTies(tiesOf(id, ood))
		if err != nil || got != want {
			t.Fatalf("%d levels: %+v, %v, want %+v", levels, got, err, want)
		}
	}
	for _, ties := range [][]Tie{nil, {{3, 0}}, {{0, 2}}} {
		if _, err := OODOfTies(ties); !errors.Is(err, ErrEmpty) {
			t.Errorf("%v: %v", ties, err)
		}
	}
	if _, err := OODOfTies([]Tie{{1, 1}, {-1, 3}}); err == nil {
		t.Error("a negative count")
	}
}

func TestSketchBoundsAUROC(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 0))
	for round := range 100 {
		scale := math.Pow(10, float64(round%7-3))
		var parts [3]Sketch
		id, ood := scoresOf(r, 2000, round%4*10, 0.5), scoresOf(r, 1500, round%4*10, -0.5)
		add := func(scores []float64, isOOD bool) {
			for i := range scores {
				scores[i] *= scale
				if err := parts[i%3].Add(scores[i], isOOD); err != nil {
					t.Fatal(err)
				}
			}
		}
		add(id, false)
		add(ood, true)
		var sum Sketch
		for _, p := range []int{2, 0, 1} {
			sum.Merge(parts[p])
		}
		want, err := AUROC(id, ood)
		if err != nil {
			t.Fatal(err)
		}
		low, high, err := sum.AUROC()
		if err != nil || want < low || want > high {
			t.Fatalf("AUROC %v is not in %v to %v (%v)", want, low, high, err)
		}
		if round%4 == 0 && high-low > 2e-3 { // without ties only neighbours share a bin
			t.Errorf("bounds %v apart", high-low)
		}
	}
	var s Sketch
	if err := s.Add(math.NaN(), true); err == nil {
		t.Error("NaN")
	}
	if _, _, err := s.AUROC(); !errors.Is(err, ErrEmpty) {
		t.Errorf("nothing: %v", err)
	}
}

func TestOrderedBits(t *testing.T) {
	values := []float64{-math.MaxFloat64, -2, -1, -1e-300, -5e-324, 0, 5e-324, 1e-9, 1, 1.0000000000000002, 7, math.MaxFloat64}
	for i := 1; i < len(values); i++ {
		if OrderedBits(values[i-1]) >= OrderedBits(values[i]) {
			t.Errorf("%v is not below %v", values[i-1], values[i])
		}
	}
	if OrderedBits(0) != OrderedBits(math.Copysign(0, -1)) {
		t.Error("0 and -0 differ")
	}
}

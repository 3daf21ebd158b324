package dg

import (
	"encoding/json"
	"math"
	"testing"

	"nac/weights"
)

// Where the valley begins and ends, and what the mean over it is, against the
// reference's LossValley.
func TestSWADLikeReference(t *testing.T) {
	var want struct {
		Every int
		Cases []struct {
			SWADSettings
			Losses          []float64
			Dead, Converged int
			Start, End      int
			Count           int
			Weights         []float64
		}
	}
	if err := json.Unmarshal([]byte(reference(t).Metadata()["swad"]), &want); err != nil {
		t.Fatal(err)
	}
	never, dead, single := 0, 0, 0
	for i, c := range want.Cases {
		v, died := newLossValley(c.SWADSettings), -1
		sd := weights.New("three numbers")
		data := make([]float32, 3)
		sd.Set("weight", weights.Tensor{Shape: []int{1, 3}, Data: data})
		for step := range (len(c.Losses)-1)*want.Every + 1 {
			data[0], data[1], data[2] = float32(step), float32(step*step%101), float32(step%7)
			v.step(step, sd)
			if step%want.Every == 0 {
				v.checkpoint(c.Losses[step/want.Every])
				if v.Dead && died < 0 {
					died = step
				}
			}
		}
		mean, first, last := v.end()
		tensor, _ := mean.Lookup("weight")
		if died != c.Dead || v.Converged != c.Converged {
			t.Errorf("case %d: converged at step %d, dead at %d, want %d and %d", i, v.Converged, died, c.Converged, c.Dead)
		}
		if c.Converged >= 0 && (first != c.Start || last != c.End || v.mean.Count() != c.Count) {
			t.Errorf("case %d: %d segments of steps %d to %d, want %d of %d to %d", i, v.mean.Count(), first, last, c.Count, c.Start, c.End)
		}
		for k, w := range c.Weights {
			if math.Abs(float64(tensor.Data[k])-w) > 1e-5*(1+math.Abs(w)) {
				t.Errorf("case %d: weight %d is %v, want %v", i, k, tensor.Data[k], w)
			}
		}
		if c.Converged < 0 {
			never++
		}
		if c.Dead >= 0 {
			dead++
		}
		if c.Converged >= 0 && c.Count == 0 {
			single++
		}
	}
	if len(want.Cases) != 46 || never == 0 || dead == 0 || single == 0 {
		t.Errorf("%d cases: %d without a valley, %d of dead ones, %d of a single segment", len(want.Cases), never, dead, single)
	}
}

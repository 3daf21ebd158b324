package dg

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nac/arch"
	"nac/nn"
	"nac/train"
	"nac/weights"
)

// SWADSettings are those of stochastic weight averaging, densely (Cha et al., 2021): the
// mean of the weights of every step within the valley that the validation loss lies in.
type SWADSettings struct {
	// Converge checkpoints without a lower loss than the first of them begin the valley.
	Converge int `json:"n_converge"`
	// Tolerance checkpoints whose losses are all above the mean of the first ones by
	// more than Ratio end it.
	Tolerance int     `json:"n_tolerance"`
	Ratio     float64 `json:"tolerance_ratio"`
}

// DefaultSWAD are the reference's settings.
func DefaultSWAD() SWADSettings { return SWADSettings{Converge: 3, Tolerance: 6, Ratio: 0.3} }

// Validate says what is wrong with the settings; nil are right.
func (s *SWADSettings) Validate() error {
	const most = 1000
	switch {
	case s == nil:
		return nil
	case s.Converge < 1 || s.Converge > most || s.Tolerance < 1 || s.Tolerance > most:
		return fmt.Errorf("SWAD: n_converge is %d, n_tolerance %d; they must be 1 to %d", s.Converge, s.Tolerance, most)
	case !finite(s.Ratio):
		return fmt.Errorf("SWAD: tolerance_ratio is %v; it must be 0 or above", s.Ratio)
	}
	return nil
}

// segment is the steps between two checkpoints, and the place of their mean.
type segment struct {
	Start int     `json:"start"`
	End   int     `json:"end"`
	Loss  float64 `json:"loss"`
	Slot  int     `json:"slot"`
}

// valleyState is what a lossValley remembers beside tensors.
type valleyState struct {
	// Recent are the last segments, the oldest first; Slot and Start are of the one that
	// goes on.
	Recent []segment `json:"recent"`
	Slot   int       `json:"slot"`
	Start  int       `json:"start"`
	End    int       `json:"end"`
	// Converged is the last step of the valley's first segment, -1 before there is one.
	Converged int     `json:"converged"`
	Threshold float64 `json:"threshold"`
	Dead      bool    `json:"dead"`
	// First and Last are the steps of the mean.
	First int `json:"first"`
	Last  int `json:"last"`
}

// lossValley finds the valley and averages over it, as the reference's LossValley does:
// by segments, each the mean of its steps, all weighing the same.
type lossValley struct {
	settings SWADSettings
	slots    []*train.Average // of recent segments and of the one that goes on
	mean     *train.Average
	valleyState
}

func newLossValley(s SWADSettings) *lossValley {
	v := &lossValley{settings: s, mean: train.NewAverage(0), valleyState: valleyState{Converged: -1, First: -1, Last: -1}}
	for range max(s.Converge, s.Tolerance) + 1 {
		v.slots = append(v.slots, train.NewAverage(0))
	}
	return v
}

// fits tells whether a loaded state is one of these settings.
func (v *lossValley) fits(s valleyState) bool {
	in := func(slot int) bool { return slot >= 0 && slot < len(v.slots) }
	return in(s.Slot) && len(s.Recent) < len(v.slots) && !slices.ContainsFunc(s.Recent, func(s segment) bool { return !in(s.Slot) })
}

// averages are all, in an order that does not change.
func (v *lossValley) averages() []*train.Average {
	return append([]*train.Average{v.mean}, v.slots...)
}

// step adds the weights after a step to the segment.
func (v *lossValley) step(step int, sd *weights.StateDict) {
	if v.Dead {
		return
	}
	a := v.slots[v.Slot]
	if a.Count() == 0 {
		v.Start = step
	}
	v.End = step
	a.Update(sd)
}

// add gives a segment's mean to the valley's.
func (v *lossValley) add(s segment) {
	v.mean.Update(v.slots[s.Slot].StateDict())
	if v.mean.Count() == 1 {
		v.First = s.Start
	}
	v.Last = s.End
}

// latest are the last n segments.
func latest(of []segment, n int) []segment { return of[max(0, len(of)-n):] }

// lowest is the place of the first smallest loss.
func lowest(of []segment) (at int) {
	for i, s := range of {
		if s.Loss < of[at].Loss {
			at = i
		}
	}
	return at
}

// checkpoint ends a segment with the validation loss at its end.
func (v *lossValley) checkpoint(loss float64) {
	if v.Dead || v.slots[v.Slot].Count() == 0 {
		return
	}
	v.Recent = append(v.Recent, segment{v.Start, v.End, loss, v.Slot})
	v.Recent = latest(v.Recent, len(v.slots)-1)
	v.look()
	v.Slot = (v.Slot + 1) % len(v.slots)
	v.slots[v.Slot].Reset()
}

func (v *lossValley) look() {
	c, t := v.settings.Converge, v.settings.Tolerance
	window, smooth := latest(v.Recent, c), latest(v.Recent, t)
	if v.Converged < 0 {
		if len(window) < c || lowest(window) != 0 {
			return
		}
		v.Converged = window[0].End
		v.mean.Begin(v.slots[window[0].Slot].StateDict())
		sum := 0.0
		for _, s := range window {
			sum += s.Loss
		}
		v.Threshold = sum / float64(c) * (1 + v.settings.Ratio)
		switch {
		case t < c:
			for _, s := range window[1 : 1+c-t] {
				v.add(s)
			}
		case t > c:
			before := smooth[:min(t-c+1, len(smooth))]
			start := 0
			for i := len(before) - 1; i >= 0; i-- {
				if before[i].Loss > v.Threshold {
					start = i + 1
					break
				}
			}
			for i := start + 1; i < len(before); i++ {
				v.add(before[i])
			}
		}
		return
	}
	if smooth[0].End < v.Converged {
		return
	}
	if smooth[lowest(smooth)].Loss > v.Threshold {
		v.Dead = true
		return
	}
	v.add(smooth[0])
}

// end returns the mean; of a run that never converged that of its last segment.
// Nothing may be added afterwards.
func (v *lossValley) end() (sd *weights.StateDict, first, last int) {
	if v.Converged < 0 {
		s := v.Recent[len(v.Recent)-1]
		return v.slots[s.Slot].StateDict(), s.Start, s.End
	}
	if !v.Dead {
		left := latest(v.Recent, v.settings.Tolerance)[1:]
		for ; len(left) > 0 && left[lowest(left)].Loss <= v.Threshold; left = left[1:] {
			v.add(segment{left[0].End, left[0].End, left[0].Loss, left[0].Slot})
		}
	}
	return v.mean.StateDict(), v.First, v.Last
}

// Averaged is what came of SWAD.
type Averaged struct {
	// First and Last are the steps of the mean; -1 if it is that of one segment.
	First int `json:"start_step"`
	Last  int `json:"end_step"`
	// Accuracies, as in Record.
	TestIn   float64 `json:"test_in"`
	TestOut  float64 `json:"test_out"`
	TrainOut float64 `json:"train_out"`
	// Checkpoint is the weights' file; empty if it was not kept.
	Checkpoint string `json:"checkpoint,omitempty"`

	sd *weights.StateDict
}

// refreshSteps is how many steps' images batch norms take new statistics of, where they
// are trained.
const refreshSteps = 500

// average makes and judges SWAD's mean after the last step.
func (s *running) average(ctx context.Context) (*Averaged, error) {
	sd, first, last := s.valley.end()
	hasNorms := slices.ContainsFunc(sd.Names(), func(n string) bool { return strings.HasSuffix(n, ".running_mean") })
	if hasNorms && !s.HParams.FreezeBN {
		t, err := arch.NewTrainee(s.Arch, sd, arch.TrainOptions{
			TrainOptions: nn.TrainOptions{Kernel: s.Kernel, Workers: s.Workers, MaxBatch: len(s.batch.Labels)}, Dropout: s.HParams.Dropout,
		})
		if err != nil {
			return nil, err
		}
		loader := train.NewLoader(ctx, t.InputSize[0]*t.InputSize[1]*t.InputSize[2], s.Workers, s.plan(s.Rounded(), s.Rounded()+refreshSteps))
		if err := train.RefreshNorms(t, loader); err != nil {
			return nil, err
		}
	}
	m, err := arch.Load(s.Arch, sd)
	if err != nil {
		return nil, err
	}
	a := &Averaged{First: first, Last: last, sd: sd}
	j := s.judgeOf()
	accuracy := func(of *subset) (float64, error) {
		v, err := j.Accuracy(ctx, m, of.first(s.EvalImages))
		return v.Accuracy, err
	}
	for i := range s.Data.Domains {
		out, err := accuracy(s.out[i])
		if err != nil {
			return nil, err
		}
		if !slices.Contains(s.test, i) {
			a.TrainOut += out / float64(len(s.others))
			continue
		}
		in, err := accuracy(s.in[i])
		if err != nil {
			return nil, err
		}
		a.TestOut += out / float64(len(s.test))
		a.TestIn += in / float64(len(s.test))
	}
	return a, nil
}

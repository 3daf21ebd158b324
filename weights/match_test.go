package weights

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func dict3() *StateDict {
	s := New("net.pth")
	s.Set("conv.weight", Tensor{Shape: []int{2, 3}, Data: make([]float32, 6)})
	s.Set("bn.num_batches_tracked", Tensor{Data: []float32{5}})
	s.Set("scale", Tensor{Data: []float32{1}})
	return s
}

func TestMatch(t *testing.T) {
	want := []Spec{{"conv.weight", []int{2, 3}}, {"scale", nil}}
	if err := dict3().Match(want); err != nil {
		t.Error(err)
	}
	if err := dict3().Match(append(want, Spec{"bn.num_batches_tracked", []int{}})); err != nil {
		t.Error("asked for, the counter is there:", err)
	}
	for _, c := range []struct {
		what string
		edit func(s *StateDict)
		want []Spec
		err  string
	}{
		{"missing", nil, append(want, Spec{"fc.bias", []int{2}}, Spec{"fc.weight", []int{2, 2}}), "2 missing: fc.bias, fc.weight"},
		{"unexpected", nil, want[:1], "1 unexpected: scale"},
		{"like the counter", func(s *StateDict) { s.Set("my_num_batches_tracked", Tensor{Data: []float32{1}}) }, want, "1 unexpected: my_num_batches_tracked"},
		{"shape", nil, []Spec{{"conv.weight", []int{3, 2}}, {"scale", []int{1}}}, "2 of the wrong shape: conv.weight is 2x3, want 3x2, scale is a scalar, want 1"},
		{"data", func(s *StateDict) { s.Set("scale", Tensor{}) }, want, "scale is a scalar but holds 0 values"},
		{"negative", func(s *StateDict) { s.Set("scale", Tensor{Shape: []int{-1}}) }, []Spec{want[0], {"scale", []int{-1}}}, "scale is -1 but holds 0 values"},
		{"NaN", func(s *StateDict) {
			s.Set("conv.weight", Tensor{[]int{2, 3}, []float32{0, 1, float32(math.NaN()), 3, float32(math.Inf(1)), 5}})
		}, want, "1 not finite: conv.weight (2 of 6 values, first NaN at 2)"},
		{"infinity", func(s *StateDict) { s.Set("scale", Tensor{Data: []float32{float32(math.Inf(-1))}}) }, want, "scale (1 of 1 values, first -Inf at 0)"},
		{"all at once", func(s *StateDict) { s.Set("scale", Tensor{Data: []float32{float32(math.NaN())}}) },
			[]Spec{{"conv.weight", []int{1}}, {"scale", nil}, {"x", nil}},
			"1 missing: x; 1 of the wrong shape: conv.weight is 2x3, want 1; 1 not finite: scale"},
	} {
		s := dict3()
		if c.edit != nil {
			c.edit(s)
		}
		err := s.Match(c.want)
		if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "net.pth") {
			t.Errorf("%s: %v, want %q", c.what, err, c.err)
		}
	}
}

func TestMatchAbbreviates(t *testing.T) {
	var want []Spec
	for i := range 60 {
		want = append(want, Spec{fmt.Sprintf("layer%d.weight", i), []int{1}})
	}
	err := New("net.pth").Match(want)
	if err == nil || !strings.Contains(err.Error(), "60 missing: layer0.weight, ") || !strings.HasSuffix(err.Error(), "layer9.weight, ... and 50 more") {
		t.Error(err)
	}
}

// Set replaces in place; order is that of first setting.
func TestStateDictOrder(t *testing.T) {
	s := dict3()
	s.Set("conv.weight", Tensor{Data: []float32{7}})
	if got := strings.Join(s.Names(), " "); got != "conv.weight bn.num_batches_tracked scale" {
		t.Error(got)
	}
	if x, ok := s.Lookup("conv.weight"); !ok || x.Data[0] != 7 {
		t.Error(x, ok)
	}
	if _, ok := s.Lookup("nowhere"); ok {
		t.Error("found what was never set")
	}
}

package coverage

import (
	"slices"
	"testing"
)

// The expected numbers come from NumPy 2.4.6, whose RandomState is frozen:
//
//	numpy.random.RandomState(seed).shuffle(v)

// weighted sums position times value, so that the order matters.
func weighted(v []int, first int) int {
	s := 0
	for i, x := range v {
		s += (i + first) * x
	}
	return s
}

func TestTrainSubset(t *testing.T) {
	labels := make([]int, 60) // three classes, of 24, 12 and 24 samples
	for i := range labels {
		labels[i] = (i*i + 3*i) / 2 % 5
	}
	for _, c := range []struct {
		n    int
		seed uint32
		want []int
	}{
		{20, 1, []int{32, 45, 7, 35, 50, 42, 11, 16, 21, 51, 6, 31, 34, 48, 9, 38, 53, 44}},
		{1000, 1, []int{32, 45, 7, 35, 50, 42, 25, 10, 5, 47, 15, 17, 11, 16, 21, 51, 6, 31, 1, 36, 56, 46, 41, 26, 34, 48, 9, 38, 53, 44, 28, 13, 8, 49, 18, 19}},
		{12, 7, []int{2, 12, 27, 32, 36, 51, 11, 26, 4, 14, 29, 34}},
		{4, 1, []int{32, 11, 34}},
		{13, 4294967295, []int{55, 20, 57, 45, 56, 41, 26, 46, 58, 23, 59, 48}},
		{2, 1, nil},
		{0, 1, nil},
		{-5, 1, nil},
	} {
		if got := TrainSubset(labels, c.n, c.seed); !slices.Equal(got, c.want) {
			t.Errorf("TrainSubset(%d, %d) = %v, want %v", c.n, c.seed, got, c.want)
		}
	}
	if got := TrainSubset(nil, 10, 1); len(got) != 0 {
		t.Errorf("%v of no labels", got)
	}
	cifar := make([]int, 50000)
	for i := range cifar {
		cifar[i] = i % 10
	}
	got := TrainSubset(cifar, 1000, 1)
	if len(got) != 1000 || !slices.Equal(got[:5], []int{27640, 47670, 38140, 34990, 27350}) || weighted(got, 1) != 13274583950 {
		t.Errorf("1000 of 50000: %v, weighted sum %d", got[:5], weighted(got, 1))
	}
}

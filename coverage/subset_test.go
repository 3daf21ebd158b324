package coverage

import (
	"slices"
	"testing"
)

// The expected numbers come from NumPy 2.4.6, whose RandomState is frozen:
//
//	r = numpy.random.RandomState(1); r.randint(0, 2**32, dtype=numpy.uint32)
//	v = list(range(n)); numpy.random.RandomState(1).shuffle(v)

func TestMT19937(t *testing.T) {
	m := newMT19937(1)
	for i, want := range []uint32{1791095845, 4282876139, 3093770124, 4005303368} {
		if got := m.uint32(); got != want {
			t.Errorf("number %d = %d, NumPy %d", i, got, want)
		}
	}
}

func ramp(n int) []int {
	v := make([]int, n)
	for i := range v {
		v[i] = i
	}
	return v
}

// weighted sums position times value, so that the order matters.
func weighted(v []int, first int) int {
	s := 0
	for i, x := range v {
		s += (i + first) * x
	}
	return s
}

func TestShuffle(t *testing.T) {
	v := ramp(20)
	newMT19937(1).shuffle(v)
	if want := []int{3, 16, 6, 10, 2, 14, 4, 17, 7, 1, 13, 0, 19, 18, 9, 15, 8, 12, 11, 5}; !slices.Equal(v, want) {
		t.Errorf("shuffled %v, NumPy %v", v, want)
	}
	v = ramp(5000) // more than the generator's state at once
	newMT19937(1).shuffle(v)
	if want := []int{2764, 4767, 3814, 3499, 2735, 3922, 2701, 1179}; !slices.Equal(v[:8], want) {
		t.Errorf("first of 5000: %v, NumPy %v", v[:8], want)
	}
	if got := weighted(v, 0); got != 31323388987 {
		t.Errorf("weighted sum %d, NumPy 31323388987", got)
	}
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

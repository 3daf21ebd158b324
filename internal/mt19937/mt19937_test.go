package mt19937

import (
	"slices"
	"testing"
)

// The expected numbers come from NumPy 2.4.6, whose RandomState is frozen:
//
//	r = numpy.random.RandomState(1); r.randint(0, 2**32, dtype=numpy.uint32)
//	v = list(range(n)); numpy.random.RandomState(1).shuffle(v)

func TestMT19937(t *testing.T) {
	m := New(1)
	for i, want := range []uint32{1791095845, 4282876139, 3093770124, 4005303368} {
		if got := m.Uint32(); got != want {
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
	New(1).Shuffle(v)
	if want := []int{3, 16, 6, 10, 2, 14, 4, 17, 7, 1, 13, 0, 19, 18, 9, 15, 8, 12, 11, 5}; !slices.Equal(v, want) {
		t.Errorf("shuffled %v, NumPy %v", v, want)
	}
	v = ramp(5000) // more than the generator's state at once
	New(1).Shuffle(v)
	if want := []int{2764, 4767, 3814, 3499, 2735, 3922, 2701, 1179}; !slices.Equal(v[:8], want) {
		t.Errorf("first of 5000: %v, NumPy %v", v[:8], want)
	}
	if got := weighted(v, 0); got != 31323388987 {
		t.Errorf("weighted sum %d, NumPy 31323388987", got)
	}
}

// The expected numbers come from NumPy 2.4.6:
//
//	r = numpy.random.RandomState(1)
//	[r.uniform(0, 1) for _ in range(3)], r.choice([0.0, 0.1, 0.5]), r.choice([0, 1, 2]), r.uniform(-5, -3.5)
func TestUniformAndChoice(t *testing.T) {
	m := New(1)
	for i, want := range []float64{0.417022004702574, 0.7203244934421581, 0.00011437481734488664} {
		if got := m.Float64(); got != want {
			t.Errorf("uniform number %d is %v, NumPy %v", i, got, want)
		}
	}
	for i, want := range []uint32{1, 0} {
		if got := m.UpTo(2); got != want {
			t.Errorf("choice %d is %d, NumPy %d", i, got, want)
		}
	}
	if got := -5 + 1.5*m.Float64(); got != -4.861492107846804 {
		t.Errorf("after choices: %v", got)
	}
}

// The expected numbers come from PyTorch 2.9.1, after torch.manual_seed(0):
//
//	p = torch.randperm(70000); p[:5], (torch.arange(70000) * p).sum(), torch.rand(23333)[:4]
//
// and, after torch.manual_seed(3), torch.rand(1000)[[0, 500, 999]].
func TestLikePyTorch(t *testing.T) {
	if got, want := New(0).TorchPerm(20), []int{4, 5, 13, 19, 7, 14, 3, 6, 9, 17, 11, 2, 16, 18, 10, 12, 15, 8, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("permutation %v, PyTorch %v", got, want)
	}
	m := New(0)
	p := m.TorchPerm(70000)
	if !slices.Equal(p[:5], []int{26044, 34615, 62699, 39172, 46907}) || weighted(p, 0) != 85800088488604 {
		t.Errorf("permutation of 70000: %v, weighted sum %d", p[:5], weighted(p, 0))
	}
	for i, want := range []float32{0.2197231650352478, 0.47536784410476685, 0.9374707937240601, 0.3203713297843933} {
		if got := m.TorchFloat32(); got != want {
			t.Errorf("number %d after the permutation is %v, PyTorch %v", i, got, want)
		}
	}
	m = New(3)
	var all []float32
	for range 1000 {
		all = append(all, m.TorchFloat32())
	}
	if got, want := []float32{all[0], all[500], all[999]}, []float32{0.004263520240783691, 0.6328924894332886, 0.47210055589675903}; !slices.Equal(got, want) {
		t.Errorf("%v, PyTorch %v", got, want)
	}
}

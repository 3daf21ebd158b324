package drift

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

func normal(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

func monitor(t testing.TB, r *rand.Rand, calibration []float64, s Settings) *Monitor {
	t.Helper()
	m, err := New(calibration, s)
	if err != nil {
		t.Fatal(err)
	}
	m.random = r
	return m
}

// runLength counts images to the first alarm, at most limit.
func runLength(t testing.TB, m *Monitor, limit int, next func() float64) int {
	t.Helper()
	for i := 1; i <= limit; i++ {
		alarm, err := m.Add(next())
		if err != nil {
			t.Fatal(err)
		}
		if alarm {
			return i
		}
	}
	return limit
}

// The mean run to a false alarm must be at least what is stated, with calibration sets
// drawn anew (small ones, which a fixed comparison would fail on) and for scores of
// a few values only, all tied. Runs are cut at 20 times the stated length, which can
// only lower the mean.
func TestFalseAlarms(t *testing.T) {
	const stated, runs = 200, 400
	r := rand.New(rand.NewPCG(1, 2))
	for name, next := range map[string]func() float64{
		"continuous": r.NormFloat64,
		"ties":       func() float64 { return float64(r.IntN(4)) },
	} {
		sum, squares := 0.0, 0.0
		for range runs {
			calibration := make([]float64, 50)
			for i := range calibration {
				calibration[i] = next()
			}
			m := monitor(t, r, calibration, Settings{RunLength: stated})
			n := float64(runLength(t, m, 20*stated, next))
			sum += n
			squares += n * n
		}
		mean := sum / runs
		deviation := math.Sqrt((squares/runs - mean*mean) / runs)
		t.Logf("%s: %.0f ± %.0f images to a false alarm, stated %d", name, mean, deviation, stated)
		if mean+3*deviation < stated {
			t.Errorf("%s: mean run of %.0f images (± %.0f), stated are %d", name, mean, deviation, stated)
		}
	}
}

// Scores lower by one standard deviation must be found soon, though a false alarm
// comes once in 100,000 images only; so must higher ones.
func TestDelay(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, shift := range []float64{-2, -1, 1, 2} {
		total := 0
		const runs = 20
		for range runs {
			m := monitor(t, r, normal(r, 2000), Settings{})
			for range 500 {
				if _, err := m.Add(r.NormFloat64()); err != nil {
					t.Fatal(err)
				}
			}
			total += runLength(t, m, 2000, func() float64 { return r.NormFloat64() + shift })
		}
		t.Logf("shift %+.0f: found after %d images", shift, total/runs)
		if total/runs > 100 {
			t.Errorf("shift %+.0f: found after %d images", shift, total/runs)
		}
	}
}

// Conformal p-values must be uniform; the bound is that of KS at a level of 1e-4.
func TestPValuesUniform(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	m := monitor(t, r, normal(r, 100), Settings{})
	const n = 20_000
	p := make([]float64, n)
	for i := range p {
		p[i] = m.pValue(r.NormFloat64())
		m.state.Images++
	}
	slices.Sort(p)
	for i, x := range p {
		if d := math.Abs(x - float64(i)/n); d > 2.23/math.Sqrt(n) {
			t.Fatalf("%d of %d p-values are at most %v", i, n, x)
		}
	}
}

func TestKolmogorovSmirnov(t *testing.T) {
	// scipy.stats.ks_2samp(np.arange(400)/400, np.arange(300)/300+0.1, method="exact")
	a, b := make([]float64, 400), make([]float64, 300)
	for i := range a {
		a[i] = float64(i) / 400
	}
	for i := range b {
		b[i] = float64(i)/300 + 0.1
	}
	d, p := KolmogorovSmirnov(a, b)
	if math.Abs(d-0.1025) > 1e-12 || math.Abs(p/0.051287-1) > 0.02 {
		t.Errorf("D = %v, p = %v", d, p)
	}
	// Published points of Kolmogorov's distribution: 5 % at 1.3581, 1 % at 1.6276.
	const n = 2_000_000
	long, moved := make([]float64, n), make([]float64, n)
	for _, c := range []struct{ x, p float64 }{{1.3581, 0.05}, {1.6276, 0.01}} {
		shift := c.x * math.Sqrt(2.0/n)
		for i := range long {
			long[i], moved[i] = float64(i)/n, float64(i)/n+shift
		}
		if _, p := KolmogorovSmirnov(long, moved); math.Abs(p-c.p) > 0.02*c.p {
			t.Errorf("at %v: p = %v, want %v", c.x, p, c.p)
		}
	}
}

func TestStore(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	calibration := normal(r, 100)
	m := monitor(t, r, calibration, Settings{Window: 7})
	for range 50 {
		if _, err := m.Add(r.NormFloat64()); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "state")
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(map[string]State{"d": m.State()}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(path); err == nil {
		t.Error("opened twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	state, ok, err := s.Load("d")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, ok, err := s.Load("other"); ok || err != nil {
		t.Error(ok, err)
	}
	resumed := monitor(t, r, calibration, Settings{Window: 7})
	if err := resumed.Resume(state); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(resumed.Report(), m.Report()) {
		t.Errorf("stored %+v, resumed %+v", m.Report(), resumed.Report())
	}
	state.Images++
	if err := resumed.Resume(state); err == nil {
		t.Error("a state that contradicts itself was taken up")
	}
	if err := monitor(t, r, calibration[1:], Settings{}).Resume(m.State()); err == nil {
		t.Error("a state of other calibration images was taken up")
	}
	if _, err := m.Add(math.NaN()); err == nil {
		t.Error("NaN was taken for a score")
	}
}

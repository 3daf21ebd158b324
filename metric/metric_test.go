package metric_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nac/metric"
)

// made returns n made scores below q with plenty of ties when q is small; the
// generator is simple enough to be repeated in Python.
func made(n int, seed uint32, q uint32, shift float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		seed = seed*1664525 + 1013904223
		s[i] = float64(seed>>8%q) + shift
	}
	return s
}

// TestScikitLearn compares with scikit-learn 1.9.1 (roc_curve with its default
// drop_intermediate, auc, precision_recall_curve), run on the same scores.
func TestScikitLearn(t *testing.T) {
	for _, c := range []struct {
		q     uint32
		shift float64
		want  metric.Result
	}{
		{7, 1, metric.Result{FPR95: 0.8563333333333333, AUROC: 0.6345258333333333, AUPRIn: 0.7466480828603776, AUPROut: 0.5973402331873703}},
		{50, 10, metric.Result{FPR95: 0.7643333333333333, AUROC: 0.6730930833333334, AUPRIn: 0.7727736928529152, AUPROut: 0.6325136638622354}},
		{1000, 200, metric.Result{FPR95: 0.7613333333333333, AUROC: 0.6853368333333334, AUPRIn: 0.7771706877665572, AUPROut: 0.643341271943265}},
		{1 << 24, 0.2 * (1 << 24), metric.Result{FPR95: 0.7536666666666667, AUROC: 0.6712626666666667, AUPRIn: 0.772486892246137, AUPROut: 0.6266700142364443}},
	} {
		got, err := metric.OOD(madeFloor(3000, 1, c.q, c.shift), made(2000, 2, c.q, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range [][2]float64{{got.FPR95, c.want.FPR95}, {got.AUROC, c.want.AUROC}, {got.AUPRIn, c.want.AUPRIn}, {got.AUPROut, c.want.AUPROut}} {
			if math.Abs(v[0]-v[1]) > 1e-12 {
				t.Errorf("q=%d: %+v, want %+v", c.q, got, c.want)
				break
			}
		}
	}
}

// madeFloor keeps tied scores tied after the shift.
func madeFloor(n int, seed uint32, q uint32, shift float64) []float64 {
	s := made(n, seed, q, shift)
	if q <= 1000 {
		for i := range s {
			s[i] = math.Floor(s[i])
		}
	}
	return s
}

// TestProperties checks what must hold whatever the scores: exchanging the sets
// and turning the scores round changes nothing but the names; a rising function
// of the scores changes nothing; the order of samples does not matter.
func TestProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		id := made(1+r.IntN(60), r.Uint32(), 20, 3)
		ood := made(1+r.IntN(60), r.Uint32(), 20, 0)
		keepID, keepOOD := slices.Clone(id), slices.Clone(ood)
		got, err := metric.OOD(id, ood)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(id, keepID) || !slices.Equal(ood, keepOOD) {
			t.Fatal("the inputs were changed")
		}
		apply := func(v []float64, f func(float64) float64) []float64 {
			w := make([]float64, len(v))
			for i, p := range r.Perm(len(v)) {
				w[i] = f(v[p])
			}
			return w
		}
		turned, err := metric.OOD(apply(ood, func(x float64) float64 { return -x }), apply(id, func(x float64) float64 { return -x }))
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.AUROC-turned.AUROC) > 1e-15 || got.AUPRIn != turned.AUPROut || got.AUPROut != turned.AUPRIn {
			t.Errorf("%+v, turned round %+v", got, turned)
		}
		raised, err := metric.OOD(apply(id, math.Exp), apply(ood, math.Exp))
		if err != nil || raised != got {
			t.Errorf("%+v, after exp %+v, %v", got, raised, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	ok := []float64{1, 2}
	for _, c := range []struct {
		id, ood []float64
		want    string
	}{
		{nil, ok, "ID scores: no samples"},
		{ok, nil, "OOD scores: no samples"},
		{[]float64{1, math.NaN()}, ok, "ID score 1 of 2 is NaN"},
		{ok, []float64{math.Inf(-1)}, "OOD score 0 of 1 is infinite"},
	} {
		_, err := metric.OOD(c.id, c.ood)
		_, err2 := metric.AUROC(c.id, c.ood)
		for _, err := range []error{err, err2} {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		}
	}
}

func TestAccuracy(t *testing.T) {
	if a := metric.Accuracy([]int{1, 2, 3, 4}, []int{1, 2, 0, 4}); a != 0.75 {
		t.Errorf("accuracy %v", a)
	}
	if a := metric.Accuracy(nil, nil); !math.IsNaN(a) {
		t.Errorf("accuracy of nothing %v", a)
	}
	if a := metric.Accuracy([]int{1}, []int{1, 2}); !math.IsNaN(a) {
		t.Errorf("accuracy of unlike lengths %v", a)
	}
}

func TestMean(t *testing.T) {
	got := metric.Mean([]metric.Result{{0.25, 0.5, 0.75, 1}, {0.75, 1, 0.25, 0}})
	if want := (metric.Result{0.5, 0.75, 0.5, 0.5}); got != want {
		t.Errorf("mean %+v, want %+v", got, want)
	}
	if m := metric.Mean(nil); !math.IsNaN(m.AUROC) {
		t.Errorf("mean of nothing %+v", m)
	}
}

// TestCorrelations compares with scipy.stats 1.17.1.
func TestCorrelations(t *testing.T) {
	var longX, longY []float64
	for i := range 200 {
		x := i * 37 % 101
		longX = append(longX, float64(x))
		longY = append(longY, float64(i*53%89/5+x/9))
	}
	for _, c := range []struct {
		x, y                       []float64
		spearman, kendall, pearson float64
	}{
		{[]float64{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9}, []float64{2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4}, 0.17916174391114706, 0.1570874410539306, 0.11049560385085633},
		{[]float64{0.1, 0.2, 0.35, 0.4, 0.9}, []float64{10.5, 20.1, 19.9, 55, 54}, 0.8, 0.6, 0.78719700573929},
		{longX, longY, 0.5316612958156506, 0.38608888521081786, 0.5572782296239691},
		{[]float64{1, 2}, []float64{5, 3}, -1, -1, -1},
		{[]float64{1e308, -1e308, 0}, []float64{1e-300, -1e-300, 0}, 1, 1, 1},
	} {
		for _, f := range []struct {
			name string
			f    func(x, y []float64) (float64, error)
			want float64
		}{{"Spearman", metric.Spearman, c.spearman}, {"Kendall", metric.Kendall, c.kendall}, {"Pearson", metric.Pearson, c.pearson}} {
			got, err := f.f(c.x, c.y)
			if err != nil || math.Abs(got-f.want) > 1e-12 {
				t.Errorf("%s of %d pairs = %.17g, %v; want %.17g", f.name, len(c.x), got, err, f.want)
			}
			turned, err := f.f(c.y, c.x)
			if err != nil || math.Abs(got-turned) > 1e-12 {
				t.Errorf("%s is not symmetric: %v and %v, %v", f.name, got, turned, err)
			}
		}
	}
	for _, f := range []func(x, y []float64) (float64, error){metric.Spearman, metric.Kendall, metric.Pearson} {
		if _, err := f([]float64{1, 2}, []float64{1}); err == nil {
			t.Error("unlike lengths accepted")
		}
		if _, err := f([]float64{1}, []float64{1}); !errors.Is(err, metric.ErrEmpty) {
			t.Errorf("one pair: %v", err)
		}
		if _, err := f([]float64{1, 2}, []float64{3, 3}); !errors.Is(err, metric.ErrConstant) {
			t.Errorf("a constant: %v", err)
		}
		if _, err := f([]float64{1, math.NaN()}, []float64{3, 4}); err == nil || !strings.Contains(err.Error(), "x[1] is NaN") {
			t.Errorf("NaN: %v", err)
		}
	}
}

func ExampleOOD() {
	id := []float64{0.9, 0.8, 0.7, 0.4}
	ood := []float64{0.1, 0.2, 0.5}
	r, err := metric.OOD(id, ood)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("FPR@95 %.2f, AUROC %.2f\n", 100*r.FPR95, 100*r.AUROC)
	// Output: FPR@95 25.00, AUROC 91.67
}

func BenchmarkOOD(b *testing.B) {
	id, ood := made(10000, 1, 1<<24, 0), made(10000, 2, 1<<24, 0)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			if _, err := metric.OOD(id, ood); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AUROC", func(b *testing.B) {
		for b.Loop() {
			if _, err := metric.AUROC(id, ood); err != nil {
				b.Fatal(err)
			}
		}
	})
}

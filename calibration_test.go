package nac

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// scored returns scores and predicted classes of real images that the network was
// not trained on and the detector not fitted on.
func scored(t *testing.T, method string, layers ...string) (scores []float64, classes []int) {
	t.Helper()
	o := fashionOptions()
	o.Detector, o.Layers = method, layers
	train := fashionList(t, "main_train_fashion")
	train.Items = train.Items[:400]
	d, err := Fit(t.Context(), fashionModel(t), train, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"val_fashion", "test_fashion"} {
		for s, err := range d.ScoreAll(t.Context(), nil, fashionList(t, name).All()) {
			if err != nil || s.Err != nil {
				t.Fatal(err, s.Err)
			}
			scores, classes = append(scores, s.Score), append(classes, s.Class)
		}
	}
	return scores, classes
}

// flaggedLaw is the distribution of the number of false alarms among m images that are
// exchangeable with n calibration images, when the k lowest p-values are flagged and
// scores are distinct: beta-binomial with k and n+1-k. It returns the chances of at
// most 0, 1, ... m.
func flaggedLaw(n, m, k int) []float64 {
	logBeta := func(a, b int) float64 {
		x, _ := math.Lgamma(float64(a))
		y, _ := math.Lgamma(float64(b))
		z, _ := math.Lgamma(float64(a + b))
		return x + y - z
	}
	law, sum := make([]float64, m+1), 0.0
	for x := range law {
		choose := -math.Log(float64(m+1)) - logBeta(x+1, m-x+1)
		sum += math.Exp(choose + logBeta(x+k, m-x+n+1-k) - logBeta(k, n+1-k))
		law[x] = sum
	}
	return law
}

// quantile is the least number that a law exceeds with a chance of at most 1-q.
func quantile(law []float64, q float64) int {
	x, _ := slices.BinarySearch(law, q)
	return min(x, len(law)-1)
}

// The promise of conformal p-values, on real images. Splits of them into calibration and
// new images are drawn at random, so that they are exchangeable whatever their scores,
// and the number of false alarms has a known law: over all images, and with
// calibration by class among the images of each class. Its mean must be at most that
// law's, and its upper tail; with equal scores put in an order by lot, the mean must
// be the law's.
func TestEmpiricalRate(t *testing.T) {
	const splits = 400
	// Chances of 1 in 10^6 that a right calibration is found wrong, for each comparison.
	const z, chance = 4.9, 1e-6
	laws := map[[3]int][]float64{}
	test := func(method string, scores []float64, classes []int, distinct bool) {
		n := len(scores)
		calibrated := n / 2
		r := rand.New(rand.NewPCG(1, 2))
		for _, perClass := range []bool{false, true} {
			for _, rate := range []float64{0.01, 0.05, 0.1, 0.25} {
				var share moments
				// By class, -1 for all: false alarms less those expected, and how many splits
				// have more than their law's 95 % quantile and what chance they had of it.
				excess, over, overChance := map[int]*moments{}, map[int]int{}, map[int]float64{}
				for range splits {
					order := r.Perm(n)
					var s []float64
					var c []int
					inCalibration, images, flagged := map[int]int{}, map[int]int{}, map[int]int{}
					group := func(class int) int {
						if perClass {
							return class
						}
						return -1
					}
					for _, i := range order[:calibrated] {
						s, c = append(s, scores[i]), append(c, classes[i])
						inCalibration[group(classes[i])]++
					}
					cal, err := newCalibration(rate, perClass, s, c)
					if err != nil {
						t.Fatal(err)
					}
					alarms := 0
					for _, i := range order[calibrated:] {
						p, ood := cal.judge(scores[i], classes[i])
						if ood != (p <= rate+1e-12) {
							t.Fatalf("p = %v at rate %v: OOD %v", p, rate, ood)
						}
						images[group(classes[i])]++
						if ood {
							alarms++
							flagged[group(classes[i])]++
						}
					}
					share.add(float64(alarms) / float64(n-calibrated))
					for g, m := range images {
						k := cal.rank(inCalibration[g])
						if k < 1 {
							continue // too few to calibrate on: judged with all, which promises nothing of a class
						}
						if excess[g] == nil {
							excess[g] = &moments{}
						}
						excess[g].add(float64(flagged[g]) - float64(m*k)/float64(inCalibration[g]+1))
						key := [3]int{inCalibration[g], m, k}
						if laws[key] == nil {
							laws[key] = flaggedLaw(inCalibration[g], m, k)
						}
						law := laws[key]
						q := quantile(law, 0.95)
						overChance[g] += 1 - law[q]
						if flagged[g] > q {
							over[g]++
						}
					}
				}
				t.Logf("%s, distinct %v, by class %v, rate %v: %.4f of %d images on average", method, distinct, perClass, rate, share.mean, n-calibrated)
				for g, e := range excess {
					margin := z * e.std() / math.Sqrt(float64(e.n))
					if e.mean > margin || distinct && e.mean < -margin {
						t.Errorf("%s, rate %v, class %d: %.3f false alarms more than expected (± %.3f) in %v splits", method, rate, g, e.mean, margin, e.n)
					}
					// The sum of independent events is no more spread than a binomial of its mean.
					most := distuv.Binomial{N: float64(e.n), P: overChance[g] / float64(e.n)}
					if got := over[g]; got > 0 && 1-most.CDF(float64(got-1)) < chance {
						t.Errorf("%s, rate %v, class %d: %d of %v splits have more false alarms than 95 %% should; expected %.1f", method, rate, g, got, e.n, overChance[g])
					}
				}
			}
		}
	}
	for method, layers := range map[string][]string{"nac": {"avgpool"}, "nac_auto": nil} {
		scores, classes := scored(t, method, layers...)
		test(method, scores, classes, false)
		order := rand.New(rand.NewPCG(5, 6)).Perm(len(scores))
		slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(scores[i], scores[j]) })
		ranks := make([]float64, len(scores))
		for rank, i := range order {
			ranks[i] = float64(rank)
		}
		test(method, ranks, classes, true)
	}
}

// The bounds of the rate of one threshold: with the rate at the lower, at least rank of
// the calibration images score below it with a chance of 2.5 %, with the upper all but
// that.
func TestRateBounds(t *testing.T) {
	for _, c := range []struct {
		n    int
		rate float64
	}{{20, 0.05}, {99, 0.01}, {400, 0.05}, {1000, 0.25}, {66, 0.5}} {
		scores := make([]float64, c.n)
		for i := range scores {
			scores[i] = float64(i)
		}
		cal, err := newCalibration(c.rate, false, scores, make([]int, c.n))
		if err != nil {
			t.Fatal(err)
		}
		th := cal.threshold(cal.all)
		k := float64(cal.rank(c.n))
		atLeast := func(rate float64) float64 {
			return 1 - distuv.Binomial{N: float64(c.n), P: rate}.CDF(k-1)
		}
		if low, high := atLeast(th.RateLow), atLeast(th.RateHigh); math.Abs(low-0.025) > 1e-6 || math.Abs(high-0.975) > 1e-6 {
			t.Errorf("%d images, rate %v: bounds %v to %v have chances of %v and %v", c.n, c.rate, th.RateLow, th.RateHigh, low, high)
		}
	}
}

// The bootstrap's interval without drawing is that of drawing.
func TestThresholdBootstrap(t *testing.T) {
	scores, classes := scored(t, "nac", "avgpool")
	cal, err := newCalibration(0.05, false, scores, classes)
	if err != nil {
		t.Fatal(err)
	}
	th := cal.threshold(cal.all)
	r := rand.New(rand.NewPCG(3, 4))
	n := len(scores)
	var drawn []float64
	sample := make([]float64, n)
	for range 2000 {
		for i := range sample {
			sample[i] = scores[r.IntN(n)]
		}
		slices.Sort(sample)
		drawn = append(drawn, sample[cal.rank(n)-1])
	}
	inside := 0
	for _, x := range drawn {
		if x >= th.Low && x <= th.High {
			inside++
		}
	}
	if share := float64(inside) / float64(len(drawn)); share < 0.935 || share > 0.975 {
		t.Errorf("%v of bootstrap thresholds lie in %+v", share, th)
	}
}

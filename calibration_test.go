package nac

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// scored returns scores and predicted classes of real images that the network was
// not trained on and the detector not fitted on.
func scored(t *testing.T) (scores []float64, classes []int) {
	t.Helper()
	o := fashionOptions()
	o.Detector, o.Layers = "nac", []string{"avgpool"}
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

// The promise of conformal p-values: over choices of calibration images, the mean
// rate of false alarms among new real images is at most the rate asked for, and not
// much less than it; by class, among the images of each class.
func TestEmpiricalRate(t *testing.T) {
	scores, classes := scored(t)
	n := len(scores)
	calibrated := n / 2
	const splits = 400
	r := rand.New(rand.NewPCG(1, 2))
	for _, perClass := range []bool{false, true} {
		for _, rate := range []float64{0.01, 0.05, 0.1, 0.25} {
			var mean moments
			covered := 0 // splits whose threshold flags a share within its own bounds
			for range splits {
				order := r.Perm(n)
				var s []float64
				var c []int
				for _, i := range order[:calibrated] {
					s, c = append(s, scores[i]), append(c, classes[i])
				}
				cal, err := newCalibration(rate, perClass, s, c)
				if err != nil {
					t.Fatal(err)
				}
				flagged := 0
				for _, i := range order[calibrated:] {
					p, ood := cal.judge(scores[i], classes[i])
					if ood != (p <= rate+1e-12) {
						t.Fatalf("p = %v at rate %v: OOD %v", p, rate, ood)
					}
					if ood {
						flagged++
					}
				}
				got := float64(flagged) / float64(n-calibrated)
				mean.add(got)
				th := cal.threshold(cal.all)
				// The bounds are of the true rate; a finite sample of it adds its own spread.
				slack := 2 * math.Sqrt(rate*(1-rate)/float64(n-calibrated))
				if got >= th.RateLow-slack && got <= th.RateHigh+slack {
					covered++
				}
			}
			least := rate - 1/float64(calibrated)
			if perClass {
				least = rate / 2 // classes of few images can flag in coarse steps alone
			}
			margin := 4 * mean.std() / math.Sqrt(splits)
			t.Logf("by class %v, rate %v: %.4f of %d images on average, %d of %d splits within bounds", perClass, rate, mean.mean, n-calibrated, covered, splits)
			if mean.mean > rate+margin || mean.mean < least-margin {
				t.Errorf("by class %v: a rate of %v came out as %v (± %v)", perClass, rate, mean.mean, margin)
			}
			if !perClass && covered < splits*95/100 {
				t.Errorf("rate %v: within its bounds in %d of %d splits", rate, covered, splits)
			}
		}
	}
}

// The bootstrap's interval without drawing is that of drawing.
func TestThresholdBootstrap(t *testing.T) {
	scores, classes := scored(t)
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

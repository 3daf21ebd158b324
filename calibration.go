package nac

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Threshold is where a detector draws the line, found on held-out ID images.
type Threshold struct {
	// Score is the least score that is called ID.
	Score float64 `json:"score"`
	// Low and High bound it: the 95 % percentile interval over bootstrap samples of the
	// calibration images.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// Images is the number of calibration images.
	Images int `json:"images"`
	// RateLow and RateHigh bound the share of future ID images that this very
	// threshold will flag, for 95 % of all choices of calibration images; the mean
	// over all choices is at most the false-alarm rate.
	RateLow  float64 `json:"rate_low"`
	RateHigh float64 `json:"rate_high"`
}

// calibration turns scores into p-values: split conformal prediction (Vovk,
// Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; for OOD
// detection Bates et al., "Testing for Outliers with Conformal p-values", 2023).
//
// If an image and the n calibration images are exchangeable, its
//
//	p = (1 + number of calibration scores <= its score) / (n + 1)
//
// is at most any rate with a probability of at most that rate. By class, the
// calibration images are those that the network takes for the image's class; the
// same holds for the images of each such class.
type calibration struct {
	rate    float64
	all     []float64         // sorted
	byClass map[int][]float64 // sorted; nil unless by class
}

// newCalibration takes the scores and predicted classes of calibration images.
func newCalibration(rate float64, perClass bool, scores []float64, classes []int) (*calibration, error) {
	if !(rate > 0 && rate < 1) {
		return nil, fmt.Errorf("nac: a false-alarm rate of %v; it must be above 0 and below 1", rate)
	}
	for _, s := range scores {
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return nil, fmt.Errorf("nac: a calibration image's score is %v", s)
		}
	}
	c := &calibration{rate: rate, all: slices.Sorted(slices.Values(scores))}
	if c.rank(len(scores)) < 1 {
		return nil, fmt.Errorf("nac: a false-alarm rate of %v needs at least %d calibration images; there are %d",
			rate, leastImages(rate), len(scores))
	}
	if perClass {
		c.byClass = map[int][]float64{}
		for i, s := range scores {
			c.byClass[classes[i]] = append(c.byClass[classes[i]], s)
		}
		for class, s := range c.byClass {
			if c.rank(len(s)) < 1 {
				delete(c.byClass, class) // too few: judged with all
				continue
			}
			slices.Sort(s)
		}
	}
	return c, nil
}

// rank is the number of p-values, of the n+1 possible ones, that mean OOD.
func (c *calibration) rank(n int) int { return rankOf(c.rate, n) }

func rankOf(rate float64, n int) int {
	// Without the margin a rate such as 0.07 of 100 would round down to 6.
	return int(math.Floor(rate*float64(n+1) + 1e-9))
}

// leastImages is how many calibration images a rate needs.
func leastImages(rate float64) int {
	n := int(math.Ceil(1/rate)) - 1
	for rankOf(rate, n) < 1 {
		n++
	}
	return n
}

// scores returns those that an image of the predicted class is compared with.
func (c *calibration) scores(class int) []float64 {
	if s, ok := c.byClass[class]; ok {
		return s
	}
	return c.all
}

// judge returns the p-value of a score and whether it means OOD.
func (c *calibration) judge(score float64, class int) (p float64, ood bool) {
	s := c.scores(class)
	below, _ := slices.BinarySearchFunc(s, score, func(x, t float64) int {
		if x <= t {
			return -1
		}
		return 1
	})
	return float64(1+below) / float64(len(s)+1), 1+below <= c.rank(len(s))
}

// threshold describes where judge draws the line among the given scores.
func (c *calibration) threshold(s []float64) Threshold {
	n, k := len(s), c.rank(len(s))
	// The k-th smallest of n draws with replacement is that at index floor(n*U), U the
	// k-th smallest of n uniform numbers, which is Beta(k, n+1-k): the bootstrap's
	// distribution without drawing. The rate of false alarms of future images has
	// the very same one if scores have a density.
	b := distuv.Beta{Alpha: float64(k), Beta: float64(n + 1 - k)}
	low, high := b.Quantile(0.025), b.Quantile(0.975)
	at := func(u float64) float64 { return s[min(int(float64(n)*u), n-1)] }
	return Threshold{Score: s[k-1], Low: at(low), High: at(high), Images: n, RateLow: low, RateHigh: high}
}

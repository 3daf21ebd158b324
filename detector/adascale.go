package detector

import (
	"errors"
	"math"
	"slices"
	"sort"
)

// adaScale is AdaScale (Regmi, "Going Beyond Conventional OOD Detection", 2025): SCALE
// with a percentile for each image. The image is moved by half a standard deviation
// along the gradient of its largest logit, at the pixels where that is smallest. How
// strong its largest features are then, and how far they have shifted, is compared
// with ID validation images: the more there are below it, the lower the percentile and
// the more features count as the largest, which scales less. With r = sum of all
// features / sum of the largest, negative ones counting as zero, the score is the
// log-sum-exp of
//
//	a  the logits of the feature times exp(r)
//	l  the logits times r^2
//
// OpenOOD compares with 5,000 validation images drawn at random, here it is all of them.
type adaScale struct {
	fitting
	form  byte
	head  *head     // of form a
	sizes []float64 // of the validation images' shifts, in order
}

var (
	_ = register(Method{
		Key: "adascale_a", About: "energy of features scaled by how an image bears a small change (AdaScale-A)", Paper: "Regmi, 2025",
		make: newAdaScale('a'), Params: adaScaleParams,
	})
	_ = register(Method{
		Key: "adascale_l", About: "energy of logits scaled by how an image bears a small change (AdaScale-L)", Paper: "Regmi, 2025",
		make: newAdaScale('l'), Params: adaScaleParams,
	})
)

var adaScaleParams = []Param{
	{
		Name: "percentile_low", About: "percentage of the features that do not count as the largest, at least", Default: 75, Min: 0.01, Max: 99.99,
		Sweep: []float64{60, 65, 70, 75, 80, 85, 90, 95}, Late: true,
	},
	{
		Name: "percentile_high", About: "the same, at most", Default: 85, Min: 0.01, Max: 99.99,
		Sweep: []float64{65, 70, 75, 80, 85, 90, 95, 99}, Late: true,
	},
	{Name: "k1", About: "percentage of the features whose strength counts, the largest", Default: 5, Min: 0, Max: 100},
	{Name: "k2", About: "percentage of the features whose shift counts, the largest", Default: 1, Min: 0, Max: 100},
	{Name: "lambda", About: "weight of the shift", Default: 10, Min: 0, Max: 1e6},
	{Name: "o", About: "share of the pixels' values that are changed", Default: 0.05, Min: 0, Max: 1},
}

func newAdaScale(form byte) func(params) (Detector, error) {
	return func(p params) (Detector, error) {
		d := &adaScale{fitting: fitting{params: p}, form: form}
		if low, high := d.float("percentile_low"), d.float("percentile_high"); low >= high {
			return nil, d.errorf("percentile_low is %v; it must be below percentile_high, %v", low, high)
		}
		d.state = func(s *storage) {
			n := len(d.sizes)
			s.count("images", &n)
			s.float64s("sizes", &d.sizes, n)
			if s.err == nil && !slices.IsSorted(d.sizes) {
				s.fail(errors.New("sizes are not in order"))
			}
			if form == 'a' {
				d.storeHead(s, &d.head)
			}
		}
		return d, nil
	}
}

func (d *adaScale) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.sizes = nil
	if d.form == 'a' {
		d.head, err = d.takeHead(n)
	}
	return err
}

func (d *adaScale) pass() Pass {
	return Pass{Loss: largestLogit{}, Move: SmallestStep{Share: d.float("o"), Size: 0.5}}
}

func (d *adaScale) Needs(_ Network, p Phase) Needs {
	if p == Fitting {
		return Needs{}
	}
	return Needs{Passes: []Further{{Pass: d.pass(), Logits: true}}}
}

// shift calls f with how strong and how far shifted the features of each image are.
func (d *adaScale) shift(in *Inputs, f func(i int, size float64)) error {
	changed, err := in.pass(d.pass())
	if err != nil {
		return d.errorf("%w", err)
	}
	if err := d.check(changed); err != nil {
		return err
	}
	share := func(name string) int { return int(float64(d.features) * d.float(name) / 100) }
	largest, which := make([]float32, d.features), make([]float32, d.features)
	for i := range in.N {
		feature, moved := d.feature(in, i), d.feature(changed, i)
		top := func(k int, value func(j int) float64) (sum float64) {
			if k == 0 {
				return 0
			}
			copy(largest, feature)
			keepLargest(largest, k, which)
			for j, kept := range which {
				if kept == 1 {
					sum += value(j)
				}
			}
			return sum
		}
		strength := top(share("k1"), func(j int) float64 { return max(float64(moved[j]), 0) })
		shift := top(share("k2"), func(j int) float64 { return math.Abs(float64(feature[j]) - float64(moved[j])) })
		f(i, strength+d.float("lambda")*shift)
	}
	return nil
}

func (d *adaScale) FitValidation(in *Inputs) error {
	if err := d.fitValidation(in); err != nil {
		return err
	}
	return d.shift(in, func(_ int, size float64) { d.sizes = append(d.sizes, size) })
}

func (d *adaScale) End() error {
	if err := d.endValidated(); err != nil {
		return err
	}
	slices.Sort(d.sizes)
	return nil
}

func (d *adaScale) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	low, high := d.float("percentile_low"), d.float("percentile_high")
	ratios := make([]float64, in.N)
	positive, work := make([]float32, d.features), make([]float32, d.features)
	err := d.shift(in, func(i int, size float64) {
		below := sort.Search(len(d.sizes), func(j int) bool { return d.sizes[j] > size })
		percentile := low + (1-float64(below)/float64(len(d.sizes)))*(high-low)
		for j, v := range d.feature(in, i) {
			positive[j] = max(v, 0)
		}
		all := sum(positive)
		keepLargest(positive, kept(d.features, percentile), work)
		ratios[i] = 1
		if part := sum(positive); part > 0 {
			ratios[i] = all / part
		}
	})
	if err != nil {
		return err
	}
	if d.form == 'a' {
		for i, r := range ratios {
			ratios[i] = math.Exp(min(r, 700))
		}
		d.head.scaledEnergies(in.Feature, ratios, in.N, dst)
		return nil
	}
	row := make([]float64, d.classes)
	for i, r := range ratios {
		d.logits(in, i, row)
		for k := range row {
			row[k] *= r * r
		}
		dst[i] = logSumExp(row, 1)
	}
	return nil
}

// largestLogit is the logit of the predicted class.
type largestLogit struct{}

func (largestLogit) Layer() string { return "" }

func (largestLogit) Gradient(logits, gradient []float32) {
	clear(gradient)
	gradient[argmax(logits)] = 1
}

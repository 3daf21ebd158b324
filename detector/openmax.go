package detector

import (
	"math"
	"slices"
)

// openMax is OpenMax (Bendale and Boult, "Towards Open Set Deep Networks", CVPR
// 2016): minus the probability of an unknown class. For each class a Weibull
// distribution is fitted to the largest distances of its rightly classified
// training images from their mean, in the space of logits. An image's highest
// logits are lowered by the share of that distribution below its distance, less
// so by rank, and what they lose becomes the logit of the unknown class.
//
// Distances are translated as libmr does, so that the smallest of the tail is 1.
// A class whose distances cannot be fitted, fewer than two or all equal, leaves
// its logit alone.
type openMax struct {
	fitting
	train [][]float32 // logits of rightly classified images by class, until End
	// By class: the mean, the fit's shape and scale, and the smallest distance of
	// the tail. Shape is 0 where there is no fit.
	means                   []float64
	shape, scale, smallness []float64
}

var _ = register(Method{
	Key: "openmax", About: "probability of an unknown class", Paper: "Bendale, CVPR 2016",
	make: newOpenMax,
	Params: []Param{
		{Name: "tail", About: "number of distances that are fitted", Default: 20, Min: 2, Max: 1 << 20, Whole: true},
		{Name: "alpha", About: "number of logits that are lowered", Default: 3, Min: 1, Max: 1 << 20, Whole: true},
	},
})

func newOpenMax(p params) (Detector, error) {
	d := &openMax{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		s.float64s("means", &d.means, d.classes, d.classes)
		s.float64s("shape", &d.shape, d.classes)
		s.float64s("scale", &d.scale, d.classes)
		s.float64s("small", &d.smallness, d.classes)
	}
	return d, nil
}

func (d *openMax) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	d.train = make([][]float32, n.Classes)
	return nil
}

func (d *openMax) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	for i := range in.N {
		l, err := d.label(in, i)
		if err != nil {
			return err
		}
		if row := in.Logits[i*d.classes:][:d.classes]; argmax(row) == l {
			d.train[l] = append(d.train[l], row...)
		}
	}
	return nil
}

func (d *openMax) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	k := d.classes
	d.means = make([]float64, k*k)
	d.shape, d.scale, d.smallness = make([]float64, k), make([]float64, k), make([]float64, k)
	fits := 0
	for c, logits := range d.train {
		n := len(logits) / k
		if n == 0 {
			continue
		}
		mean := d.means[c*k:][:k]
		for i, v := range logits {
			mean[i%k] += float64(v)
		}
		for i := range mean {
			mean[i] /= float64(n)
		}
		distances := make([]float64, n)
		for i := range distances {
			distances[i] = distance(logits[i*k:], mean)
		}
		slices.Sort(distances)
		tail := distances[max(0, n-d.int("tail")):]
		if shape, scale, ok := weibull(tail); ok {
			d.shape[c], d.scale[c], d.smallness[c] = shape, scale, tail[0]
			fits++
		}
	}
	d.train = nil
	if fits == 0 {
		d.phase = fresh
		return d.errorf("no class has two rightly classified training images at different distances from their mean")
	}
	return nil
}

// distance is the Euclidean one.
func distance(a []float32, b []float64) float64 {
	sum := 0.0
	for i, v := range b {
		e := float64(a[i]) - v
		sum += e * e
	}
	return math.Sqrt(sum)
}

// weibull fits a Weibull distribution to distances, rising, of which the smallest
// is moved to 1: the maximum-likelihood shape k solves
//
//	sum t^k log t / sum t^k - 1/k = mean log t
func weibull(distances []float64) (shape, scale float64, ok bool) {
	n := float64(len(distances))
	if len(distances) < 2 || distances[0] == distances[len(distances)-1] {
		return 0, 0, false
	}
	largest := distances[len(distances)-1] + 1 - distances[0]
	logs := make([]float64, len(distances)) // of t / largest
	mean := 0.0
	for i, x := range distances {
		logs[i] = math.Log((x + 1 - distances[0]) / largest)
		mean += logs[i] / n
	}
	// Rises with k.
	excess := func(k float64) float64 {
		weighted, total := 0.0, 0.0
		for _, l := range logs {
			w := math.Exp(k * l)
			weighted += w * l
			total += w
		}
		return weighted/total - 1/k - mean
	}
	low, high := 0.0, 1.0
	for excess(high) < 0 {
		if low, high = high, 2*high; high > 1e9 {
			return 0, 0, false // equal but for rounding
		}
	}
	for range 200 {
		if shape = (low + high) / 2; shape == low || shape == high {
			break
		}
		if excess(shape) < 0 {
			low = shape
		} else {
			high = shape
		}
	}
	total := 0.0
	for _, l := range logs {
		total += math.Exp(shape * l)
	}
	return shape, largest * math.Pow(total/n, 1/shape), true
}

// outlying is the share of class c's distribution below a distance.
func (d *openMax) outlying(c int, distance float64) float64 {
	t := distance + 1 - d.smallness[c]
	if d.shape[c] == 0 || t <= 0 {
		return 0
	}
	return -math.Expm1(-math.Pow(t/d.scale[c], d.shape[c]))
}

func (d *openMax) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	k, alpha := d.classes, d.int("alpha")
	row := make([]float64, k+1)
	order := make([]int, k)
	for i := range in.N {
		logits := in.Logits[i*k:][:k]
		widen(logits, row)
		for c := range order {
			order[c] = c
		}
		slices.SortFunc(order, func(a, b int) int {
			if row[a] != row[b] {
				if row[a] > row[b] {
					return -1
				}
				return 1
			}
			return b - a
		})
		row[k] = 0
		for rank, c := range order[:min(alpha, k)] {
			omega := float64(alpha-rank) / float64(alpha)
			lost := row[c] * d.outlying(c, distance(logits, d.means[c*k:][:k])) * omega
			row[c] -= lost
			row[k] += lost
		}
		dst[i] = -math.Exp(row[k] - logSumExp(row, 1))
	}
	return nil
}

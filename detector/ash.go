package detector

import "math"

// ash shapes activations (Djurisic et al., "Extremely Simple Activation Shaping
// for Out-of-Distribution Detection", ICLR 2023): all but an image's largest
// features are set to zero, and the score is the log-sum-exp of the logits of
// what is left. The form says what becomes of the largest:
//
//	b  all become equal, with the sum that the whole feature had
//	s  they are scaled by exp(sum of all / sum of them)
//	p  they stay as they are
type ash struct {
	fitting
	form byte
	head *head
}

var (
	_ = register(Method{
		Key: "ash", About: "energy of the largest features made equal (ASH-B)", Paper: "Djurisic, ICLR 2023",
		make: newASH('b'), Params: ashParams,
	})
	_ = register(Method{
		Key: "ash_s", About: "energy of the largest features scaled (ASH-S)", Paper: "Djurisic, ICLR 2023",
		make: newASH('s'), Params: ashParams,
	})
	_ = register(Method{
		Key: "ash_p", About: "energy of the largest features (ASH-P)", Paper: "Djurisic, ICLR 2023",
		make: newASH('p'), Params: ashParams,
	})
)

var ashParams = []Param{{
	Name: "percentile", About: "percentage of an image's features that are dropped", Default: 90, Min: 0, Max: 99.99,
	Sweep: []float64{70, 75, 80, 85, 90, 95}, Late: true,
}}

func newASH(form byte) func(params) (Detector, error) {
	return func(p params) (Detector, error) {
		d := &ash{fitting: fitting{params: p}, form: form}
		d.state = func(s *storage) { d.storeHead(s, &d.head) }
		return d, nil
	}
}

func (d *ash) Begin(n Network) (err error) {
	if err = d.begin(n); err != nil {
		return err
	}
	d.head, err = d.takeHead(n)
	return err
}

// kept is how many of n features stay, as numpy and PyTorch round.
func kept(n int, percent float64) int {
	return max(n-int(math.RoundToEven(float64(n)*percent/100)), 1)
}

func (d *ash) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	k := kept(d.features, d.float("percentile"))
	shaped := append([]float32(nil), in.Feature[:in.N*d.features]...)
	scales := make([]float64, in.N)
	work := make([]float32, d.features)
	for i := range in.N {
		row := shaped[i*d.features:][:d.features]
		all := sum(row)
		keepLargest(row, k, work)
		scales[i] = 1
		switch d.form {
		case 'b':
			fill := float32(all / float64(k))
			for f, v := range work {
				if v > 0 {
					row[f] = fill
				}
			}
		case 's':
			scales[i] = sharpening(all, sum(row))
		}
	}
	d.head.scaledEnergies(shaped, scales, in.N, dst)
	return nil
}

// sum adds in float64, in four sums at once so that none waits for the one before.
func sum(v []float32) float64 {
	var a, b, c, d float64
	i := 0
	for ; i+4 <= len(v); i += 4 {
		a += float64(v[i])
		b += float64(v[i+1])
		c += float64(v[i+2])
		d += float64(v[i+3])
	}
	for _, x := range v[i:] {
		a += float64(x)
	}
	return (a + b) + (c + d)
}

// sharpening is exp(all/part), kept finite; a feature of zeros is not scaled.
func sharpening(all, part float64) float64 {
	if part == 0 {
		return 1
	}
	return math.Exp(min(all/part, 700))
}

// keepLargest sets all but the k largest of v to zero, the first of equal ones
// staying. which[i] becomes 1 where v[i] stays, else 0.
func keepLargest(v []float32, k int, which []float32) {
	copy(which, v)
	limit := kthSmallest(which, len(v)-k)
	above := 0
	for _, x := range v {
		if x > limit {
			above++
		}
	}
	equal := k - above
	for i, x := range v {
		which[i] = 1
		switch {
		case x > limit:
		case x == limit && equal > 0:
			equal--
		default:
			v[i], which[i] = 0, 0
		}
	}
}

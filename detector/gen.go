package detector

import (
	"math"
	"slices"
)

// gen is the generalised entropy (Liu et al., "GEN: Pushing the Limits of
// Softmax-Based Out-of-Distribution Detection", CVPR 2023), negated:
// -sum p^gamma (1-p)^gamma over the M largest probabilities.
type gen struct{ fitting }

var _ = register(Method{
	Key: "gen", About: "generalised entropy of the probabilities", Paper: "Liu, CVPR 2023",
	make: newGEN,
	Params: []Param{
		{
			Name: "gamma", About: "exponent of the probabilities", Default: 0.1, Min: 1e-3, Max: 100,
			Sweep: []float64{0.01, 0.1, 0.5, 1, 2, 5, 10}, Late: true,
		},
		{
			Name: "M", About: "number of probabilities, the largest ones", Default: 100, Min: 1, Max: 1 << 20, Whole: true,
			Sweep: []float64{10, 50, 100, 200, 500, 1000}, Late: true,
		},
	},
})

func newGEN(p params) (Detector, error) {
	return &gen{fitting{params: p}}, nil
}

func (d *gen) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	gamma, m := d.float("gamma"), min(d.int("M"), d.classes)
	p := make([]float64, d.classes)
	for i := range in.N {
		softmax(d.logits(in, i, p))
		slices.Sort(p)
		rest := 0.0 // 1 - the largest, without cancellation
		for _, v := range p[:d.classes-1] {
			rest += v
		}
		sum := math.Pow(p[d.classes-1]*rest, gamma)
		for _, v := range p[d.classes-m : d.classes-1] {
			sum += math.Pow(v*(1-v), gamma)
		}
		dst[i] = -sum
	}
	return nil
}

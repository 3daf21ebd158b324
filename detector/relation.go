package detector

import "math"

// relation is the neural relation graph (Kim et al., "Neural Relation Graph: A Unified
// Framework for Identifying Label Noise and Outlier Data", NeurIPS 2023): the sum
// over training images of max(cos of the features, 0) times the inner product of
// the probabilities, to the power of pow, where that is above 0.03. All training
// features and probabilities are kept.
type relation struct {
	fitting
	features, probabilities *bank
}

// leastRelation is the cut of the authors' code.
const leastRelation = 0.03

var relationParams = []Param{{
	Name: "pow", About: "exponent of the relations", Default: 1, Min: 0.01, Max: 100, Sweep: []float64{1, 2, 4, 6, 8}, Late: true,
}}

var _ = register(Method{
	Key: "relation", About: "likeness in feature and probabilities to the training images", Paper: "Kim, NeurIPS 2023",
	Params: relationParams, make: newRelation,
})

func newRelation(p params) (Detector, error) {
	d := &relation{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		if !s.saving {
			d.features, d.probabilities = newBank(d.fitting.features), newBank(d.classes)
		}
		d.features.store(s, "train.feature")
		d.probabilities.store(s, "train.probability")
		if s.err == nil && d.features.n != d.probabilities.n {
			s.fail(d.errorf("%d features but %d probabilities", d.features.n, d.probabilities.n))
		}
	}
	return d, nil
}

func (d *relation) Begin(n Network) error {
	d.features, d.probabilities = newBank(n.Features), newBank(n.Classes)
	return d.begin(n)
}

func (d *relation) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	features, probabilities := d.vectors(in)
	for i := range in.N {
		d.features.add(features[i*d.fitting.features:])
		d.probabilities.add(probabilities[i*d.classes:])
	}
	return nil
}

func (d *relation) End() error { return d.endTrained() }

// vectors returns the images' features, divided by their norms, and probabilities.
func (d *relation) vectors(in *Inputs) (features, probabilities []float32) {
	width := d.fitting.features
	features, probabilities = make([]float32, in.N*width), make([]float32, in.N*d.classes)
	p := make([]float64, d.classes)
	for i := range in.N {
		square := 1e-10 // the authors'
		for _, v := range d.feature(in, i) {
			square += float64(v) * float64(v)
		}
		scale := 1 / math.Sqrt(square)
		for f, v := range d.feature(in, i) {
			features[i*width+f] = float32(float64(v) * scale)
		}
		for k, v := range softmax(d.logits(in, i, p)) {
			probabilities[i*d.classes+k] = float32(v)
		}
	}
	return features, probabilities
}

func (d *relation) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	pow := d.float("pow")
	clear(dst[:in.N])
	features, probabilities := d.vectors(in)
	d.features.pairs(d.probabilities, features, probabilities, in.N, func(first, vectors, rows int, cosines, products []float32, stride int) {
		for i := range vectors {
			sum := 0.0
			for j, cos := range cosines[i*stride:][:rows] {
				r := float64(cos * products[i*stride+j])
				if r <= leastRelation {
					continue
				}
				if pow != 1 {
					r = math.Pow(r, pow)
				}
				sum += r
			}
			dst[first+i] += sum
		}
	})
	return nil
}

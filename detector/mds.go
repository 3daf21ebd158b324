package detector

import "slices"

// mds is the Mahalanobis distance score (Lee et al., "A Simple Unified Framework
// for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
// 2018), of the penultimate feature alone: minus the squared distance from the
// nearest class mean, with one covariance for all classes. Classes are by label;
// those without training images have no mean. Where there are fewer images than
// features the inverse is the pseudo-inverse.
type mds struct {
	fitting
	moments  *classMoments
	distance mahalanobis
}

var _ = register(Method{
	Key: "mds", About: "Mahalanobis distance from the nearest class", Paper: "Lee, NeurIPS 2018",
	make: newMDS,
})

func newMDS(p params) (Detector, error) {
	d := &mds{fitting: fitting{params: p}}
	d.state = func(s *storage) { d.distance.store(s, "class", d.features) }
	return d, nil
}

func (d *mds) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	d.moments = newClassMoments(n.Classes, n.Features)
	return nil
}

func (d *mds) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	return d.addByLabel(in, d.moments)
}

func (f *fitting) addByLabel(in *Inputs, m *classMoments) error {
	for i := range in.N {
		l, err := f.label(in, i)
		if err != nil {
			return err
		}
		m.add(f.feature(in, i), l)
	}
	return nil
}

// endMoments ends fitting with the distance from the classes of m.
func (f *fitting) endMoments(m *classMoments) (*mahalanobis, error) {
	if err := f.endTrained(); err != nil {
		return nil, err
	}
	distance, err := newMahalanobis(m.within(), m.all.mean(), m.means())
	if err != nil {
		f.phase = fresh
		return nil, f.errorf("%w", err)
	}
	return distance, nil
}

func (d *mds) End() error {
	m, err := d.endMoments(d.moments)
	if err != nil {
		return err
	}
	d.distance, d.moments = *m, nil
	return nil
}

func (d *mds) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	d.distance.distances(in.Feature, in.N, func(i int, distances []float64) {
		dst[i] = -slices.Min(distances)
	})
	return nil
}

package detector

import "slices"

// rmds is the relative Mahalanobis distance (Ren et al., "A Simple Fix to
// Mahalanobis Distance for Improving Near-OOD Detection", 2021): mds' distance
// less the distance from the mean of all training images, with the covariance of
// all.
type rmds struct {
	fitting
	moments        *classMoments
	class, overall mahalanobis
}

var _ = register(Method{
	Key: "rmds", About: "Mahalanobis distance from the nearest class less that from all", Paper: "Ren, 2021",
	make: newRMDS,
})

func newRMDS(p params) (Detector, error) {
	d := &rmds{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		d.class.store(s, "class", d.features)
		d.overall.store(s, "overall", d.features)
	}
	return d, nil
}

func (d *rmds) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	d.moments = newClassMoments(n.Classes, n.Features)
	return nil
}

func (d *rmds) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	return d.addByLabel(in, d.moments)
}

func (d *rmds) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	mean := d.moments.all.mean()
	class, err := newMahalanobis(d.moments.within(), mean, d.moments.means())
	if err == nil {
		d.class = *class
		var overall *mahalanobis
		if overall, err = newMahalanobis(d.moments.all.covariance(), mean, mean); err == nil {
			d.overall = *overall
		}
	}
	if err != nil {
		d.phase = fresh
		return d.errorf("%w", err)
	}
	d.moments = nil
	return nil
}

func (d *rmds) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	d.overall.distances(in.Feature, in.N, func(i int, distances []float64) { dst[i] = distances[0] })
	d.class.distances(in.Feature, in.N, func(i int, distances []float64) { dst[i] -= slices.Min(distances) })
	return nil
}

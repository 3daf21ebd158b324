package detector

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// mdsLayers is mds (Lee et al., NeurIPS 2018) of layers before the feature: minus the
// squared Mahalanobis distance of their pooled activations, joined to one vector, from
// the nearest class mean, with one covariance for all classes. Far-OOD images break the
// correlations of early and middle layers, even where each neuron stays in its range.
//
// Sums over a layer's space grow with its size; so each layer is divided by the root of
// the mean variance of its neurons. The covariance is shrunk towards its mean variance
// as Chen et al. do ("Shrinkage Algorithms for MMSE Covariance Estimation", 2010: OAS),
// which needs no setting, and lets neurons that never vary over training images count.
//
// A layer whose activations are the feature itself is left out, unless all are.
type mdsLayers struct {
	fitting
	layers   []pooledLayer
	moments  *classMoments
	row      []float32
	distance mahalanobis
}

var _ = register(Method{
	Key: "mds_layers", About: "Mahalanobis distance of layers before the feature from the nearest class", Paper: "after Lee, NeurIPS 2018",
	make: newMDSLayers,
})

func newMDSLayers(p params) (Detector, error) {
	d := &mdsLayers{fitting: fitting{params: p}}
	var err error
	if d.layers, err = d.pooledLayers(); err != nil {
		return nil, err
	}
	d.state = func(s *storage) {
		for i := range d.layers {
			if d.layers[i].store(s); s.err != nil {
				return
			}
		}
		width := 0
		for _, l := range d.read() {
			width += l.channels
		}
		d.distance.store(s, "class", width)
	}
	return d, nil
}

func (d *mdsLayers) Settings() Settings {
	s := d.settings()
	for _, l := range d.layers {
		s.LayerNames = append(s.LayerNames, l.name)
	}
	return s
}

// read returns the layers that take part: when fitting has begun all that may.
func (d *mdsLayers) read() (layers []pooledLayer) {
	for _, l := range d.layers {
		if d.phase == begun || !l.feature {
			layers = append(layers, l)
		}
	}
	if len(layers) == 0 {
		return d.layers
	}
	return layers
}

func (d *mdsLayers) Needs(Network, Phase) Needs {
	layers := d.layers
	if d.phase == ended {
		layers = d.read()
	}
	var n Needs
	for _, l := range layers {
		n.Layers = append(n.Layers, l.name)
	}
	return n
}

func (d *mdsLayers) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	width := 0
	for i := range d.layers {
		if err := d.layers[i].begin(n); err != nil {
			d.phase = fresh
			return d.errorf("%w", err)
		}
		width += d.layers[i].channels
	}
	d.moments, d.row = newClassMoments(n.Classes, width), make([]float32, 0, width)
	return nil
}

// activations returns those of each of the layers.
func (d *mdsLayers) activations(in *Inputs, layers []pooledLayer) ([][]float32, error) {
	z := make([][]float32, len(layers))
	for i := range layers {
		var err error
		if z[i], err = layers[i].activations(in); err != nil {
			return nil, d.errorf("%w", err)
		}
	}
	return z, nil
}

func (d *mdsLayers) Fit(in *Inputs) error {
	if err := d.checkFit(in); err != nil {
		return err
	}
	z, err := d.activations(in, d.layers)
	if err != nil {
		return err
	}
	for i := range in.N {
		class, err := d.label(in, i)
		if err != nil {
			return err
		}
		row := d.row[:0]
		for j := range d.layers {
			l := &d.layers[j]
			activations := z[j][i*l.channels:][:l.channels]
			l.compare(activations, d.feature(in, i))
			row = append(row, activations...)
		}
		d.moments.add(row, class)
	}
	d.images += in.N
	return nil
}

func (d *mdsLayers) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	if err := d.learn(); err != nil {
		d.phase = fresh
		return d.errorf("%w", err)
	}
	d.moments, d.row = nil, nil
	return nil
}

func (d *mdsLayers) learn() error {
	// Which neurons take part, as their places among those of all layers, and the scale
	// of each.
	var places []int
	var scale []float64
	within, read, at := d.moments.within(), d.read(), 0
	for _, l := range d.layers {
		if slices.Contains(read, l) {
			variance := 0.0
			for c := range l.channels {
				places = append(places, at+c)
				variance += within.At(at+c, at+c) / float64(l.channels)
			}
			if !(variance > 0) {
				variance = 1
			}
			scale = append(scale, slices.Repeat([]float64{math.Sqrt(variance)}, l.channels)...)
		}
		at += l.channels
	}
	width := len(places)
	c := mat.NewSymDense(width, nil)
	for i := range width {
		for j := i; j < width; j++ {
			c.SetSym(i, j, within.At(places[i], places[j])/(scale[i]*scale[j]))
		}
	}
	shrink(c, d.images)
	var cholesky mat.Cholesky
	if !(mat.Trace(c) > 0) || !cholesky.Factorize(c) {
		return errConstant
	}
	var lower, inverse mat.TriDense
	cholesky.LTo(&lower)
	if err := inverse.InverseTri(&lower); err != nil {
		return err
	}
	a := make([]float64, width*width)
	for i := range width {
		for j := range i + 1 {
			a[i*width+j] = inverse.At(i, j) / scale[j]
		}
	}
	taken := func(rows []float64) (v []float64) {
		for ; len(rows) > 0; rows = rows[at:] {
			for _, p := range places {
				v = append(v, rows[p])
			}
		}
		return v
	}
	d.distance = *mahalanobisBy(a, width, taken(d.moments.all.mean()), taken(d.moments.means()))
	return nil
}

// shrink moves a covariance of n vectors towards its mean variance as much as Chen et
// al.'s oracle-approximating estimator says, in the form that scikit-learn has.
func shrink(c *mat.SymDense, n int) {
	p := float64(c.SymmetricDim())
	mean, squares := mat.Trace(c)/p, 0.0
	for i := range c.SymmetricDim() {
		for j := range c.SymmetricDim() {
			squares += c.At(i, j) * c.At(i, j) / (p * p)
		}
	}
	share := 1.0
	if below := (float64(n) + 1) * (squares - mean*mean/p); below > 0 {
		share = min((squares+mean*mean)/below, 1)
	}
	c.ScaleSym(1-share, c)
	for i := range c.SymmetricDim() {
		c.SetSym(i, i, c.At(i, i)+share*mean)
	}
}

func (d *mdsLayers) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	layers := d.read()
	z, err := d.activations(in, layers)
	if err != nil {
		return err
	}
	rows := make([]float32, 0, in.N*d.distance.width)
	for i := range in.N {
		for j, l := range layers {
			rows = append(rows, z[j][i*l.channels:][:l.channels]...)
		}
	}
	d.distance.distances(rows, in.N, func(i int, distances []float64) { dst[i] = -slices.Min(distances) })
	return nil
}

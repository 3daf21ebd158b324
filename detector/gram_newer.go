package detector

import (
	"fmt"
	"math"
	"slices"
)

// gramNewer is the method of Sastry and Oore that gram names, as OpenOOD rewrote it: of
// every convolution's output, before any normalisation, and for powers p of 1 to 5 the
// row sums of the Gram matrix of the p-th power, as their p-th root. Each channel has a
// range for each class. With the excess over the range of the predicted class, relative
// to its bound and summed over channels and powers, the score is
//
//	-sum over convolutions of excess / mean excess of held-out ID images,
//
// divided by the maximum softmax probability. A tenth of each class is held out of the
// ranges. OpenOOD draws it anew in each run; here it is every tenth image of the class,
// so that a fit repeats, of which at most 1,000 are kept, drawn at random, because each
// takes 20 bytes a channel. A convolution that no held-out image exceeds has no say, and a
// class without training images has the range of all.
type gramNewer struct {
	fitting
	channels  []int     // by convolution
	low, high []float32 // of class, convolution, power, channel
	factors   []float64 // mean excess by convolution
	seen      []int     // training images by class
	sample    sample
	held      []heldGram
}

// heldGram is a training image that takes no part in ranges.
type heldGram struct {
	priority uint64
	class    int
	values   []float32
}

const (
	gramHeldEvery = 10
	gramHeldMost  = 1000
)

var _ = register(Method{
	Key: "gram_newer", About: "Gram matrices of all convolutions against the class's ranges, as newer OpenOOD has it", Paper: "Sastry, ICML 2020",
	make: newGramNewer,
})

func newGramNewer(p params) (Detector, error) {
	d := &gramNewer{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		layers := len(d.channels)
		s.count("convolutions", &layers)
		if !s.saving {
			d.channels = nil
		}
		for i := 0; i < layers && s.err == nil; i++ {
			if !s.saving {
				d.channels = append(d.channels, 0)
			}
			s.count(fmt.Sprintf("channels.%d", i), &d.channels[i])
		}
		if s.err != nil {
			return
		}
		s.float32s("low", &d.low, d.classes, d.size())
		s.float32s("high", &d.high, d.classes, d.size())
		s.float64s("factors", &d.factors, layers)
	}
	return d, nil
}

// size is the number of values of an image.
func (d *gramNewer) size() (n int) {
	for _, c := range d.channels {
		n += gramPowers * c
	}
	return n
}

func (d *gramNewer) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	if len(n.Convolutions) == 0 {
		return d.errorf("the network has no convolutions, which it reads")
	}
	d.channels, d.held = nil, nil
	for _, l := range n.Convolutions {
		d.channels = append(d.channels, l.Channels)
	}
	d.seen = make([]int, n.Classes)
	d.sample = newSample(gramHeldMost, 1)
	d.low = slices.Repeat([]float32{math.MaxFloat32}, n.Classes*d.size())
	d.high = slices.Repeat([]float32{-math.MaxFloat32}, n.Classes*d.size())
	return nil
}

func gramNewerMap(convolution int) Map {
	return Map{convolutionName(convolution), gramSums{gramPowers}}
}

func (d *gramNewer) Needs(n Network, p Phase) Needs {
	if p == Validating {
		return Needs{}
	}
	var f Further
	for i := range n.Convolutions {
		f.Maps = append(f.Maps, gramNewerMap(i))
	}
	return Needs{Passes: []Further{f}}
}

// values calls f with those of each image, which are valid until it returns.
func (d *gramNewer) values(in *Inputs, f func(i int, values []float32) error) error {
	pass, err := in.pass(Pass{})
	if err != nil {
		return d.errorf("%w", err)
	}
	maps := make([][]float32, len(d.channels))
	for l, c := range d.channels {
		v, err := pass.mapValues(gramNewerMap(l))
		if err == nil {
			err = rows("Gram matrices", v, in.N, gramPowers*c)
		}
		if err != nil {
			return d.errorf("%w", err)
		}
		maps[l] = v
	}
	all := make([]float32, 0, d.size())
	for i := range in.N {
		all = all[:0]
		for l, c := range d.channels {
			all = append(all, maps[l][i*gramPowers*c:][:gramPowers*c]...)
		}
		if err := f(i, all); err != nil {
			return err
		}
	}
	return nil
}

func (d *gramNewer) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	return d.values(in, func(i int, values []float32) error {
		class, err := d.label(in, i)
		if err != nil {
			return err
		}
		if d.seen[class]++; d.seen[class]%gramHeldEvery != 0 {
			d.widen(class, values)
			return nil
		}
		priority, take := d.sample.next()
		if !take {
			d.widen(class, values)
			return nil
		}
		d.held = append(d.held, heldGram{priority, class, slices.Clone(values)})
		for d.sample.full() {
			d.sample.halve()
			d.held = slices.DeleteFunc(d.held, func(h heldGram) bool {
				if d.sample.holds(h.priority) {
					return false
				}
				d.widen(h.class, h.values)
				return true
			})
		}
		return nil
	})
}

// ranges returns those of a class.
func (d *gramNewer) ranges(class int) (low, high []float32) {
	size := d.size()
	return d.low[class*size:][:size], d.high[class*size:][:size]
}

// widen makes a class's ranges hold an image's values.
func (d *gramNewer) widen(class int, values []float32) {
	low, high := d.ranges(class)
	for k, v := range values {
		low[k], high[k] = min(low[k], v), max(high[k], v)
	}
}

// excess adds to dst, for each convolution, by how much an image leaves a class's ranges.
func (d *gramNewer) excess(class int, values []float32, dst []float64) {
	low, high := d.ranges(class)
	from := 0
	for l, c := range d.channels {
		for k := from; k < from+gramPowers*c; k++ {
			v, a, b := float64(values[k]), float64(low[k]), float64(high[k])
			dst[l] += max(a-v, 0)/math.Abs(a+1e-6) + max(v-b, 0)/math.Abs(b+1e-6)
		}
		from += gramPowers * c
	}
}

func (d *gramNewer) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	if len(d.held) == 0 {
		d.phase = begun
		return d.errorf("no class has %d training images, of which it holds one out", gramHeldEvery)
	}
	fillRanges(d.low, d.high, d.size())
	d.factors = make([]float64, len(d.channels))
	for _, h := range d.held {
		d.excess(h.class, h.values, d.factors)
	}
	for l := range d.factors {
		d.factors[l] /= float64(len(d.held))
	}
	d.held, d.seen = nil, nil
	return nil
}

func (d *gramNewer) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	excess := make([]float64, len(d.channels))
	row := make([]float64, d.classes)
	return d.values(in, func(i int, values []float32) error {
		clear(excess)
		class := argmax(in.Logits[i*d.classes:][:d.classes])
		d.excess(class, values, excess)
		sum := 0.0
		for l, e := range excess {
			if d.factors[l] > 0 {
				sum += e / d.factors[l]
			}
		}
		dst[i] = -sum / softmax(d.logits(in, i, row))[class]
		return nil
	})
}

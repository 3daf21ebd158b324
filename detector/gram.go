package detector

import (
	"math"
	"slices"
)

// gram compares Gram matrices with those of the training images (Sastry and Oore,
// "Detecting Out-of-Distribution Examples with Gram Matrices", ICML 2020), as the
// reference of NAC does: for the stem, the stages but the last, and the penultimate
// feature, and for powers p of 1 to 5, the row sums of the Gram matrix of the
// activation's p-th power, as their p-th root. A class has one range of them for each
// layer and power, over images and channels, and the sum over an image's channels is
// compared with the range of the predicted class: most lie above it, and by the more
// the stronger the activations. The score is the relative excess, divided by 50. (The
// paper compares each channel with a range of its own, and excess means OOD there.) A
// class without training images has the range of all.
type gram struct {
	fitting
	stages    int // that are read
	low, high []float64
}

// gramPowers is how many powers are taken.
const gramPowers = 5

var _ = register(Method{
	Key: "gram", About: "sums of layers' Gram matrices against the class's range, as NAC's reference has it", Paper: "Sastry, ICML 2020",
	make: newGram,
})

func newGram(p params) (Detector, error) {
	d := &gram{fitting: fitting{params: p}}
	d.state = func(s *storage) {
		layers := d.stages + 1
		s.count("layers", &layers)
		if s.err == nil {
			d.stages = layers - 1
			s.float64s("low", &d.low, d.classes, layers, gramPowers)
			s.float64s("high", &d.high, d.classes, layers, gramPowers)
		}
	}
	return d, nil
}

func (d *gram) Begin(n Network) error {
	if err := d.begin(n); err != nil {
		return err
	}
	d.stages = max(0, len(n.Stages)-1)
	d.low = slices.Repeat([]float64{math.Inf(1)}, d.classes*(d.stages+1)*gramPowers)
	d.high = slices.Repeat([]float64{math.Inf(-1)}, len(d.low))
	return nil
}

func gramMap(stage int) Map { return Map{stageName(stage), gramRange{gramPowers}} }

func (d *gram) Needs(n Network, _ Phase) (needs Needs) {
	for i := range len(n.Stages) - 1 {
		needs.Maps = append(needs.Maps, gramMap(i))
	}
	return needs
}

// values calls f with the ranges of each image: least, greatest and sum over channels
// by layer and power.
func (d *gram) values(in *Inputs, f func(i int, values []float32) error) error {
	const size = 3 * gramPowers
	maps := make([][]float32, d.stages)
	for s := range maps {
		v, err := in.mapValues(gramMap(s))
		if err == nil {
			err = rows("Gram matrices", v, in.N, size)
		}
		if err != nil {
			return d.errorf("%w", err)
		}
		maps[s] = v
	}
	all := make([]float32, (d.stages+1)*size)
	pixel := Layer{Channels: d.features, Height: 1, Width: 1}
	for i := range in.N {
		for s, v := range maps {
			copy(all[s*size:], v[i*size:][:size])
		}
		gramRange{gramPowers}.Reduce(d.feature(in, i), pixel, all[d.stages*size:])
		if err := f(i, all); err != nil {
			return err
		}
	}
	return nil
}

func (d *gram) Fit(in *Inputs) error {
	if err := d.fit(in); err != nil {
		return err
	}
	return d.values(in, func(i int, values []float32) error {
		class, err := d.label(in, i)
		if err != nil {
			return err
		}
		width := len(values) / 3
		low, high := d.low[class*width:][:width], d.high[class*width:][:width]
		for k := range width {
			low[k] = min(low[k], float64(values[3*k]))
			high[k] = max(high[k], float64(values[3*k+1]))
		}
		return nil
	})
}

func (d *gram) End() error {
	if err := d.endTrained(); err != nil {
		return err
	}
	fillRanges(d.low, d.high, len(d.low)/d.classes)
	return nil
}

// fillRanges gives the range of all images to classes that have none; a class has width
// ranges.
func fillRanges[T float32 | float64](low, high []T, width int) {
	for k := range width {
		least, greatest := low[k], high[k]
		for at := k; at < len(low); at += width {
			least, greatest = min(least, low[at]), max(greatest, high[at])
		}
		for at := k; at < len(low); at += width {
			if low[at] > high[at] {
				low[at], high[at] = least, greatest
			}
		}
	}
}

func (d *gram) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	return d.values(in, func(i int, values []float32) error {
		width := len(values) / 3
		class := argmax(in.Logits[i*d.classes:][:d.classes])
		sum := 0.0
		for k := range width {
			low, high, v := d.low[class*width+k], d.high[class*width+k], float64(values[3*k+2])
			sum += max(low-v, 0)/math.Abs(low+1e-6) + max(v-high, 0)/math.Abs(high+1e-6)
		}
		dst[i] = sum / 50
		return nil
	})
}

// gramRange is the least, greatest and sum of gramSums over channels, for each power.
type gramRange struct{ powers int }

func (g gramRange) Size(Layer) int { return 3 * g.powers }

func (g gramRange) Reduce(activation []float32, l Layer, dst []float32) {
	sums := make([]float32, g.powers*l.Channels)
	gramSums(g).Reduce(activation, l, sums)
	for p := range g.powers {
		of := sums[p*l.Channels:][:l.Channels]
		total := 0.0
		for _, v := range of {
			total += float64(v)
		}
		dst[3*p], dst[3*p+1], dst[3*p+2] = slices.Min(of), slices.Max(of), float32(total)
	}
}

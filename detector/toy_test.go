package detector

// The toy's image is its feature, 24 values, and so is every activation: of four
// pixels and six channels, in which the four features of a class stand apart.
// Stages are the image and half of it; the convolution is the image less 0.5.

const (
	toyPixels   = 4
	toyChannels = toyFeatures / toyPixels
)

// toyAt is the place of a feature in an activation.
func toyAt(f int) int {
	pixel := f % toyPixels
	return pixel*toyChannels + (f/toyPixels+pixel)%toyChannels
}

func toyLayerOf(name string) Layer {
	return Layer{Name: name, Channels: toyChannels, Height: 2, Width: toyPixels / 2}
}

var toyStages = []Layer{toyLayerOf(stageName(0)), toyLayerOf(stageName(1))}
var toyConvolutions = []Layer{toyLayerOf(convolutionName(0))}

// scaled tells how an activation is made of the image: times scale, plus shift.
func scaled(layer string) (scale, shift float32) {
	switch layer {
	case stageName(0):
		return 1, 0
	case stageName(1):
		return 0.5, 0
	case convolutionName(0):
		return 1, -0.5
	}
	panic("the toy has no layer " + layer)
}

func toyActivation(image []float32, layer string) []float32 {
	a := make([]float32, toyFeatures)
	scale, shift := scaled(layer)
	for f, v := range image {
		a[toyAt(f)] = v*scale + shift
	}
	return a
}

func (t toy) logits(image []float32) []float32 {
	net := t.network()
	logits := append([]float32(nil), net.Bias...)
	for k := range logits {
		for f, v := range image {
			logits[k] += net.Weight[k*toyFeatures+f] * v
		}
	}
	return logits
}

// see returns what a detector needs of a batch in a phase, as package probe would.
func see(d Detector, in *Inputs, p Phase) *Inputs {
	t := toy{}
	needs := d.Needs(t.network(), p)
	out := *in
	for _, m := range needs.Maps {
		out.Maps = append(out.Maps, MapValues{m, toyMap(in, m)})
	}
	for _, f := range needs.Passes {
		moved := &Inputs{N: in.N}
		for i := range in.N {
			image := t.pass(in.Feature[i*toyFeatures:][:toyFeatures], f.Pass)
			moved.Feature = append(moved.Feature, image...)
			moved.Logits = append(moved.Logits, t.logits(image)...)
		}
		for _, m := range f.Maps {
			moved.Maps = append(moved.Maps, MapValues{m, toyMap(moved, m)})
		}
		out.Passes = append(out.Passes, PassInputs{Pass: f.Pass, Inputs: moved})
	}
	return &out
}

func toyMap(in *Inputs, m Map) (all []float32) {
	l := toyLayerOf(m.Layer)
	for i := range in.N {
		dst := make([]float32, m.Reduction.Size(l))
		m.Reduction.Reduce(toyActivation(in.Feature[i*toyFeatures:][:toyFeatures], m.Layer), l, dst)
		all = append(all, dst...)
	}
	return all
}

// pass returns the image that a pass sees.
func (t toy) pass(image []float32, p Pass) []float32 {
	moved := append([]float32(nil), image...)
	switch {
	case p.Move != nil:
		gradient := make([]float32, toyFeatures)
		if layer := p.Loss.Layer(); layer == "" {
			g := make([]float32, toyClasses)
			p.Loss.Gradient(t.logits(image), g)
			for i, w := range t.network().Weight {
				gradient[i%toyFeatures] += w * g[i/toyFeatures]
			}
		} else {
			l := toyLayerOf(layer)
			means, g := make([]float32, toyChannels), make([]float32, toyChannels)
			spatialMean{}.Reduce(toyActivation(image, layer), l, means)
			p.Loss.Gradient(means, g)
			scale, _ := scaled(layer)
			for f := range gradient {
				gradient[f] = g[toyAt(f)%toyChannels] * scale / toyPixels
			}
		}
		p.Move.Apply(image, gradient, moved, 3)
	case p.Change != nil:
		changed := make([]float32, toyFeatures)
		p.Change.Reduce(toyActivation(image, p.From), toyLayerOf(p.From), changed)
		scale, shift := scaled(p.From)
		for f := range moved {
			moved[f] = (changed[toyAt(f)] - shift) / scale
		}
	}
	return moved
}

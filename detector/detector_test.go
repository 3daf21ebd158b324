package detector

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
	"nac/internal/safetensors"
	"nac/metric"
)

// toy is a made network of six classes. Each class has four features of its own;
// the features of an ID image are large for its class, those of an OOD image
// are small for all.
type toy struct{ r *rand.Rand }

const (
	toyClasses  = 6
	toyFeatures = 24
	toyLayer    = "pool"
	// toyEarly is a layer whose activations OOD images put out of their range.
	toyEarly, toyEarlyNeurons = "early", 5
	// toyMiddle is a layer whose neurons go together, but for OOD images.
	toyMiddle, toyMiddleNeurons = "middle", 3
)

func (t toy) network() Network {
	n := Network{
		Classes: toyClasses, Features: toyFeatures, Channels: map[string]int{toyLayer: toyFeatures, toyEarly: toyEarlyNeurons, toyMiddle: toyMiddleNeurons},
		Stages: toyStages, Convolutions: toyConvolutions, Std: [3]float32{0.2, 0.25, 0.3},
		Weight: make([]float32, toyClasses*toyFeatures), Bias: make([]float32, toyClasses),
	}
	r := rand.New(rand.NewPCG(7, 7))
	for i := range n.Weight {
		n.Weight[i] = float32(0.1 * r.NormFloat64())
		if i%toyFeatures/4 == i/toyFeatures {
			n.Weight[i] += 1
		}
	}
	for k := range n.Bias {
		n.Bias[k] = float32(0.1 * r.NormFloat64())
	}
	return n
}

func (t toy) batch(n int, id bool) *Inputs {
	in := &Inputs{N: n, Labels: make([]int, n)}
	net := t.network()
	var z, g, early, middle []float32
	for i := range n {
		label := t.r.IntN(toyClasses)
		in.Labels[i] = label
		for f := range toyFeatures {
			v := 0.3 * t.r.NormFloat64()
			if id && f/4 == label {
				v += 4
			}
			if !id {
				v += 0.5
			}
			v = max(v, 0)
			in.Feature = append(in.Feature, float32(v))
			z = append(z, float32(v))
			sign := float32(1)
			if !id {
				sign = -3
			}
			g = append(g, sign*float32(0.1+0.01*t.r.Float64()))
		}
		for range toyEarlyNeurons {
			v := t.r.NormFloat64()
			if !id {
				v += 1
			}
			early = append(early, float32(v))
		}
		of, own := early[len(early)-toyEarlyNeurons:], float32(0.1)
		if !id {
			own = 1
		}
		for j := range toyMiddleNeurons {
			middle = append(middle, of[0]+own*of[1+j])
		}
		for k := range toyClasses {
			sum := net.Bias[k]
			for f, v := range in.Feature[i*toyFeatures:] {
				sum += net.Weight[k*toyFeatures+f] * v
			}
			in.Logits = append(in.Logits, sum)
		}
	}
	in.States = []coverage.States{{Layer: toyLayer, Z: z, G: g}, {Layer: toyEarly, Z: early}, {Layer: toyMiddle, Z: middle}}
	return in
}

// toyParams are settings for the toy where the published ones, made for hundreds of
// features, do not suit it. A detector's test file may add to them in an init.
var toyParams = map[string]float64{
	"vim.dim": toyClasses, "residual.dim": toyClasses,
	"ash.percentile": 65, "ash_s.percentile": 65, "ash_p.percentile": 65, "dice.p": 50,
}

func toySettings() Settings {
	return Settings{
		Layers:     []coverage.LayerSettings{{Layer: toyLayer, M: 50, O: 5, Alpha: 1}},
		LayerNames: []string{toyLayer, toyEarly, toyMiddle},
		Params:     toyParams,
	}
}

// part returns some images of a batch.
func part(in *Inputs, from, to int) *Inputs { return in.Rows(from, to) }

// tryFit makes all calls of fitting, in batches.
func tryFit(d Detector, n Network, train, val *Inputs, batch int) error {
	if err := d.Begin(n); err != nil {
		return err
	}
	for i := 0; i < train.N; i += batch {
		if err := d.Fit(see(d, train.Rows(i, min(i+batch, train.N)), Fitting)); err != nil {
			return err
		}
	}
	if v, ok := d.(ValidationFitter); ok {
		for i := 0; i < val.N; i += batch {
			if err := v.FitValidation(see(d, val.Rows(i, min(i+batch, val.N)), Validating)); err != nil {
				return err
			}
		}
	}
	return d.End()
}

func fitOn(t *testing.T, d Detector, n Network, train, val *Inputs, batch int) {
	t.Helper()
	if err := tryFit(d, n, train, val, batch); err != nil {
		t.Fatal(err)
	}
}

func fitted(t *testing.T, key string, train, val *Inputs, batch int) Detector {
	t.Helper()
	d, err := New(key, toySettings())
	if err != nil {
		t.Fatal(err)
	}
	fitOn(t, d, toy{}.network(), train, val, batch)
	return d
}

func scores(t *testing.T, d Detector, in *Inputs) []float64 {
	t.Helper()
	s := make([]float64, in.N)
	if err := d.Score(see(d, in, Scoring), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Every detector of the table keeps this contract.
func TestContract(t *testing.T) {
	for _, key := range Keys() {
		t.Run(key, func(t *testing.T) {
			r := toy{rand.New(rand.NewPCG(1, 1))}
			train, val, id, ood := r.batch(600, true), r.batch(100, true), r.batch(200, true), r.batch(200, false)

			fresh, err := New(key, toySettings())
			if err != nil {
				t.Fatal(err)
			}
			if err := fresh.Score(id, make([]float64, id.N)); !errors.Is(err, ErrUnfitted) {
				t.Errorf("scoring before fitting: %v, want ErrUnfitted", err)
			}

			d := fitted(t, key, train, val, 64)
			idScores, oodScores := scores(t, d, id), scores(t, d, ood)
			for _, s := range append(slices.Clone(idScores), oodScores...) {
				if math.IsNaN(s) || math.IsInf(s, 0) {
					t.Fatalf("a score is %v", s)
				}
			}
			if a, err := metric.AUROC(idScores, oodScores); err != nil || a < 0.9 {
				t.Errorf("AUROC of the toy is %v (%v), want at least 0.9: is higher = more ID?", a, err)
			}
			var single []float64
			for i := range id.N {
				single = append(single, scores(t, d, id.Rows(i, i+1))...)
			}
			if !slices.Equal(single, idScores) {
				t.Error("scores depend on the batch they are in")
			}
			if again := scores(t, fitted(t, key, train, val, 7), id); !slices.Equal(again, idScores) {
				t.Error("scores depend on the batches of fitting")
			}

			path := filepath.Join(t.TempDir(), "detector.safetensors")
			if err := Save(path, key, d); err != nil {
				t.Fatal(err)
			}
			gotKey, loaded, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if gotKey != key {
				t.Errorf("loaded as %q", gotKey)
			}
			if !slices.Equal(scores(t, loaded, id), idScores) {
				t.Error("scores differ after saving and loading")
			}
			if err := d.Score(see(d, id, Scoring), make([]float64, 3)); err == nil {
				t.Error("too little room for the scores is accepted")
			}
			short := *see(d, id, Scoring)
			short.Logits, short.States = id.Logits[:5], nil
			if err := d.Score(&short, make([]float64, id.N)); err == nil {
				t.Error("inputs that are too short are accepted")
			}
		})
	}
}

// Values by hand: logits (1, 2, 4).
func TestFormulas(t *testing.T) {
	in := &Inputs{N: 1, Logits: []float32{1, 2, 4}}
	sum := math.Exp(1) + math.Exp(2) + math.Exp(4)
	hot := math.Exp(0.5) + math.Exp(1) + math.Exp(2)
	for _, c := range []struct {
		key  string
		s    Settings
		want float64
	}{
		{"msp", Settings{}, math.Exp(4) / sum},
		{"mls", Settings{}, 4},
		{"ebo", Settings{}, math.Log(sum)},
		{"ebo", Settings{Temperature: 2}, 2 * math.Log(hot)},
	} {
		d, err := New(c.key, c.s)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Begin(Network{Classes: 3, Features: 3}); err != nil {
			t.Fatal(err)
		}
		if got := scores(t, d, in)[0]; math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s %+v: %v, want %v", c.key, c.s, got, c.want)
		}
	}
	// Logits beyond the range of exp.
	huge := &Inputs{N: 1, Logits: []float32{1000, 2000, -3000}}
	for _, key := range []string{"msp", "ebo"} {
		d, _ := New(key, Settings{})
		if err := d.Begin(Network{Classes: 3, Features: 3}); err != nil {
			t.Fatal(err)
		}
		if s := scores(t, d, huge)[0]; math.IsNaN(s) || math.IsInf(s, 0) {
			t.Errorf("%s of huge logits is %v", key, s)
		}
	}
}

func TestWrongSettings(t *testing.T) {
	layer := func(f func(*coverage.LayerSettings)) Settings {
		s := toySettings()
		f(&s.Layers[0])
		return s
	}
	for _, c := range []struct {
		key  string
		s    Settings
		says string
	}{
		{"nac", Settings{}, "layers"},
		{"nac", layer(func(l *coverage.LayerSettings) { l.M = 1 }), "M"},
		{"nac", layer(func(l *coverage.LayerSettings) { l.O = 0 }), "O"},
		{"nac", layer(func(l *coverage.LayerSettings) { l.Alpha = math.NaN() }), "alpha"},
		{"nac", Settings{Layers: append(toySettings().Layers, toySettings().Layers...)}, "twice"},
		{"ebo", Settings{Temperature: -1}, "temperature"},
		{"mahalanobis++", Settings{}, "nac, nac_auto, nac_fusion, "},
	} {
		if _, err := New(c.key, c.s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %+v: %v, want an error about %s", c.key, c.s, err, c.says)
		}
	}
	d, _ := New("nac", toySettings())
	if err := d.Begin(Network{Classes: 2, Channels: map[string]int{"other": 4}}); err == nil || !strings.Contains(err.Error(), toyLayer) {
		t.Errorf("a network without the layer: %v", err)
	}
}

func TestLoadWrongFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, meta map[string]string) string {
		path := filepath.Join(dir, name)
		if err := safetensors.Write(path, []safetensors.Tensor{safetensors.Uint8("coverage", []int{2}, []uint8{1, 2})}, meta); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("not a detector"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		filepath.Join(dir, "absent"), text,
		write("foreign", map[string]string{"format": "pt"}),
		write("future", map[string]string{"format": fileFormat, "version": "9", "detector": "nac"}),
		write("unknown", map[string]string{"format": fileFormat, "version": fileVersion, "detector": "oracle", "settings": "{}"}),
		write("settings", map[string]string{"format": fileFormat, "version": fileVersion, "detector": "nac", "settings": "{"}),
		write("coverage", map[string]string{"format": fileFormat, "version": fileVersion, "detector": "nac", "settings": `{"layers":[{"layer":"pool","M":50,"O":5,"alpha":1,"func":"o"}]}`}),
	} {
		if _, _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names the file", path, err)
		}
	}
}

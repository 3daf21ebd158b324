package nac

import (
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"testing"

	"nac/detector"
	"nac/imageset"
)

func TestExplain(t *testing.T) {
	m := fashionModel(t)
	images := fashionList(t, "main_train_fashion")
	images.Items = images.Items[:200]
	decode := func(path string) *imageset.Image {
		img, err := imageset.Decode(path)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	digit := decode(fashionList(t, "test_mnist").Items[0].Path)
	for _, key := range []string{"nac", "nac_auto"} {
		o := fashionOptions()
		o.Detector = key
		d, err := Fit(t.Context(), m, images, o)
		if err != nil {
			t.Fatal(err)
		}
		e, err := d.Explain(t.Context(), digit)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := d.Score(t.Context(), digit); err != nil || r != e.Result {
			t.Errorf("%s: explained %+v, scored %+v (%v)", key, e.Result, r, err)
		}
		mean := 0.0
		for i, l := range e.Layers {
			mean += l.Covered / float64(len(e.Layers))
			if l.LayerInfo != d.Info().Layers[i] || l.Low > l.Median || l.Median <= 0 {
				t.Errorf("%s: %+v", key, l.LayerInfo)
			}
			for k := range l.Least {
				if k > 0 && l.Least[k-1].Covered > l.Least[k].Covered {
					t.Errorf("%s: the least covered do not rise: %v", key, l.Least)
				}
			}
		}
		if key == "nac" && math.Abs(mean-e.Score) > 1e-6 {
			t.Errorf("the layers' coverage is %v on average, the score %v", mean, e.Score)
		}

		// What the map adds up to is known from the pooled states, another way through the
		// network: the uncovered share of all activation.
		input := make([]float32, d.engine.size)
		if err := d.info.Transform.Apply(digit, input); err != nil {
			t.Fatal(err)
		}
		err = d.engine.run(t.Context(), input, 1, func(in *detector.Inputs) error {
			neurons, err := d.fitted.(detector.Explainer).Neurons(in)
			for i, n := range neurons {
				z := in.Feature
				if !n.Feature {
					for _, s := range in.States {
						if s.Layer == n.Layer {
							z = s.Z
						}
					}
				}
				all, open, sum := 0.0, 0.0, 0.0
				for c, v := range z {
					all += float64(v)
					open += float64(v) * float64(1-n.Covered[c])
				}
				l := e.Layers[i]
				for _, v := range l.Map {
					sum += float64(v) / float64(len(l.Map))
				}
				if len(l.Map) != l.Height*l.Width || l.Height < 8 || math.Abs(sum-open/all) > 1e-4 {
					t.Errorf("%s, %s: a map of %d values with mean %v, want %v", key, n.Layer, len(l.Map), sum, open/all)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}

		// A calibration image is its own nearest.
		known := d.ref.names[3]
		own, err := d.Explain(t.Context(), decode(known))
		if err != nil {
			t.Fatal(err)
		}
		if n := own.Nearest; len(n) != neighbors || n[0].Path != known || n[0].Distance != 0 || n[1].Distance == 0 {
			t.Errorf("%s: nearest to %s: %+v", key, known, n)
		}
		path := filepath.Join(t.TempDir(), "detector.nac")
		if err := d.Save(path); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(path, m)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := loaded.Explain(t.Context(), digit); err != nil || !reflect.DeepEqual(e, again) {
			t.Errorf("%s: saved and loaded, it explains otherwise (%v)", key, err)
		}
	}
	o := fashionOptions()
	o.Detector = "msp"
	d, err := Fit(t.Context(), m, images, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Explain(t.Context(), digit); !errors.Is(err, ErrNoCoverage) {
		t.Errorf("msp explains: %v", err)
	}
}

package nac

import (
	"context"
	"path/filepath"
	"testing"

	"nac/arch"
	"nac/imageset"
)

// BenchmarkScore is one image of ResNet18_32x32 through the library, states and score,
// with the network planned for batches and for lone images.
func BenchmarkScore(b *testing.B) {
	ctx := context.Background()
	weights, err := arch.Init("resnet18_32x32", arch.InitOptions{Seed: 1, Classes: 10})
	if err != nil {
		b.Fatal(err)
	}
	network, err := arch.Load("resnet18_32x32", weights)
	if err != nil {
		b.Fatal(err)
	}
	m := NewModel(network, "random")
	images := fashionList(b, "main_train_fashion")
	images.Items = images.Items[:200]
	o := fashionOptions()
	o.Detector = "nac"
	fitted, err := Fit(ctx, m, images, o)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "detector.nac")
	if err := fitted.Save(path); err != nil {
		b.Fatal(err)
	}
	img, err := imageset.Decode(images.Items[0].Path)
	if err != nil {
		b.Fatal(err)
	}
	for _, plan := range []struct {
		name  string
		batch int
	}{{"batches", batchImages}, {"lone", 1}} {
		b.Run(plan.name, func(b *testing.B) {
			d, err := Load(path, m.WithBatch(plan.batch))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := d.Score(ctx, img); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

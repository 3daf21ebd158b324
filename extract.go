package nac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/internal/kernel"
)

// Extractor runs a model over images for what a FitPlan keeps of them. It may be used
// by many goroutines at once: images that come together are run together.
type Extractor struct {
	engine *engine
	load   imageset.LoadOptions
}

// Extractor makes one. It fails on a machine whose instruction set is another than that
// of the plan.
func (m *Model) Extractor(y Yield) (*Extractor, error) {
	if have := kernel.Best().Name(); y.Kernel != "" && have != y.Kernel {
		return nil, fmt.Errorf("nac: this machine computes with %s, the plan was made with %s: results would differ in the last digits", have, y.Kernel)
	}
	e, err := newEngine(m, y.Transform, detector.Fitting, func(detector.Network, detector.Phase) detector.Needs {
		return detector.Needs{Layers: y.Layers, Gradients: y.Gradients}
	})
	if err != nil {
		return nil, err
	}
	in := m.info.Input
	return &Extractor{e, imageset.LoadOptions{Transform: y.Transform, Height: in[1], Width: in[2], BatchSize: batchImages}}, nil
}

// Run gives take what the model yields for each of the items, in order and by its index,
// or why there is nothing. Memory does not grow with the number of items. Paths are
// opened in fsys; nil is the operating system.
func (x *Extractor) Run(ctx context.Context, fsys fs.FS, items []imageset.Item, take func(index int, row FitRow) error) error {
	loader := imageset.Stream(ctx, fsys, imageset.List{Items: items}.All(), x.load)
	defer loader.Close()
	for {
		b, err := loader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		rows := make([]FitRow, len(b.Items))
		for _, f := range b.Failed {
			rows[f.Index-b.First].Reason = f.Err.Error()
		}
		err = x.engine.run(ctx, b.Images, b.N, func(in *detector.Inputs) error {
			for i := range in.N {
				row := in.Rows(i, i+1)
				to := &rows[b.Index[i]-b.First]
				if _, _, err := classify(row.Logits); err != nil {
					to.Reason = err.Error()
					continue
				}
				// The next run writes over what this one yielded.
				to.Logits, to.Feature = slices.Clone(row.Logits), slices.Clone(row.Feature)
				for _, s := range row.States {
					to.States = append(to.States, coverage.States{Layer: s.Layer, Z: slices.Clone(s.Z), G: slices.Clone(s.G)})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, row := range rows {
			if err := take(b.First+i, row); err != nil {
				return err
			}
		}
		b.Release()
	}
}

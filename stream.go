package nac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"nac/imageset"
)

// Scored is an image of a stream and what the detector says of it.
type Scored struct {
	Path string
	Result
	// Err is why there is no result: a file that cannot be read, or an image that the
	// network cannot compute.
	Err error
}

// ScoreAll scores images in their order as they come, in constant memory; decoding
// goes on while the network runs. An image that cannot be scored has an Err, and the
// next one follows. What ends the stream, such as ctx or an error in the sequence of
// items, comes last as an error. Paths are opened in fsys; nil is the operating system.
// Sequences come from package imageset: List.All, Find.
func (d *Detector) ScoreAll(ctx context.Context, fsys fs.FS, items iter.Seq2[imageset.Item, error]) iter.Seq2[Scored, error] {
	return func(yield func(Scored, error) bool) {
		if d.engine == nil {
			yield(Scored{}, fmt.Errorf("nac: %w", ErrNoModel))
			return
		}
		in := d.info.Model.Input
		loader := imageset.Stream(ctx, fsys, items, imageset.LoadOptions{
			Transform: d.info.Transform, Height: in[1], Width: in[2], BatchSize: batchImages,
		})
		defer loader.Close()
		var scored []Scored
		for {
			b, err := loader.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				scored, err = d.scoreBatch(ctx, b, scored[:0])
				b.Release()
			}
			if err != nil {
				yield(Scored{}, err)
				return
			}
			for _, s := range scored {
				if !yield(s, nil) {
					return
				}
			}
		}
	}
}

// scoreBatch appends what the detector says of each image of a batch, good or bad.
func (d *Detector) scoreBatch(ctx context.Context, b *imageset.Batch, scored []Scored) ([]Scored, error) {
	results := make([]Result, b.N)
	errs := make([]error, b.N)
	if err := d.ScoreTensors(ctx, b.Images, results); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		// One image may spoil the batch: each by itself.
		size := d.engine.size
		for i := range results {
			errs[i] = d.ScoreTensors(ctx, b.Images[i*size:(i+1)*size], results[i:i+1])
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	for _, item := range b.Items {
		scored = append(scored, Scored{Path: item.Path})
	}
	for i, at := range b.Index {
		s := &scored[at-b.First]
		if s.Result, s.Err = results[i], errs[i]; s.Err != nil {
			s.Result = Result{}
		}
	}
	for _, f := range b.Failed {
		scored[f.Index-b.First].Err = f.Err
	}
	return scored, nil
}

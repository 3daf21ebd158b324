package train

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"nac/imageset"
)

// Samples is a set of labelled images.
type Samples interface {
	Len() int
	Label(i int) int
	// Image writes sample i, as the network takes it (C×H×W), into dst. r is the source
	// of what augmentation draws; nil asks for the image as it is evaluated. It may be
	// called by several goroutines at once.
	Image(i int, r *rand.Rand, dst []float32) error
}

// Files are the images of a list.
type Files struct {
	List imageset.List
	// Size is the side of the network's square images.
	Size int
	// Resize is the shorter side from which evaluation cuts out its centre; 0 squeezes
	// the picture to the size.
	Resize    int
	Mean, Std [3]float32
	Augment   Augment
}

func (f *Files) Len() int        { return len(f.List.Items) }
func (f *Files) Label(i int) int { return f.List.Items[i].Label }

// Image reads, augments and normalises an image.
func (f *Files) Image(i int, r *rand.Rand, dst []float32) error {
	img, err := imageset.DecodeFS(f.List.FS, f.List.Items[i].Path)
	if err != nil {
		return err
	}
	t := imageset.Transform{Crop: f.Size, Mean: f.Mean, Std: f.Std}
	switch {
	case r != nil:
		img, err = f.Augment.Apply(img, f.Size, f.Size, r)
	case f.Resize > 0:
		t.Resize = f.Resize
	case img.Width != f.Size || img.Height != f.Size:
		img, err = img.Resized(f.Size, f.Size, imageset.Bilinear)
	}
	if err == nil {
		err = t.Apply(img, dst)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.List.Items[i].Path, err)
	}
	return nil
}

// Check looks whether every label is one of the classes.
func (f *Files) Check(classes int) error {
	for _, it := range f.List.Items {
		if it.Label < 0 || it.Label >= classes {
			return fmt.Errorf("%s: %s has label %d; there are classes 0 to %d", f.List.Name, it.Path, it.Label, classes-1)
		}
	}
	return nil
}

// Pick is a sample of a batch.
type Pick struct {
	Samples Samples
	Index   int
	// Augment asks for augmentation, drawn by Seed.
	Augment bool
	Seed    uint64
}

// Batch is a run of images.
type Batch struct {
	Images []float32
	Labels []int
	N      int
}

// Loader makes batches ahead of the one who trains.
type Loader struct {
	results chan loaded
	stop    context.CancelFunc
	done    chan struct{}
}

type loaded struct {
	batch *Batch
	err   error
}

// NewLoader begins to make the batches of plan, which is called with 0, 1, ...
// until it returns nothing. An image takes imageFloats values. The caller must read
// to the end or call Close.
func NewLoader(ctx context.Context, imageFloats, workers int, plan func(batch int) []Pick) *Loader {
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, stop := context.WithCancel(ctx)
	l := &Loader{results: make(chan loaded, 2), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer close(l.results)
		for i := 0; ; i++ {
			picks := plan(i)
			if len(picks) == 0 {
				return
			}
			b, err := load(ctx, picks, imageFloats, workers)
			select {
			case l.results <- loaded{b, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return l
}

func load(ctx context.Context, picks []Pick, size, workers int) (*Batch, error) {
	b := &Batch{Images: make([]float32, len(picks)*size), Labels: make([]int, len(picks)), N: len(picks)}
	errs := make([]error, len(picks))
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(workers, len(picks)) {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(picks) || ctx.Err() != nil {
					return
				}
				p := picks[i]
				var r *rand.Rand
				if p.Augment {
					r = rand.New(rand.NewPCG(p.Seed, uint64(p.Index)))
				}
				b.Labels[i] = p.Samples.Label(p.Index)
				errs[i] = p.Samples.Image(p.Index, r, b.Images[i*size:(i+1)*size])
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Next returns the next batch, or io.EOF after the last.
func (l *Loader) Next() (*Batch, error) {
	r, ok := <-l.results
	if !ok {
		return nil, io.EOF
	}
	return r.batch, r.err
}

// Close ends the work.
func (l *Loader) Close() {
	l.stop()
	for range l.results {
	}
	<-l.done
}

// Seed mixes numbers into a seed.
func Seed(parts ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, p := range parts {
		z := h ^ (p + 0x9e3779b97f4a7c15 + h<<6 + h>>2)
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		h = z ^ z>>31
	}
	return h
}

package imageset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
)

// OnError says what a Loader does about an image that cannot be read.
type OnError int

const (
	// Stop ends the run with an error that names the list and the image.
	Stop OnError = iota
	// Skip leaves the image out and notes why in Skipped.
	Skip
)

// LoadOptions are the settings of Load.
type LoadOptions struct {
	Transform Transform
	// Height and Width are the size that every image must have when Transform
	// crops nothing; otherwise they are not read.
	Height, Width int
	// BatchSize is the number of images of a batch, 64 if 0. The last batch of a
	// list, and one with skipped images, holds fewer.
	BatchSize int
	// Workers is the number of images decoded at once, GOMAXPROCS if 0.
	Workers int
	// Ahead is the number of batches that are made while the consumer works on
	// its own, 2 if 0. It bounds the memory.
	Ahead   int
	OnError OnError
	// MaxPixels is the size from which on a picture is refused; the constant of
	// the same name if 0.
	MaxPixels int
}

func (o *LoadOptions) defaults() error {
	if o.BatchSize == 0 {
		o.BatchSize = 64
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Ahead == 0 {
		o.Ahead = 2
	}
	if o.MaxPixels == 0 {
		o.MaxPixels = MaxPixels
	}
	if h, w := o.Transform.Size(); h > 0 {
		o.Height, o.Width = h, w
	}
	switch {
	case o.BatchSize < 0:
		return fmt.Errorf("loader: batch size %d: want a positive number", o.BatchSize)
	case o.Workers < 0:
		return fmt.Errorf("loader: %d workers: want a positive number", o.Workers)
	case o.Ahead < 0:
		return fmt.Errorf("loader: %d batches ahead: want a positive number", o.Ahead)
	case o.MaxPixels < 0:
		return fmt.Errorf("loader: a limit of %d pixels: want a positive number", o.MaxPixels)
	case o.OnError != Stop && o.OnError != Skip:
		return fmt.Errorf("loader: unknown OnError %d", o.OnError)
	case o.Height <= 0 || o.Width <= 0:
		return errors.New("loader: the transform crops nothing, so that Height and Width must say how large all images are")
	}
	return o.Transform.Validate()
}

// MemoryBytes returns how much memory the batches take at most, with the one that
// the consumer holds. Files and pictures being decoded come on top.
func (o LoadOptions) MemoryBytes() int64 {
	if o.defaults() != nil {
		return 0
	}
	return 4 * 3 * int64(o.Height) * int64(o.Width) * int64(o.BatchSize) * int64(o.Ahead+2)
}

// Batch is a run of decoded images in list order.
type Batch struct {
	Images []float32 // N × 3 × height × width
	N      int
	Index  []int // position of each image in List.Items
	Labels []int
	// Items and Failed are filled in by Stream: all images of the run, of which the
	// first is at position First, and those left out, in order.
	First  int
	Items  []Item
	Failed []Failure

	loader *Loader
	work   *work
}

// Failure is an image that could not be read.
type Failure struct {
	Index int
	Err   error
}

// Release gives the batch's memory back for later ones; its slices must not be
// used after that. It may be left out, which costs an allocation, and called
// twice.
func (b *Batch) Release() {
	if b.work == nil {
		return
	}
	w, l := b.work, b.loader
	*b = Batch{}
	l.recycle(w)
}

// work is a batch in the making and the memory it is made in.
type work struct {
	images []float32
	items  []Item
	index  []int
	labels []int
	errs   []error
	failed []Failure
	first  int   // position in the list of the first image
	after  error // of the sequence of items, behind these
	open   atomic.Int64
	done   chan struct{} // closed when no image is open
}

type task struct {
	w        *work
	from, to int
}

// Loader decodes a list's images in the background. Its methods are for one
// goroutine at a time.
type Loader struct {
	list   List // without its items
	items  iter.Seq2[Item, error]
	stream bool
	opt    LoadOptions

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	ready chan *work    // batches in order, done or not
	slots chan struct{} // one per batch that is ready or in the making
	free  chan *work    // memory to use again

	err     error // what Next goes on to return
	pending error // what it is to return next
	skipped []error
}

// Load begins to decode list. Wrong options are reported by the first Next. The
// caller must read to the end, or to an error, or call Close.
func Load(ctx context.Context, list List, options LoadOptions) *Loader {
	l := &Loader{list: list, items: list.All(), opt: options}
	l.begin(ctx, len(list.Items))
	return l
}

// Stream is Load of images that come one after the other, for as many as do not fit
// in memory: nothing is kept of them. Paths are opened in fsys; nil is the operating
// system. Images that cannot be read are reported by the batch they would be in,
// whatever OnError says, and Skipped stays empty. An error in the sequence ends it.
func Stream(ctx context.Context, fsys fs.FS, items iter.Seq2[Item, error], options LoadOptions) *Loader {
	options.OnError = Skip
	l := &Loader{list: List{FS: fsys}, items: items, stream: true, opt: options}
	l.begin(ctx, math.MaxInt)
	return l
}

// begin starts the workers, no more than there may be images.
func (l *Loader) begin(ctx context.Context, most int) {
	l.ctx, l.cancel = context.WithCancel(ctx)
	if err := l.opt.defaults(); err != nil {
		l.fail(err)
		return
	}
	l.ready = make(chan *work, l.opt.Ahead)
	l.slots = make(chan struct{}, l.opt.Ahead)
	l.free = make(chan *work, l.opt.Ahead+2)
	tasks := make(chan task)
	l.wait.Add(1)
	go l.dispatch(tasks)
	for range min(l.opt.Workers, max(most, 1)) {
		l.wait.Add(1)
		go l.decode(tasks)
	}
}

// dispatch hands out the images in list order, at most Ahead batches ahead.
func (l *Loader) dispatch(tasks chan<- task) {
	defer l.wait.Done()
	defer close(tasks)
	defer close(l.ready)
	// A few images a task make the hand-over cheap for small images, and still
	// leave work for all at a batch's end.
	chunk := min(max(l.opt.BatchSize/(4*l.opt.Workers), 1), 16)
	next, stop := iter.Pull2(l.items)
	defer stop()
	for first := 0; ; {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		w := l.room(first)
		for len(w.items) < l.opt.BatchSize {
			item, err, ok := next()
			if !ok || err != nil {
				w.after = err
				break
			}
			w.items = append(w.items, item)
		}
		n := len(w.items)
		if n == 0 && w.after == nil {
			return
		}
		w.open.Store(int64(n))
		if n == 0 {
			close(w.done)
		}
		l.ready <- w // has room, as there is a slot
		for from := 0; from < n; from += chunk {
			select {
			case tasks <- task{w, from, min(from+chunk, n)}:
			case <-l.ctx.Done():
				return
			}
		}
		if first += n; n < l.opt.BatchSize {
			return
		}
	}
}

// room returns a work for images from the position first on.
func (l *Loader) room(first int) *work {
	var w *work
	select {
	case w = <-l.free:
	default:
		size := l.opt.BatchSize
		w = &work{
			images: make([]float32, size*3*l.opt.Height*l.opt.Width),
			index:  make([]int, size),
			labels: make([]int, size),
			errs:   make([]error, size),
		}
	}
	w.first, w.items, w.failed, w.after = first, w.items[:0], w.failed[:0], nil
	w.done = make(chan struct{})
	return w
}

func (l *Loader) recycle(w *work) {
	select {
	case l.free <- w:
	default:
	}
}

// decode is one worker.
func (l *Loader) decode(tasks <-chan task) {
	defer l.wait.Done()
	var (
		dec  decoder
		app  applier
		file []byte
	)
	if err := app.set(l.opt.Transform); err != nil {
		panic(err) // validated by Load
	}
	size := 3 * l.opt.Height * l.opt.Width
	for t := range tasks {
		for i := t.from; i < t.to; i++ {
			if err := l.ctx.Err(); err != nil {
				t.w.errs[i] = err
				continue
			}
			item := t.w.items[i]
			data, err := readFile(l.list.FS, item.Path, maxImageFile, file)
			if err == nil {
				var img *Image
				if img, err = dec.decode(item.Path, data, l.opt.MaxPixels); err == nil {
					if err = app.apply(img, t.w.images[i*size:][:size]); err != nil {
						err = fmt.Errorf("image %s of %dx%d pixels: %w", item.Path, img.Width, img.Height, err)
					}
				}
				if cap(data) > cap(file) && cap(data) <= keepBytes {
					file = data
				}
				// One giant picture must not hold memory for the rest of the run.
				if cap(dec.img.Pix) > keepBytes {
					dec, app.resizer = decoder{}, resizer{}
				}
			}
			t.w.errs[i] = err
		}
		if t.w.open.Add(int64(t.from-t.to)) == 0 {
			close(t.w.done)
		}
	}
}

// keepBytes is the largest buffer that a worker keeps for the next image.
const keepBytes = 64 << 20

// Next returns the next batch. After the last it returns io.EOF; after an error,
// which may be the context's, it goes on to return that.
func (l *Loader) Next() (*Batch, error) {
	for {
		if l.err != nil {
			return nil, l.err
		}
		if l.pending != nil {
			return nil, l.fail(l.pending)
		}
		var w *work
		select {
		case w = <-l.ready:
		case <-l.ctx.Done():
			return nil, l.fail(context.Cause(l.ctx))
		}
		if w == nil {
			if err := l.ctx.Err(); err != nil {
				return nil, l.fail(err)
			}
			return nil, l.fail(io.EOF)
		}
		select {
		case <-w.done:
		case <-l.ctx.Done():
			return nil, l.fail(context.Cause(l.ctx))
		}
		<-l.slots
		b, err := l.batch(w)
		if err != nil {
			return nil, l.fail(err)
		}
		if b != nil {
			return b, nil
		}
	}
}

// batch moves the good images of w together. It returns nil if there is nothing to
// tell of.
func (l *Loader) batch(w *work) (*Batch, error) {
	size := 3 * l.opt.Height * l.opt.Width
	n := 0
	for i, item := range w.items {
		if err := w.errs[i]; err != nil {
			if ctxErr := l.ctx.Err(); ctxErr != nil {
				return nil, ctxErr
			}
			if l.stream {
				w.failed = append(w.failed, Failure{w.first + i, err})
				continue
			}
			err = fmt.Errorf("image list %s: %w", l.list.Name, err)
			if l.opt.OnError == Stop {
				return nil, err
			}
			l.skipped = append(l.skipped, err)
			continue
		}
		if n != i {
			copy(w.images[n*size:][:size], w.images[i*size:][:size])
		}
		w.index[n] = w.first + i
		w.labels[n] = item.Label
		n++
	}
	l.pending = w.after
	if n == 0 && len(w.failed) == 0 {
		l.recycle(w)
		return nil, nil
	}
	b := &Batch{Images: w.images[:n*size], N: n, Index: w.index[:n], Labels: w.labels[:n], First: w.first, loader: l, work: w}
	if l.stream {
		b.Items, b.Failed = w.items, w.failed
	}
	return b, nil
}

// fail ends the work and makes err what Next returns from now on.
func (l *Loader) fail(err error) error {
	l.err = err
	l.cancel()
	l.wait.Wait()
	return err
}

// Skipped returns why each image left out so far was left out, in list order.
func (l *Loader) Skipped() []error { return l.skipped }

// Close ends the work and waits for the workers. It may be called at any time
// and more than once; batches handed out stay valid.
func (l *Loader) Close() {
	if l.err == nil {
		l.fail(errors.New("loader: closed"))
	}
}

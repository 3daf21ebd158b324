package nacbeam

import (
	"context"
	"reflect"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"nac/imageset"
)

// Image is one image to be read by a worker.
type Image struct {
	Set      string // what it is for
	Position int64  // in the set
	Path     string // as package imageset reads it: a file, or a member of a tar archive
	Label    int64
}

// Failure is an image that could not be read or computed, and why.
type Failure struct {
	Set      string
	Position int64
	Path     string
	Label    int64
	Reason   string
}

func init() {
	beam.RegisterType(reflect.TypeFor[Image]())
	beam.RegisterType(reflect.TypeFor[Failure]())
	beam.RegisterDoFn(&listFn{})
}

// archives is how images are opened: files, and members of tar archives, of which a
// process keeps a few indexes.
var archives = sync.OnceValue(func() *imageset.Shards { return &imageset.Shards{Keep: 4} })

// ReadImages lists the images of files, folders, tar archives and lists, as "nac score"
// does; paths in lists are relative to root. They are named set, and spread over the
// workers, which must see the same paths.
func ReadImages(s beam.Scope, set string, places []string, root string) beam.PCollection {
	s = s.Scope("ReadImages")
	return beam.Reshuffle(s, beam.ParDo(s, &listFn{Set: set, Places: places, Root: root}, beam.Impulse(s)))
}

type listFn struct {
	Set    string
	Places []string
	Root   string
}

func (f *listFn) ProcessElement(ctx context.Context, _ []byte, emit func(Image)) error {
	position := int64(0)
	for item, err := range imageset.Find(archives(), f.Root, f.Places...) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		emit(Image{f.Set, position, item.Path, int64(item.Label)})
		position++
	}
	return nil
}

// batchImages is how many images, paths alone, a bundle gathers before they are run: the
// network takes 64 at a time, while the next are decoded.
const batchImages = 512

// batch gathers images of a bundle.
type batch struct{ images []Image }

// add returns the gathered images when there are enough.
func (b *batch) add(img Image) []Image {
	b.images = append(b.images, img)
	if len(b.images) < batchImages {
		return nil
	}
	return b.take()
}

// take returns what was gathered.
func (b *batch) take() []Image {
	images := b.images
	b.images = nil
	return images
}

func items(images []Image) []imageset.Item {
	all := make([]imageset.Item, len(images))
	for i, img := range images {
		all[i] = imageset.Item{Path: img.Path, Label: int(img.Label)}
	}
	return all
}

func (i Image) failed(reason string) Failure {
	return Failure{i.Set, i.Position, i.Path, i.Label, reason}
}

// once makes one thing of each key in a process, however many ask for it at once.
type once[T any] struct{ made sync.Map }

func (o *once[T]) get(key string, open func() (T, error)) (T, error) {
	f, _ := o.made.LoadOrStore(key, sync.OnceValues(open))
	return f.(func() (T, error))()
}

package openood

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"nac/imageset"
)

// Source is where a set's images come from.
type Source interface {
	// Labels are the classes of all images in order, negative for OOD.
	Labels() []int
	// Path names an image in reports.
	Path(i int) string
	// Open begins to read the images of the given indices in that order; nil
	// means all.
	Open(ctx context.Context, indices []int) Stream
	// MemoryBytes is about what a stream holds.
	MemoryBytes() int64
}

// Stream yields batches in order, then io.EOF. Batch.Index counts positions among
// the indices asked for.
type Stream interface {
	Next() (*imageset.Batch, error)
	// Skipped tells of the images left out.
	Skipped() []error
	Close()
}

// Files is the Source of a list of image files.
func Files(list imageset.List, options imageset.LoadOptions) Source {
	return &files{list, options}
}

type files struct {
	list    imageset.List
	options imageset.LoadOptions
}

func (f *files) Labels() []int {
	labels := make([]int, len(f.list.Items))
	for i, item := range f.list.Items {
		labels[i] = item.Label
	}
	return labels
}

func (f *files) Path(i int) string { return f.list.Items[i].Path }

// Bytes is the size of an image's file, -1 if there is none.
func (f *files) Bytes(i int) int64 {
	var info fs.FileInfo
	var err error
	if path := f.list.Items[i].Path; f.list.FS == nil {
		info, err = os.Stat(path)
	} else {
		info, err = fs.Stat(f.list.FS, path)
	}
	if err != nil {
		return -1
	}
	return info.Size()
}

func (f *files) MemoryBytes() int64 { return f.options.MemoryBytes() }

func (f *files) Open(ctx context.Context, indices []int) Stream {
	list := f.list
	if indices != nil {
		list.Items = make([]imageset.Item, len(indices))
		for i, j := range indices {
			list.Items[i] = f.list.Items[j]
		}
	}
	return imageset.Load(ctx, list, f.options)
}

// Tensors is the Source of images that are decoded and normalised already: n
// images of size floats each, in batches of batch.
func Tensors(name string, images []float32, labels []int, batch int) Source {
	return &tensors{name, images, labels, batch}
}

type tensors struct {
	name   string
	images []float32
	labels []int
	batch  int
}

func (t *tensors) Labels() []int      { return t.labels }
func (t *tensors) Path(i int) string  { return fmt.Sprintf("%s[%d]", t.name, i) }
func (t *tensors) MemoryBytes() int64 { return 4 * int64(len(t.images)) }

func (t *tensors) Open(_ context.Context, indices []int) Stream {
	if indices == nil {
		indices = make([]int, len(t.labels))
		for i := range indices {
			indices[i] = i
		}
	}
	return &tensorStream{tensors: t, indices: indices}
}

type tensorStream struct {
	*tensors
	indices []int
	at      int
}

func (s *tensorStream) Next() (*imageset.Batch, error) {
	if s.at == len(s.indices) {
		return nil, io.EOF
	}
	size := len(s.images) / len(s.labels)
	b := &imageset.Batch{}
	for ; s.at < len(s.indices) && b.N < s.batch; s.at++ {
		i := s.indices[s.at]
		b.Images = append(b.Images, s.images[i*size:(i+1)*size]...)
		b.Index = append(b.Index, s.at)
		b.Labels = append(b.Labels, s.labels[i])
		b.N++
	}
	return b, nil
}

func (*tensorStream) Skipped() []error { return nil }
func (*tensorStream) Close()           {}

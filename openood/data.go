package openood

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"nac/coverage"
	"nac/imageset"
)

// Data are the images of a benchmark.
type Data struct {
	// Train are the images that detectors are fitted on; TrainIndices are those
	// of them that are used, nil for all. SubTrain, for the overfitting check, are
	// training images that are not fitted on; nil if there are none.
	Train        Source
	TrainIndices []int
	SubTrain     Source
	SubIndices   []int
	// Val and Test are ID.
	Val, Test Source
	// ValOOD is for choosing settings; nil if its list is absent.
	ValOOD    Source
	Near, Far []Images
	// CSID are covariate-shifted ID sets; none unless they were asked for.
	CSID []Images
	// Base is the folder that paths in a cache are relative to; empty for none.
	Base string
	// CacheDir is the cache that sets are read from; see UseCache.
	CacheDir string
	// Absent lists the sets of the benchmark whose list is not there.
	Absent []string
	// Partial are the test sets that have not as many images as OpenOOD's.
	Partial []Partial
}

// Partial is a set whose list has Images images where OpenOOD's has Of.
type Partial struct {
	Set    string `json:"set"`
	Images int    `json:"images"`
	Of     int    `json:"of"`
}

// Images is a named OOD set.
type Images struct {
	Name   string
	Source Source
}

// Layout says where a benchmark's files are: OpenOOD's folders below Dir, or in
// FS if that is not nil.
type Layout struct {
	Dir string
	FS  fs.FS
	// Lists is the folder of lists; empty means benchmark_imglist.
	Lists string
	// Images is the folder that paths in lists are relative to; empty means the
	// benchmark's.
	Images string
}

func (l Layout) join(elem ...string) string {
	if l.FS != nil {
		return path.Join(elem...)
	}
	return filepath.Join(append([]string{l.Dir}, elem...)...)
}

// ListsOf returns the folder of a benchmark's lists.
func (l Layout) ListsOf(benchmark string) string {
	return l.join(cmp.Or(l.Lists, "benchmark_imglist"), benchmark)
}

// read returns the named list, and whether it is there.
func (l Layout) read(b Benchmark, list, root string) (imageset.List, bool, error) {
	root = l.join(cmp.Or(root, l.Images, b.Root, "images_classic"))
	r, there, err := l.readFrom(l.ListsOf(b.Name), list, root)
	if !there && err == nil && b.Lists != "" {
		return l.readFrom(l.ListsOf(b.Lists), list, root)
	}
	return r, there, err
}

func (l Layout) readFrom(dir, list, root string) (r imageset.List, there bool, err error) {
	if l.FS != nil {
		r, err = imageset.ReadListFS(l.FS, path.Join(dir, list+".txt"), root)
	} else {
		r, err = imageset.ReadList(filepath.Join(dir, list+".txt"), root)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	return r, err == nil, err
}

// Open finds the benchmark's lists. OOD sets that are absent are left out and
// named in Data.Absent; the ID lists must be there, and at least one OOD set.
// Every listed image is looked for at once, so that a missing one does not show
// up after an hour, unless options say to skip.
//
// trainImages of the training images are used, as many of each class, chosen as
// the NAC reference chooses them with the seed; 0 means the benchmark's default.
func Open(ctx context.Context, b Benchmark, at Layout, options imageset.LoadOptions, trainImages int, seed uint32) (*Data, error) {
	d := &Data{}
	if at.FS == nil {
		d.Base = at.Dir
		if info, err := os.Stat(at.Dir); err != nil {
			return nil, fmt.Errorf("openood: data folder: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("openood: data folder %s is a file", at.Dir)
		}
	}
	source := func(set Set) (Source, bool, error) {
		l, there, err := at.read(b, set.List, set.Root)
		if err != nil || !there {
			return nil, false, err
		}
		if options.OnError == imageset.Stop {
			if err := l.Check(ctx); err != nil {
				return nil, false, err
			}
		}
		if of := b.Images[set.List]; set.Name != "" && of > 0 && of != len(l.Items) {
			d.Partial = append(d.Partial, Partial{set.Name, len(l.Items), of})
		}
		options := options
		if set.AsIs {
			options.Transform.Resize, options.Transform.Crop = 0, 0
		}
		return Files(l, options), true, nil
	}
	need := func(name string, lists ...string) (Source, error) {
		for _, list := range lists {
			s, there, err := source(Set{Name: name, List: list})
			if err != nil {
				return nil, fmt.Errorf("openood: %s: %w", b.Name, err)
			}
			if there {
				return s, nil
			}
		}
		return nil, fmt.Errorf("openood: %s: no list %s.txt in %s; is --data the folder that holds benchmark_imglist?",
			b.Name, strings.Join(lists, ".txt or "), at.ListsOf(b.Name))
	}
	var err error
	if d.Train, err = need("", b.Train...); err != nil {
		return nil, err
	}
	if d.Val, err = need("val", b.Val); err != nil {
		return nil, err
	}
	if b.Test != "" {
		if d.Test, err = need("test", b.Test); err != nil {
			return nil, err
		}
	}
	if b.ValOOD != "" {
		s, there, err := source(Set{List: b.ValOOD})
		if err != nil {
			return nil, fmt.Errorf("openood: %s: %w", b.Name, err)
		}
		if there {
			d.ValOOD = s
		}
	}
	sets := func(sets []Set) (found []Images, err error) {
		for _, s := range sets {
			src, there, err := source(s)
			if err != nil {
				return nil, fmt.Errorf("openood: %s: %w", b.Name, err)
			}
			if !there {
				d.Absent = append(d.Absent, s.Name)
				continue
			}
			found = append(found, Images{s.Name, src})
		}
		return found, nil
	}
	if d.Near, err = sets(b.Near); err != nil {
		return nil, err
	}
	if d.Far, err = sets(b.Far); err != nil {
		return nil, err
	}
	if len(d.Absent) > 0 && len(d.Near)+len(d.Far) == 0 {
		return nil, fmt.Errorf("openood: %s: none of the OOD lists (%s) is in %s", b.Name, strings.Join(d.Absent, ", "), at.ListsOf(b.Name))
	}
	if b.FullSpectrum {
		if len(b.CSID) == 0 {
			return nil, fmt.Errorf("openood: %s has no covariate-shifted ID sets", b.Name)
		}
		if d.CSID, err = sets(b.CSID); err != nil {
			return nil, err
		}
		if len(d.CSID) == 0 {
			return nil, fmt.Errorf("openood: %s: no list of a covariate-shifted ID set, such as %s.txt, is in %s", b.Name, b.CSID[0].List, at.ListsOf(b.Name))
		}
	}
	sub, _, err := source(Set{List: b.SubTrain})
	if err != nil {
		return nil, fmt.Errorf("openood: %s: %w", b.Name, err)
	}
	if trainImages <= 0 {
		trainImages = b.TrainImages
	}
	return d, d.chooseTraining(sub, trainImages, seed)
}

// chooseTraining picks the training images, and those for the overfitting check:
// the list made for it, else training images that were not picked.
func (d *Data) chooseTraining(sub Source, n int, seed uint32) error {
	labels := d.Train.Labels()
	if n < len(labels) {
		d.TrainIndices = coverage.TrainSubset(labels, n, seed)
		if len(d.TrainIndices) == 0 {
			return fmt.Errorf("openood: %d training images are fewer than the classes", n)
		}
	}
	if sub != nil {
		d.SubTrain = sub
		return nil
	}
	used := make([]bool, len(labels))
	for _, i := range d.TrainIndices {
		used[i] = true
	}
	var left []int
	for i := range labels {
		if d.TrainIndices != nil && !used[i] {
			left = append(left, i)
		}
	}
	if len(left) == 0 {
		return nil
	}
	leftLabels := make([]int, len(left))
	for i, j := range left {
		leftLabels[i] = labels[j]
	}
	for _, i := range coverage.TrainSubset(leftLabels, min(1000, len(left)), seed) {
		d.SubIndices = append(d.SubIndices, left[i])
	}
	if len(d.SubIndices) > 0 {
		slices.Sort(d.SubIndices)
		d.SubTrain = d.Train
	}
	return nil
}

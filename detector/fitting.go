package detector

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"nac/internal/safetensors"
)

// fitting is what detectors that read logits or features have in common: the
// order of calls, checks of what they are given, settings, and storing.
type fitting struct {
	params
	classes, features int
	phase             phase
	images            int // training images so far
	validation        int // validation images so far
	// state names everything that fitting finds out and scoring reads, for
	// tensors and restore.
	state func(*storage)
}

type phase int

const (
	fresh phase = iota
	begun
	ended
)

func (*fitting) Needs(Network, Phase) Needs { return Needs{} }
func (f *fitting) Settings() Settings       { return f.settings() }

func (f *fitting) errorf(format string, args ...any) error {
	return fmt.Errorf("detector: %s: %w", f.key, fmt.Errorf(format, args...))
}

func (f *fitting) Begin(n Network) error { return f.begin(n) }

func (f *fitting) begin(n Network) error {
	if n.Classes < 1 || n.Features < 1 {
		return f.errorf("a network of %d classes and %d features", n.Classes, n.Features)
	}
	f.classes, f.features, f.phase, f.images, f.validation = n.Classes, n.Features, begun, 0, 0
	return nil
}

func (f *fitting) Fit(in *Inputs) error { return f.fit(in) }

// fit checks a batch of training images and counts it.
func (f *fitting) fit(in *Inputs) error {
	if err := f.checkFit(in); err != nil {
		return err
	}
	f.images += in.N
	return nil
}

// fitValidation does the same for a batch of validation images.
func (f *fitting) fitValidation(in *Inputs) error {
	if err := f.checkFit(in); err != nil {
		return err
	}
	f.validation += in.N
	return nil
}

func (f *fitting) checkFit(in *Inputs) error {
	if f.phase != begun {
		return f.errorf("Fit outside of Begin and End")
	}
	return f.check(in)
}

func (f *fitting) check(in *Inputs) error {
	if err := rows("logits", in.Logits, in.N, f.classes); err != nil {
		return f.errorf("%w", err)
	}
	if err := rows("features", in.Feature, in.N, f.features); err != nil {
		return f.errorf("%w", err)
	}
	return nil
}

// rows checks that v holds n rows of finite numbers.
func rows(what string, v []float32, n, width int) error {
	if len(v) < n*width {
		return fmt.Errorf("%d %s are not %d images of %d", len(v), what, n, width)
	}
	for i, x := range v[:n*width] {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return fmt.Errorf("the %s of image %d of the batch are not finite", what, i/width)
		}
	}
	return nil
}

// label returns the class of an ID image.
func (f *fitting) label(in *Inputs, i int) (int, error) {
	if len(in.Labels) < in.N {
		return 0, f.errorf("%d labels for %d images", len(in.Labels), in.N)
	}
	if l := in.Labels[i]; l >= 0 && l < f.classes {
		return l, nil
	}
	return 0, f.errorf("image %d of the batch has label %d; it must be 0 to %d", i, in.Labels[i], f.classes-1)
}

func (f *fitting) End() error { return f.end() }

func (f *fitting) end() error {
	if f.phase != begun {
		return f.errorf("End without Begin")
	}
	f.phase = ended
	return nil
}

// endTrained ends fitting, unless there were no training images.
func (f *fitting) endTrained() error {
	if f.phase == begun && f.images == 0 {
		return f.errorf("no training images")
	}
	return f.end()
}

// endValidated ends fitting, unless there were no validation images.
func (f *fitting) endValidated() error {
	if f.phase == begun && f.validation == 0 {
		return f.errorf("no ID validation images, which it is fitted on")
	}
	return f.end()
}

// scoring checks a batch that is to be scored.
func (f *fitting) scoring(in *Inputs, dst []float64) error {
	if f.phase != ended {
		return f.errorf("%w", ErrUnfitted)
	}
	if len(dst) < in.N {
		return f.errorf("room for %d scores of %d images", len(dst), in.N)
	}
	return f.check(in)
}

// logits returns an image's logits in float64: softmax and log-sum-exp lose ranks
// in float32 where networks are sure of themselves.
func (f *fitting) logits(in *Inputs, i int, dst []float64) []float64 {
	return widen(in.Logits[i*f.classes:(i+1)*f.classes], dst)
}

func (f *fitting) feature(in *Inputs, i int) []float32 {
	return in.Feature[i*f.features : (i+1)*f.features]
}

func widen(v []float32, dst []float64) []float64 {
	for i, x := range v {
		dst[i] = float64(x)
	}
	return dst
}

func (f *fitting) tensors() ([]safetensors.Tensor, error) {
	if f.phase != ended {
		return nil, ErrUnfitted
	}
	s := &storage{saving: true}
	f.store(s)
	return s.tensors, s.err
}

func (f *fitting) restore(file *safetensors.File) error {
	s := &storage{file: file}
	f.store(s)
	if s.err == nil {
		f.phase = ended
	}
	return s.err
}

func (f *fitting) store(s *storage) {
	s.count("classes", &f.classes)
	s.count("features", &f.features)
	if f.state != nil && s.err == nil {
		f.state(s)
	}
}

// storage writes or reads what a detector has found out: the same calls do
// both, so that the two cannot drift apart.
type storage struct {
	saving bool
	// measuring only counts the bytes that saving would keep.
	measuring bool
	bytes     int64
	tensors   []safetensors.Tensor
	file      *safetensors.File
	err       error
}

// maxCount bounds sizes in a file, which can be anybody's.
const maxCount = 1 << 24

// count is a number from 1 to maxCount.
func (s *storage) count(name string, v *int) {
	if s.measuring {
		s.bytes += 8
		return
	}
	if s.saving {
		s.tensors = append(s.tensors, safetensors.Int64(name, []int{1}, []int64{int64(*v)}))
		return
	}
	got, _, err := s.file.Int64s(name)
	if err == nil && (len(got) != 1 || got[0] < 1 || got[0] > maxCount) {
		err = fmt.Errorf("%s is %v, want one number from 1 to %d", name, got, maxCount)
	}
	if err != nil {
		s.fail(err)
		return
	}
	*v = int(got[0])
}

// number is a finite number.
func (s *storage) number(name string, v *float64) {
	one := []float64{*v}
	s.float64s(name, &one, 1)
	if s.err == nil {
		*v = one[0]
	}
}

func (s *storage) float64s(name string, v *[]float64, shape ...int) {
	stored(s, name, v, shape, safetensors.Float64, (*safetensors.File).Float64s)
}

func (s *storage) float32s(name string, v *[]float32, shape ...int) {
	stored(s, name, v, shape, safetensors.Float32, (*safetensors.File).Float32s)
}

func stored[T float32 | float64](s *storage, name string, v *[]T, shape []int,
	write func(string, []int, []T) safetensors.Tensor, read func(*safetensors.File, string) ([]T, []int, error)) {
	if s.err != nil {
		return
	}
	if s.measuring {
		s.bytes += int64(len(*v)) * int64(unsafe.Sizeof(T(0)))
		return
	}
	if s.saving {
		s.tensors = append(s.tensors, write(name, shape, *v))
		return
	}
	got, size, err := read(s.file, name)
	if err != nil {
		s.fail(err)
		return
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	if len(got) != n {
		s.fail(fmt.Errorf("%s has shape %v, want %v", name, size, shape))
		return
	}
	for _, x := range got {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			s.fail(fmt.Errorf("%s has values that are not finite", name))
			return
		}
	}
	*v = got
}

func (s *storage) fail(err error) { s.err = errors.Join(s.err, err) }

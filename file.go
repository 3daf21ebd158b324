package nac

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"nac/detector"
	"nac/internal/safetensors"
)

// A detector file is a safetensors file. Its metadata are "format", "version", "info"
// (Info as JSON) and "sha256", over all other metadata and tensors. Its tensors:
//
//	detector.*           what the detector found; for nac the counts, I32 [neurons, M-1], of each layer
//	calibration.scores   F64 [n]
//	calibration.classes  I32 [n], as predicted
//	calibration.names    U8, lines
//	calibration.bins.*   U8 or I32 [n, neurons]: the bin of each neuron's state, the largest value for none
//
// The version rises when a reader of the older one would misread a file. Each
// version that was ever written has a reader in readers.
const (
	fileFormat  = "nac-fitted"
	fileVersion = "1"
)

// readers are the versions that can be read.
var readers = map[string]func(*Detector, *safetensors.File) error{
	"1": (*Detector).read1,
}

const (
	detectorPrefix = "detector."
	binsPrefix     = "calibration.bins."
)

// Save writes the detector to a file, whole or not at all. The same detector gives
// the same bytes.
func (d *Detector) Save(path string) error {
	tensors, err := d.tensors()
	if err != nil {
		return fmt.Errorf("nac: save %s: %w", path, err)
	}
	info, err := json.Marshal(d.info)
	if err != nil {
		return fmt.Errorf("nac: save %s: %w", path, err)
	}
	meta := map[string]string{"format": fileFormat, "version": fileVersion, "info": string(info)}
	sum := newChecksum(meta)
	for _, t := range tensors {
		sum.add(t.Name, t.DType, t.Shape, t.Data)
	}
	meta["sha256"] = sum.hex()
	return safetensors.Write(path, tensors, meta)
}

func (d *Detector) tensors() ([]safetensors.Tensor, error) {
	d.using.Lock()
	found, err := detector.Tensors(d.fitted)
	d.using.Unlock()
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].Name = detectorPrefix + found[i].Name
	}
	n := len(d.ref.scores)
	classes := make([]int32, n)
	for i, c := range d.ref.classes {
		classes[i] = int32(c)
	}
	names := []byte(strings.Join(d.ref.names, "\n"))
	all := append(found,
		safetensors.Float64("calibration.scores", []int{n}, d.ref.scores),
		safetensors.Int32("calibration.classes", []int{n}, classes),
		safetensors.Uint8("calibration.names", []int{len(names)}, names))
	layers := binned(d.fitted)
	for i, b := range d.ref.bins {
		s := layers[i].Settings()
		all = append(all, b.tensor(binsPrefix+s.Layer, n, s.M))
	}
	return all, nil
}

// tensor stores bins as bytes if M allows it.
func (b layerBins) tensor(name string, n, m int) safetensors.Tensor {
	shape := []int{n, b.channels}
	if m <= math.MaxUint8+1 {
		small := make([]uint8, len(b.bins))
		for i, v := range b.bins {
			small[i] = uint8(v) // none, -1, becomes 255
		}
		return safetensors.Uint8(name, shape, small)
	}
	wide := make([]int32, len(b.bins))
	for i, v := range b.bins {
		wide[i] = int32(v)
		if v < 0 {
			wide[i] = math.MaxInt32
		}
	}
	return safetensors.Int32(name, shape, wide)
}

// checksum is over metadata and tensors.
type checksum struct{ parts []string }

func newChecksum(meta map[string]string) *checksum {
	c := &checksum{}
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if k != "sha256" {
			c.parts = append(c.parts, fmt.Sprintf("%q=%q", k, meta[k]))
		}
	}
	return c
}

func (c *checksum) add(name, dtype string, shape []int, data []byte) {
	c.parts = append(c.parts, fmt.Sprintf("%q %s %v %x", name, dtype, shape, sha256.Sum256(data)))
}

func (c *checksum) hex() string {
	slices.Sort(c.parts)
	sum := sha256.Sum256([]byte(strings.Join(c.parts, "\n")))
	return hex.EncodeToString(sum[:])
}

// Load reads a detector that Save wrote, for the model that it was fitted to. A
// damaged file and another model are refused with the reason. With a nil model the
// detector can be looked at, merged and saved, but not score.
func Load(path string, m *Model) (*Detector, error) {
	d, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("nac: %s: %w", path, err)
	}
	if m == nil {
		return d, nil
	}
	return d, d.Attach(m)
}

func load(path string) (*Detector, error) {
	f, err := safetensors.Read(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	meta := f.Metadata()
	if meta["format"] != fileFormat {
		return nil, fmt.Errorf("no file of nac fit: its format is %.40q, not %q", meta["format"], fileFormat)
	}
	read, ok := readers[meta["version"]]
	if !ok {
		return nil, fmt.Errorf("version %.40q of the format; this program reads up to version %s", meta["version"], fileVersion)
	}
	sum := newChecksum(meta)
	for _, name := range f.Names() {
		t, err := f.Tensor(name)
		if err != nil {
			return nil, err
		}
		sum.add(t.Name, t.DType, t.Shape, t.Data)
	}
	if got := sum.hex(); got != meta["sha256"] {
		return nil, fmt.Errorf("the file is damaged: its checksum is %.12s..., it should be %.12s", got, meta["sha256"])
	}
	d := &Detector{using: &sync.Mutex{}}
	if err := json.Unmarshal([]byte(meta["info"]), &d.info); err != nil {
		return nil, fmt.Errorf("info: %w", err)
	}
	return d, read(d, f)
}

// read1 reads version 1. Anybody can make a file with a right checksum: sizes are
// compared before they are used.
func (d *Detector) read1(f *safetensors.File) (err error) {
	if err := d.info.Transform.Validate(); err != nil {
		return err
	}
	if h, w := d.info.Transform.Size(); h > 0 && d.info.Model.Input != [3]int{3, h, w} {
		return fmt.Errorf("a transform to 3x%dx%d for images of %v", h, w, d.info.Model.Input)
	}
	if d.fitted, err = detector.Restore(d.info.Detector, d.info.Settings, f.Below(detectorPrefix)); err != nil {
		return err
	}
	if d.ref.scores, _, err = f.Float64s("calibration.scores"); err != nil {
		return err
	}
	n := len(d.ref.scores)
	classes, _, err := f.Int32s("calibration.classes")
	if err != nil {
		return err
	}
	names, _, err := f.Uint8s("calibration.names")
	if err != nil {
		return err
	}
	d.ref.names = strings.Split(string(names), "\n")
	if len(classes) != n || len(d.ref.names) != n {
		return fmt.Errorf("%d calibration scores, but %d classes and %d names", n, len(classes), len(d.ref.names))
	}
	for _, c := range classes {
		if c < 0 || int(c) >= d.info.Model.Classes {
			return fmt.Errorf("calibration image of class %d of %d", c, d.info.Model.Classes)
		}
		d.ref.classes = append(d.ref.classes, int(c))
	}
	if err := d.readBins(f.Below(binsPrefix), n); err != nil {
		return err
	}
	if d.cal, err = newCalibration(d.info.Rate, d.info.PerClass, d.ref.scores, d.ref.classes); err != nil {
		return err
	}
	d.describe()
	return nil
}

func (d *Detector) readBins(f *safetensors.File, n int) error {
	layers := binned(d.fitted)
	if len(layers) == 0 && len(f.Names()) > 0 {
		return errors.New("bins of a detector without coverage")
	}
	for _, l := range layers {
		s := l.Settings()
		b := layerBins{channels: l.Channels(), bins: make([]int16, 0, n*l.Channels())}
		var shape []int
		var err error
		if s.M <= math.MaxUint8+1 {
			var small []uint8
			if small, shape, err = f.Uint8s(s.Layer); err == nil {
				for _, v := range small {
					b.add(int(v), s.M)
				}
			}
		} else {
			var wide []int32
			if wide, shape, err = f.Int32s(s.Layer); err == nil {
				for _, v := range wide {
					b.add(int(v), s.M)
				}
			}
		}
		if err != nil {
			return err
		}
		if !slices.Equal(shape, []int{n, l.Channels()}) {
			return fmt.Errorf("bins of layer %s of shape %v, want [%d %d]", s.Layer, shape, n, l.Channels())
		}
		d.ref.bins = append(d.ref.bins, b)
	}
	return nil
}

// add takes in a stored bin; what is none of the M-1 is no bin.
func (b *layerBins) add(v, m int) {
	if v < 0 || v >= m-1 {
		v = -1
	}
	b.bins = append(b.bins, int16(v))
}

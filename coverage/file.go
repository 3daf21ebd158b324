package coverage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"nac/internal/safetensors"
)

// A coverage file is a safetensors file. Per layer it has the tensor
// "<layer>.counts", I32, [channels, M-1]. The metadata "format" is nac-coverage,
// "version" is 1, and "layers" is a JSON list of [fileLayer] in the order of the
// coverage.
const (
	fileFormat  = "nac-coverage"
	fileVersion = "1"
)

type fileLayer struct {
	LayerSettings
	Channels int   `json:"channels"`
	Samples  int64 `json:"samples"`
}

func countsName(layer string) string { return layer + ".counts" }

// Save writes the coverage to a safetensors file, which appears whole or not
// at all. Equal coverages give equal bytes.
func (c *Coverage) Save(path string) error {
	tensors, metadata, err := c.encode()
	if err == nil {
		err = safetensors.Write(path, tensors, metadata)
	}
	if err != nil {
		return fmt.Errorf("coverage: save: %w", err)
	}
	return nil
}

// Encode writes what Save writes.
func (c *Coverage) Encode(w io.Writer) error {
	tensors, metadata, err := c.encode()
	if err == nil {
		err = safetensors.Encode(w, tensors, metadata)
	}
	if err != nil {
		return fmt.Errorf("coverage: %w", err)
	}
	return nil
}

func (c *Coverage) encode() ([]safetensors.Tensor, map[string]string, error) {
	tensors, list, err := c.Tensors()
	return tensors, map[string]string{"format": fileFormat, "version": fileVersion, "layers": list}, err
}

// Tensors returns the counts of every layer as tensors, and what else FromTensors
// needs to make the coverage again as JSON: for files that hold more than a
// coverage.
func (c *Coverage) Tensors() (tensors []safetensors.Tensor, layersJSON string, err error) {
	layers := make([]fileLayer, len(c.Layers))
	tensors = make([]safetensors.Tensor, len(c.Layers))
	for i, l := range c.Layers {
		layers[i] = fileLayer{l.settings, l.channels, l.samples}
		counts := l.Counts()
		signed := make([]int32, len(counts))
		for k, v := range counts {
			signed[k] = int32(v) // at most maxSamples
		}
		tensors[i] = safetensors.Int32(countsName(l.settings.Layer), []int{l.channels, l.settings.M - 1}, signed)
	}
	list, err := json.Marshal(layers)
	return tensors, string(list), err
}

// Load reads a coverage that Save wrote. A file that is damaged, of another kind
// or of a later version gives an error that names the file and the fault.
func Load(path string) (*Coverage, error) {
	f, err := safetensors.Read(path)
	if err != nil {
		return nil, fmt.Errorf("coverage: load: %w", err)
	}
	defer f.Close()
	c, err := decode(f)
	if err != nil {
		return nil, fmt.Errorf("coverage: load %s: %w", path, err)
	}
	return c, nil
}

// Decode is Load from memory; name stands for the file in errors.
func Decode(name string, r io.ReaderAt, size int64) (*Coverage, error) {
	f, err := safetensors.Decode(name, r, size)
	if err != nil {
		return nil, fmt.Errorf("coverage: %w", err)
	}
	defer f.Close()
	c, err := decode(f)
	if err != nil {
		return nil, fmt.Errorf("coverage: %s: %w", name, err)
	}
	return c, nil
}

func decode(f *safetensors.File) (*Coverage, error) {
	meta := f.Metadata()
	if meta["format"] != fileFormat {
		return nil, fmt.Errorf("not a coverage file: its metadata has format %.40q, not %q", meta["format"], fileFormat)
	}
	if meta["version"] != fileVersion {
		return nil, fmt.Errorf("version %.40q of the coverage format; this program reads version %s", meta["version"], fileVersion)
	}
	c, err := FromTensors(f, meta["layers"])
	if err != nil {
		return nil, err
	}
	if have := len(f.Names()); have != len(c.Layers) {
		return nil, fmt.Errorf("%d layers but %d tensors", len(c.Layers), have)
	}
	return c, nil
}

// FromTensors makes a coverage of what Tensors returned; f may hold other tensors
// besides.
func FromTensors(f *safetensors.File, layersJSON string) (*Coverage, error) {
	var layers []fileLayer
	dec := json.NewDecoder(strings.NewReader(layersJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&layers); err != nil {
		return nil, fmt.Errorf("the list of layers: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the list of layers has something after its end")
	}
	if len(layers) == 0 {
		return nil, errors.New("no layers")
	}
	c := &Coverage{}
	for _, fl := range layers {
		if c.Layer(fl.Layer) != nil {
			return nil, fmt.Errorf("layer %q is there twice", fl.Layer)
		}
		l, err := fl.load(f)
		if err != nil {
			return nil, err
		}
		c.Layers = append(c.Layers, l)
	}
	return c, nil
}

// load makes the layer of its counts. Nothing is allocated on the word of the
// metadata before the tensor, whose size the file vouches for, agrees.
func (fl fileLayer) load(f *safetensors.File) (*Layer, error) {
	if err := fl.Validate(); err != nil {
		return nil, err
	}
	if fl.Samples < 0 || fl.Samples > maxSamples {
		return nil, fmt.Errorf("layer %q: %d samples", fl.Layer, fl.Samples)
	}
	counts, shape, err := f.Int32s(countsName(fl.Layer))
	if err != nil {
		return nil, err
	}
	if len(shape) != 2 || shape[0] != fl.Channels || shape[1] != fl.M-1 {
		return nil, fmt.Errorf("layer %q: counts of shape %v, %d channels with M = %d need [%d %d]", fl.Layer, shape, fl.Channels, fl.M, fl.Channels, fl.M-1)
	}
	l, err := NewLayer(fl.LayerSettings, fl.Channels)
	if err != nil {
		return nil, err
	}
	if err := l.setCounts(counts, fl.Samples); err != nil {
		return nil, fmt.Errorf("layer %q: %w", fl.Layer, err)
	}
	return l, nil
}

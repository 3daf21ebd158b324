package nacbeam

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"nac"
	"nac/coverage"
)

// Network is a classifier and what is read of it.
type Network struct {
	Model, Arch string // as nac.Open takes them
	Yield       nac.Yield
}

// Row is what the network yielded for an image.
type Row struct {
	Set      string
	Position int64
	Path     string
	Label    int64
	Reason   string // why it yielded nothing; empty if it did
	// Values are little-endian float32: logits, feature, and for each layer of
	// Yield.Layers z and, if asked for, g.
	Values []byte
}

func init() {
	beam.RegisterType(reflect.TypeFor[Row]())
	beam.RegisterDoFn(&extractFn{})
	beam.RegisterType(reflect.TypeFor[coverFn]())
	beam.RegisterType(reflect.TypeFor[Counts]())
	beam.RegisterCoder(reflect.TypeFor[Counts](), encodeCounts, decodeCounts)
}

// ExtractStates runs the network over images. What cannot be read or computed is in the
// second collection.
func ExtractStates(s beam.Scope, images beam.PCollection, n Network) (rows, failed beam.PCollection) {
	return beam.ParDo2(s.Scope("ExtractStates"), &extractFn{Network: n}, images)
}

type extractFn struct {
	Network Network

	extractor *nac.Extractor
	widths    widths
	batch     batch
}

var (
	models     once[*nac.Model]
	extractors once[*nac.Extractor]
)

// openModel opens a model once for a process.
func openModel(path, architecture string) (*nac.Model, error) {
	return models.get(path+"\x00"+architecture, func() (*nac.Model, error) { return nac.Open(path, architecture) })
}

// open makes what runs the network, once for a process.
func (n Network) open() (*nac.Extractor, widths, error) {
	m, err := openModel(n.Model, n.Arch)
	if err != nil {
		return nil, widths{}, err
	}
	w, err := n.widths(m)
	if err != nil {
		return nil, w, err
	}
	key, err := json.Marshal(n)
	if err != nil {
		return nil, w, err
	}
	x, err := extractors.get(string(key), func() (*nac.Extractor, error) { return m.Extractor(n.Yield) })
	return x, w, err
}

func (f *extractFn) Setup() (err error) {
	f.extractor, f.widths, err = f.Network.open()
	return err
}

func (f *extractFn) StartBundle(context.Context, func(Row), func(Failure)) { f.batch.take() }

func (f *extractFn) ProcessElement(ctx context.Context, img Image, emit func(Row), failed func(Failure)) error {
	return f.run(ctx, f.batch.add(img), emit, failed)
}

func (f *extractFn) FinishBundle(ctx context.Context, emit func(Row), failed func(Failure)) error {
	return f.run(ctx, f.batch.take(), emit, failed)
}

func (f *extractFn) run(ctx context.Context, images []Image, emit func(Row), failed func(Failure)) error {
	if len(images) == 0 {
		return nil
	}
	return f.extractor.Run(ctx, archives(), items(images), func(i int, r nac.FitRow) error {
		img := images[i]
		if r.Reason != "" {
			failed(img.failed(r.Reason))
			return nil
		}
		values, err := f.widths.pack(r)
		emit(Row{Set: img.Set, Position: img.Position, Path: img.Path, Label: img.Label, Values: values})
		return err
	})
}

// widths are the numbers of values in a Row.
type widths struct {
	logits, feature int
	layers          []string
	channels        []int
	gradients       bool
}

func (n Network) widths(m *nac.Model) (widths, error) {
	w := widths{logits: m.Network().Classes, feature: m.Network().Features, layers: n.Yield.Layers, gradients: n.Yield.Gradients}
	for _, name := range n.Yield.Layers {
		l, err := m.Network().Layer(name)
		if err != nil {
			return w, err
		}
		w.channels = append(w.channels, l.Channels)
	}
	return w, nil
}

func (w widths) pack(r nac.FitRow) ([]byte, error) {
	parts := [][]float32{r.Logits, r.Feature}
	want := []int{w.logits, w.feature}
	for i, s := range r.States {
		parts, want = append(parts, s.Z), append(want, w.channels[i])
		if w.gradients {
			parts, want = append(parts, s.G), append(want, w.channels[i])
		}
	}
	var b []byte
	for i, p := range parts {
		if len(p) != want[i] || len(r.States) != len(w.layers) {
			return nil, fmt.Errorf("nacbeam: the network yielded %d values where there must be %d", len(p), want[i])
		}
		for _, v := range p {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b, nil
}

func (w widths) unpack(values []byte) (r nac.FitRow, err error) {
	take := func(n int) (v []float32) {
		if len(values) < 4*n {
			err = fmt.Errorf("nacbeam: a row of too few values")
			return nil
		}
		v = make([]float32, n)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:]))
		}
		values = values[4*n:]
		return v
	}
	r.Logits, r.Feature = take(w.logits), take(w.feature)
	for i, l := range w.layers {
		s := coverage.States{Layer: l, Z: take(w.channels[i])}
		if w.gradients {
			s.G = take(w.channels[i])
		}
		r.States = append(r.States, s)
	}
	if err == nil && len(values) > 0 {
		err = fmt.Errorf("nacbeam: a row of too many values")
	}
	return r, err
}

// Counts are counts of neuron states: what BuildCoverage makes, and adds up.
type Counts struct {
	Coverage *coverage.Coverage // nil for none
	Err      string             // of the first row that could not be counted
}

func encodeCounts(c Counts) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(c.Err)
	b.WriteByte(0)
	if c.Coverage == nil {
		return b.Bytes(), nil
	}
	err := c.Coverage.Encode(&b)
	return b.Bytes(), err
}

func decodeCounts(data []byte) (c Counts, err error) {
	end := bytes.IndexByte(data, 0)
	if end < 0 {
		return c, fmt.Errorf("nacbeam: counts that are cut off")
	}
	c.Err = string(data[:end])
	if data = data[end+1:]; len(data) > 0 {
		c.Coverage, err = coverage.Decode("counts", bytes.NewReader(data), int64(len(data)))
	}
	return c, err
}

// BuildCoverage counts the states of rows: one Counts, the same whatever the order.
func BuildCoverage(s beam.Scope, rows beam.PCollection, n Network, settings []coverage.LayerSettings, channels map[string]int) beam.PCollection {
	return beam.Combine(s.Scope("BuildCoverage"), &coverFn{Network: n, Settings: settings, Channels: channels}, rows)
}

// coverFn adds up counts.
type coverFn struct {
	Network  Network
	Settings []coverage.LayerSettings
	Channels map[string]int

	widths *widths
}

func (f *coverFn) CreateAccumulator() Counts { return Counts{} }

func (f *coverFn) AddInput(c Counts, r Row) Counts {
	err := f.add(&c, r)
	if err != nil && c.Err == "" {
		c.Err = err.Error()
	}
	return c
}

func (f *coverFn) add(c *Counts, r Row) error {
	if f.widths == nil {
		m, err := openModel(f.Network.Model, f.Network.Arch)
		if err != nil {
			return err
		}
		w, err := f.Network.widths(m)
		if err != nil {
			return err
		}
		f.widths = &w
	}
	row, err := f.widths.unpack(r.Values)
	if err != nil {
		return err
	}
	if c.Coverage == nil {
		if c.Coverage, err = coverage.New(f.Settings, f.Channels); err != nil {
			return err
		}
	}
	return c.Coverage.Add(row.States, 1)
}

func (f *coverFn) MergeAccumulators(a, b Counts) Counts {
	if a.Err == "" {
		a.Err = b.Err
	}
	switch {
	case a.Coverage == nil:
		a.Coverage = b.Coverage
	case b.Coverage != nil:
		if err := a.Coverage.Merge(b.Coverage); err != nil && a.Err == "" {
			a.Err = err.Error()
		}
	}
	return a
}

func (f *coverFn) ExtractOutput(c Counts) Counts { return c }

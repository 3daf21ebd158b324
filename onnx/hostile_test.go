package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nac/arch"
)

func TestRefusals(t *testing.T) {
	classifier := func(op string, a attributes, more ...string) []byte {
		b := newBuilder(1, 3, 4, 4)
		x := b.node(op, "strange", a, append([]string{"input"}, more...)...)
		x = b.node("GlobalAveragePool", "mean", nil, x)
		b.gemm("fc", b.node("Flatten", "flat", nil, x), 4, 3)
		return b.bytes()
	}
	with := func(f func(b *builder)) []byte {
		b := newBuilder(1, 3, 4, 4)
		f(b)
		return b.bytes()
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "no graph"},
		{"text", []byte("this is no model at all"), "m.onnx"},
		{"unknown operator", classifier("NonMaxSuppression", nil), `node "strange" (NonMaxSuppression): this operator is not supported`},
		{"leaky clip", classifier("Clip", nil), "clipping to -Inf..+Inf"},
		{"softmax within", classifier("Softmax", attributes{"axis": 1}), "softmax"},
		{"missing value", classifier("Add", nil, "nowhere"), `no value "nowhere"`},
		{"transposed pooling", classifier("Transpose", attributes{"perm": []int{0, 2, 1, 3}}), "node \"mean\""},
		{"huge window", classifier("MaxPool", attributes{"kernel_shape": []int{9, 9}}), "does not fit"},
		{"axis", classifier("Softmax", attributes{"axis": 7}), "axis 7 of 4"},
		{"old", with(func(b *builder) { b.opset = 7; b.gemm("fc", "input", 4, 3) }), "operator set 7"},
		{"image out", with(func(b *builder) { b.conv("c", "input", 4, 3, 3, 3, nil) }), "want one row of logits"},
		{"weights that do not fit", with(func(b *builder) { b.conv("c", "input", 4, 5, 3, 3, nil) }), "weights of [4 5 3 3] in 1 groups for 3 channels"},
		{"images mixed", with(func(b *builder) {
			b.node("ReduceMean", "over images", attributes{"axes": []int{0, 2, 3}}, "input")
		}), `node "over images"`},
		{"unknown size", func() []byte {
			b := newBuilder(1, 3, 0, 4)
			b.gemm("fc", "input", 4, 3)
			return b.bytes()
		}(), "want known channels, height and width"},
		{"huge", func() []byte {
			b := newBuilder(1, 10000, 10000, 10000)
			b.gemm("fc", "input", 4, 3)
			return b.bytes()
		}(), "too large"},
		{"attention with a past", classifier("Attention", nil, "input", "input", "", "input"), `node "strange" (Attention): input 4`},
		{"causal attention", classifier("Attention", attributes{"is_causal": 1}, "input", "input"), "causal"},
		{"attention without values", classifier("Attention", nil, "input"), "want queries, keys and values"},
		{"attention of pixels", classifier("Attention", nil, "input", "input"), `node "strange" (Attention)`},
		{"odd bounds", with(func(b *builder) {
			b.node("Clip", "bounded", nil, b.scalar("one", 1), b.longs("low", 0, 1))
		}), "bounds that are not single values"},
		{"data cut off", with(func(b *builder) {
			b.initializers = append(b.initializers, message(nil).number(1, 5).number(2, typeFloat).text(8, "w").text(9, "abcd"))
			b.node("Add", "sum", nil, "input", "w")
		}), "4 bytes for shape [5]"},
	} {
		_, err := Decode("m.onnx", c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "m.onnx") {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
	valid := models[0].build().bytes()
	for n := range valid {
		if _, err := Decode("m.onnx", valid[:n]); err == nil {
			t.Fatalf("a model cut off at byte %d of %d is accepted", n, len(valid))
		}
	}
}

// external makes a model whose weights lie in a file.
func external(location, offset string) []byte {
	b := newBuilder(1, 3, 1, 1)
	entry := func(key, value string) message { return message(nil).text(1, key).text(2, value) }
	b.initializers = append(b.initializers, message(nil).number(1, 2).number(1, 3).number(2, typeFloat).text(8, "w").number(14, 1).
		sub(13, entry("location", location)).sub(13, entry("offset", offset)).sub(13, entry("length", "24")))
	b.node("Gemm", "fc", attributes{"transB": 1}, b.node("Flatten", "flat", nil, "input"), "w")
	return b.bytes()
}

func TestExternalData(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "model")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	raw := floatTensor("", []float32{1, 2, 3, 4, 5, 6})
	raw = raw[len(raw)-24:]
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "w.data"), append(make([]byte, 8), raw...))
	write(filepath.Join(outer, "secret"), append(make([]byte, 8), raw...))
	path := filepath.Join(dir, "m.onnx")
	load := func(data []byte) error {
		write(path, data)
		m, err := Load(path)
		if err == nil && (len(m.Head().Weight) != 6 || m.Head().Weight[5] != 6) {
			t.Errorf("the head is %v", m.Head())
		}
		return err
	}
	if err := load(external("w.data", "8")); err != nil {
		t.Error(err)
	}
	hash := func() string {
		h, err := Hash(path)
		if err != nil {
			t.Error(err)
		}
		return h
	}
	before := hash()
	if hash() != before {
		t.Error("a model's hash changes by itself")
	}
	write(filepath.Join(dir, "w.data"), append(bytes.Repeat([]byte{1}, 8), raw...))
	if hash() == before {
		t.Error("other external data have the same hash")
	}
	write(filepath.Join(dir, "w.data"), append(make([]byte, 8), raw...))
	for _, c := range []struct{ location, offset, want string }{
		{"w.data", "9", "ends before"},
		{"w.data", "-1", "offset"},
		{"w.data", "9223372036854775807", "ends before"},
		{"absent", "8", "absent"},
		{"../secret", "8", "beside the model"},
		{filepath.Join(outer, "secret"), "8", "beside the model"},
		{"", "8", "beside the model"},
	} {
		if err := load(external(c.location, c.offset)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q from %s: %v; want %q", c.location, c.offset, err, c.want)
		}
		if _, err := Hash(path); (c.offset == "8") != (err != nil) {
			t.Errorf("hash of %q: %v", c.location, err)
		}
	}
	if _, err := Decode("m.onnx", external("w.data", "8")); err == nil {
		t.Error("a model in memory reads files")
	}
}

// TestExternalDataOver4GB has weights behind the range of 32 bits, in a file that
// is mostly a hole.
func TestExternalDataOver4GB(t *testing.T) {
	const offset = 5 << 30
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "w.data"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw := floatTensor("", []float32{1, 2, 3, 4, 5, 6})
	if _, err := f.WriteAt(raw[len(raw)-24:], offset); err != nil {
		t.Skipf("no file of 5 GB with a hole can be made here: %v", err)
	}
	path := filepath.Join(dir, "m.onnx")
	if err := os.WriteFile(path, external("w.data", strconv.Itoa(offset)), 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := Load(path)
	if err != nil || len(m.Head().Weight) != 6 || m.Head().Weight[5] != 6 {
		t.Errorf("%v, %v", m, err)
	}
}

// FuzzDecode feeds damaged models: an error is fine, a panic is not, nor is a
// model that cannot be run.
func FuzzDecode(f *testing.F) {
	for _, m := range models {
		f.Add(m.build().bytes())
	}
	f.Add(external("w.data", "8"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		m, err := Decode("fuzz.onnx", bytes.Clone(data))
		if (m == nil) == (err == nil) {
			t.Fatal("neither a model nor an error, or both")
		}
		if m == nil {
			return
		}
		r, floats := arch.Request{Gradients: true}, 0
		for _, l := range m.Layers {
			r.Layers = append(r.Layers, l.Name)
			floats += l.Channels * l.Height * l.Width
		}
		in := m.InputSize
		if size := in[0] * in[1] * in[2]; size+floats < 1<<15 {
			e, err := m.NewExtractor(r, 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Run(make([]float32, size), 1); err != nil {
				t.Fatal(err)
			}
		}
	})
}

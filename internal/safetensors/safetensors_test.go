package safetensors

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"nac/internal/shareddata"
)

// raw joins a header and data into a file's bytes.
func raw(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range data {
		b = append(b, byte(i))
	}
	return b
}

func decode(b []byte) (*File, error) {
	return Decode("some.safetensors", bytes.NewReader(b), int64(len(b)))
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	nan := float32(math.NaN())
	tensors := []Tensor{
		Uint8("bytes", []int{3}, []uint8{1, 2, 255}),
		Float32("a \"quoted\" <name>", []int{2, 2}, []float32{1, -2.5, nan, float32(math.Inf(-1))}),
		Float64("scalar", nil, []float64{math.Pi}),
		Int64("i64", []int{2, 1}, []int64{math.MinInt64, 7}),
		Int32("i32", []int{1}, []int32{-5}),
		Float32("empty", []int{0, 4}, nil),
		{Name: "half", DType: "F16", Shape: []int{1}, Data: []byte{0, 0x3c}},
	}
	meta := map[string]string{"b": "2", "a": "1\n", "é": ""}
	if err := Write(path, tensors, meta); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var want []string
	for _, x := range tensors {
		want = append(want, x.Name)
		got, err := f.Tensor(x.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != x.Name || got.DType != x.DType || !slices.Equal(got.Shape, x.Shape) || !bytes.Equal(got.Data, x.Data) {
			t.Errorf("got %v, want %v", got, x)
		}
	}
	if got := f.Names(); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := f.Metadata(); !reflect.DeepEqual(got, meta) {
		t.Errorf("metadata %v, want %v", got, meta)
	}
	if v, shape, err := f.Float32s(want[1]); err != nil || !slices.Equal(shape, []int{2, 2}) || v[1] != -2.5 || v[2] == v[2] {
		t.Error(v, shape, err)
	}
	if v, shape, err := f.Float64s("scalar"); err != nil || len(shape) != 0 || v[0] != math.Pi {
		t.Error(v, shape, err)
	}
	if v, _, err := f.Int64s("i64"); err != nil || !slices.Equal(v, []int64{math.MinInt64, 7}) {
		t.Error(v, err)
	}
	if v, _, err := f.Int32s("i32"); err != nil || !slices.Equal(v, []int32{-5}) {
		t.Error(v, err)
	}
	if v, _, err := f.Uint8s("bytes"); err != nil || !slices.Equal(v, []uint8{1, 2, 255}) {
		t.Error(v, err)
	}
	if v, shape, err := f.Float32s("empty"); err != nil || len(v) != 0 || !slices.Equal(shape, []int{0, 4}) {
		t.Error(v, shape, err)
	}
	if _, _, err := f.Float32s("i64"); err == nil || !strings.Contains(err.Error(), `tensor "i64": dtype I64, want F32`) {
		t.Error(err)
	}
	if _, err := f.Tensor("nowhere"); err == nil || !strings.Contains(err.Error(), `no tensor "nowhere"`) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}

	var again bytes.Buffer
	if err := Encode(&again, tensors, meta); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, again.Bytes()) {
		t.Error("the same tensors gave other bytes")
	}
}

// The bytes are fixed here so that neither order nor padding can change unseen.
func TestEncodeBytes(t *testing.T) {
	var b bytes.Buffer
	err := Encode(&b, []Tensor{Uint8("u", []int{1}, []uint8{9}), Float32("f", []int{1, 1}, []float32{1})}, map[string]string{"z": "1", "a": "<"})
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"a":"\u003c","z":"1"},"u":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},"f":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}`
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	want := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	want = append(want, 0, 0, 0x80, 0x3f, 9)
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("got\n%q, want\n%q", b.Bytes(), want)
	}
}

// A tensor larger than the reader's buffer, with an odd rest.
func TestLargeTensor(t *testing.T) {
	v := make([]float64, 3*(1<<15)+5)
	for i := range v {
		v[i] = float64(i)
	}
	var b bytes.Buffer
	if err := Encode(&b, []Tensor{Float64("v", []int{len(v)}, v)}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if f.Metadata() != nil {
		t.Error("metadata where none was written")
	}
	got, _, err := f.Float64s("v")
	if err != nil || !slices.Equal(got, v) {
		t.Error("values differ", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	ok := Float32("a", []int{1}, []float32{1})
	for _, c := range []struct {
		what    string
		tensors []Tensor
		meta    map[string]string
		want    string
	}{
		{"no name", []Tensor{Float32("", []int{1}, []float32{1})}, nil, "no name"},
		{"reserved name", []Tensor{Float32("__metadata__", []int{1}, []float32{1})}, nil, "no name"},
		{"twice", []Tensor{ok, ok}, nil, `"a": given twice`},
		{"count", []Tensor{Float32("a", []int{3}, []float32{1, 2})}, nil, "need 12 bytes, the data has 8"},
		{"negative", []Tensor{Float32("a", []int{-1, -1}, []float32{1})}, nil, "negative size"},
		{"overflow", []Tensor{Float32("a", []int{1 << 30, 1 << 30, 1 << 30}, nil)}, nil, "too large"},
		{"dtype", []Tensor{{Name: "a", DType: "F31"}}, nil, `unknown dtype "F31"`},
		{"name UTF-8", []Tensor{Float32("\xff", nil, []float32{1})}, nil, "not UTF-8"},
		{"metadata UTF-8", nil, map[string]string{"k": "\xff"}, "not UTF-8"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "out")
		err := Write(path, c.tensors, c.meta)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left %v", c.what, left)
		}
	}
}

func TestHostileFiles(t *testing.T) {
	one := `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	long := binary.LittleEndian.AppendUint64(nil, 1<<40)
	for _, c := range []struct {
		what string
		file []byte
		want string
	}{
		{"empty", nil, "cut off"},
		{"seven bytes", make([]byte, 7), "cut off"},
		{"huge header", append(long, '{'), "a header of 1099511627776 bytes"},
		{"header beyond the end", raw(one, 0)[:20], "cut off"},
		{"negative length", append(bytes.Repeat([]byte{0xff}, 8), '{', '}'), "not a safetensors file"},
		{"no JSON", raw("[]", 0), "begin with {"},
		{"cut JSON", raw(`{"a":{"dtype":"F32"`, 8), "unexpected EOF"},
		{"after JSON", raw(one+"x", 8), "header"},
		{"two objects", raw(one+"{}", 8), "something follows"},
		{"UTF-8", raw("{\"\xff\":1}", 8), "UTF-8"},
		{"data cut off", raw(one, 7), `"a": cut off`},
		{"data left over", raw(one, 9), "end at byte 8 of 9"},
		{"data without tensor", raw("{}", 1), "end at byte 0 of 1"},
		{"duplicate tensor", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `"a" stands twice`},
		{"duplicate key", raw(`{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1), `"dtype" stands twice`},
		{"key case", raw(`{"a":{"Dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), `unknown key "Dtype"`},
		{"missing key", raw(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), "shape is missing"},
		{"overlap", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), `"b": data_offsets [1 3] overlap`},
		{"same place", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2), `"b": data_offsets [0 2] overlap`},
		{"gap", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), `"b": data_offsets [2 3] leave a gap`},
		{"end before begin", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), "the end is before the begin"},
		{"three offsets", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1), "3 numbers, want 2"},
		{"negative offset", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}`, 1), `"-1" is not a size`},
		{"negative shape", raw(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1), `"-1" is not a size`},
		{"fraction", raw(`{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}`, 1), `"1.5" is not a size`},
		{"string size", raw(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1), "where a number should be"},
		{"overflowing size", raw(`{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}`, 1), "is not a size"},
		{"overflowing product", raw(`{"a":{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,0]}}`, 0), "too large"},
		{"overflow beside zero", raw(`{"a":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "too large"},
		{"shape and bytes", raw(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "need 12 bytes, data_offsets [0 8] give 8"},
		{"large claim", raw(`{"a":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}`, 8), `"a": cut off`},
		{"dtype", raw(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}`, 1), `unknown dtype "F4"`},
		{"dtype number", raw(`{"a":{"dtype":4,"shape":[2],"data_offsets":[0,1]}}`, 1), "dtype is not a string"},
		{"entry is a list", raw(`{"a":[]}`, 0), "where an object should be"},
		{"metadata number", raw(`{"__metadata__":{"k":1}}`, 0), `"k" is not a string`},
		{"metadata twice", raw(`{"__metadata__":{},"__metadata__":{}}`, 0), "stands twice"},
	} {
		f, err := decode(c.file)
		if err == nil {
			t.Errorf("%s: no error, names %q", c.what, f.Names())
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "some.safetensors") {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Read(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Error(err)
	}
}

// A file that shrinks after it was opened must not give zeros.
func TestShrunkFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be cut there")
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := Write(path, []Tensor{Float32("a", []int{4}, make([]float32, 4))}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-4); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Float32s("a"); err == nil || !strings.Contains(err.Error(), "the file ends before") {
		t.Error(err)
	}
	if _, err := f.Tensor("a"); err == nil || !strings.Contains(err.Error(), "the file ends before") {
		t.Error(err)
	}
}

// Files that Python's implementation wrote: every tensor must be readable.
func TestReadsPythonsFiles(t *testing.T) {
	dir := shareddata.Path(t, "golden")
	paths, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no safetensors in ", dir, err)
	}
	for _, path := range paths {
		f, err := Read(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(f.Names()) == 0 {
			t.Errorf("%s holds nothing", path)
		}
		for _, name := range f.Names() {
			if _, err := f.Tensor(name); err != nil {
				t.Error(err)
			}
		}
		f.Close()
	}
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if err := Encode(&b, []Tensor{Uint8("u", []int{3}, make([]uint8, 3)), Float32("f", []int{1, 2}, make([]float32, 2)), Float64("d", nil, make([]float64, 1))}, map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	f.Add(raw(`{"a":{"dtype":"U8","shape":[0,4294967296],"data_offsets":[0,0]},"b":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}`, 4))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decode(data)
		if err != nil {
			return
		}
		var tensors []Tensor
		total := 0
		for _, name := range file.Names() {
			x, err := file.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			total += len(x.Data)
			if name != "" {
				tensors = append(tensors, x)
			}
			file.Float32s(name)
			file.Uint8s(name)
		}
		if total > len(data) {
			t.Fatalf("%d bytes of tensors from %d of file", total, len(data))
		}
		// What was read can be written and reads back the same.
		var out bytes.Buffer
		if err := Encode(&out, tensors, file.Metadata()); err != nil {
			t.Fatal(err)
		}
		again, err := decode(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range tensors {
			y, err := again.Tensor(x.Name)
			if err != nil || !reflect.DeepEqual(x, y) {
				t.Fatal(x, y, err)
			}
		}
	})
}

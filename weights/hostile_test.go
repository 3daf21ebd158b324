package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// The functions below write pickles of protocol 2, one value each.

func seq(values ...string) string { return strings.Join(values, "") }

func global(name string) string {
	i := strings.LastIndexByte(name, '.')
	return "c" + name[:i] + "\n" + name[i+1:] + "\n"
}

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func integers(values ...int64) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString("\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(v))))
	}
	return b.String()
}

func tuple(values ...string) string { return "(" + seq(values...) + "t" }
func list(values ...string) string  { return "](" + seq(values...) + "e" }
func dict(pairs ...string) string   { return "}(" + seq(pairs...) + "u" }
func call(f string, args ...string) string {
	return global(f) + tuple(args...) + "R"
}

func storageID(class, key string, n int64) string {
	return tuple(text("storage"), global(class), text(key), text("cpu"), integers(n)) + "Q"
}

func floats(key string, n int64) string { return storageID("torch.FloatStorage", key, n) }

func tensorOf(storage string, offset int64, shape, strides []int64) string {
	return call("torch._utils._rebuild_tensor_v2", storage, integers(offset), tuple(integers(shape...)), tuple(integers(strides...)), "\x89", call("collections.OrderedDict"))
}

func pickled(value string) string { return "\x80\x02" + value + "." }

// stored is one storage of a file in the older format.
type keyed struct {
	key  string
	n    int64
	data []byte
}

func legacy(root string, storages ...keyed) []byte {
	var keys []string
	for _, s := range storages {
		keys = append(keys, text(s.key))
	}
	b := []byte(pickled("\x8a\x0a"+string(magic)) + pickled(integers(1001)) + pickled("}") + pickled(root) + pickled(list(keys...)))
	for _, s := range storages {
		b = binary.LittleEndian.AppendUint64(b, uint64(s.n))
		b = append(b, s.data...)
	}
	return b
}

// member is one file of an archive.
type member struct{ name, data string }

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		w, err := z.CreateRaw(&zip.FileHeader{
			Name: m.name, Method: zip.Store, CRC32: crc32.ChecksumIEEE([]byte(m.data)),
			CompressedSize64: uint64(len(m.data)), UncompressedSize64: uint64(len(m.data)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func f32(values ...float32) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err)
	}
	return b
}

func load(b []byte) (*StateDict, error) {
	return Decode("some.pth", bytes.NewReader(b), int64(len(b)))
}

func values(t *testing.T, b []byte, name string, want ...float32) {
	t.Helper()
	s, err := load(b)
	if err != nil {
		t.Error(err)
		return
	}
	got, ok := s.Lookup(name)
	if !ok || !slices.Equal(got.Data, want) {
		t.Errorf("%s of %q is %v, want %v", name, s.Names(), got.Data, want)
	}
}

// What PyTorch 1.13 does not write and so testdata lacks.
func TestOtherWriters(t *testing.T) {
	one := func(root string) []byte { return legacy(root, keyed{"k", 4, f32(1, 2, 3, 4)}) }
	v3 := func(key string, n int64, dtype string, size int64) string {
		return call("torch._utils._rebuild_tensor_v3", storageID("torch.storage.UntypedStorage", key, n), integers(1), tuple(integers(size)), tuple(integers(1)), "\x89", "N", global(dtype))
	}
	t.Run("untyped storage", func(t *testing.T) {
		b := archive(t, member{"x/data.pkl", pickled(dict(text("a"), v3("0", 6, "torch.uint16", 2)))}, member{"x/data/0", "\x01\x00\x02\x00\xff\xff"})
		values(t, b, "a", 2, 65535)
	})
	t.Run("big-endian", func(t *testing.T) {
		b := archive(t, member{"x/data.pkl", pickled(dict(text("a"), tensorOf(floats("0", 2), 0, []int64{2}, []int64{1})))},
			member{"x/byteorder", "big"}, member{"x/data/0", "\x3f\x80\x00\x00\xc0\x20\x00\x00"})
		values(t, b, "a", 1, -2.5)
	})
	t.Run("root folder", func(t *testing.T) {
		b := archive(t, member{"data.pkl", pickled(dict(text("a"), tensorOf(floats("0", 1), 0, nil, nil)))}, member{"data/0", string(f32(3))})
		values(t, b, "a", 3)
	})
	t.Run("view of a storage", func(t *testing.T) {
		id := tuple(text("storage"), global("torch.FloatStorage"), text("k"), text("cpu"), integers(4), tuple(text("v"), integers(1, 2))) + "Q"
		values(t, one(dict(text("a"), tensorOf(id, 1, []int64{1}, []int64{1}))), "a", 3)
	})
	t.Run("first rebuild", func(t *testing.T) {
		values(t, one(dict(text("a"), call("torch._utils._rebuild_tensor", floats("k", 4), integers(1), tuple(integers(3)), tuple(integers(1))))), "a", 2, 3, 4)
	})
	t.Run("python 2", func(t *testing.T) {
		root := call("collections.OrderedDict", list(list("U\x08module.a", tensorOf(floats("k", 4), 0, []int64{4}, []int64{1}))))
		values(t, one(root), "a", 1, 2, 3, 4)
	})
	t.Run("cuda", func(t *testing.T) {
		values(t, one(dict(text("a"), tensorOf(storageID("torch.cuda.FloatStorage", "k", 4), 3, nil, nil))), "a", 4)
	})
	t.Run("parameter with state", func(t *testing.T) {
		p := call("torch._utils._rebuild_parameter_with_state", tensorOf(floats("k", 4), 3, nil, nil), "\x88", "N", "}")
		values(t, one(dict(text("a"), p)), "a", 4)
	})
	t.Run("key set twice", func(t *testing.T) {
		root := dict(text("a"), tensorOf(floats("k", 4), 0, nil, nil), text("b"), "N", text("a"), tensorOf(floats("k", 4), 1, nil, nil))
		values(t, one(root), "a", 2)
	})
	t.Run("counter's prefix stays when not on all", func(t *testing.T) {
		root := dict(text("module.a"), tensorOf(floats("k", 4), 0, nil, nil), text("b"), tensorOf(floats("k", 4), 1, nil, nil))
		values(t, one(root), "module.a", 1)
	})
	t.Run("prefix alone is a name", func(t *testing.T) {
		values(t, one(dict(text("module."), tensorOf(floats("k", 4), 0, nil, nil))), "module.", 1)
	})
	t.Run("preferred key", func(t *testing.T) {
		inner := func(at int64) string { return dict(text("a"), tensorOf(floats("k", 4), at, nil, nil)) }
		values(t, one(dict(text("ema"), inner(0), text("model"), inner(1), text("loss"), tensorOf(floats("k", 4), 2, nil, nil))), "a", 2)
		values(t, one(dict(text("scheduler"), inner(0), text("other"), inner(1), text("later"), inner(2))), "a", 2)
		values(t, one(dict(text("model"), dict(text("param_groups"), "]", text("a"), tensorOf(floats("k", 4), 0, nil, nil)), text("x"), inner(3))), "a", 4)
	})
}

func TestHostileTensors(t *testing.T) {
	const big = 1 << 62
	for _, c := range []struct {
		what, tensor, want string
	}{
		{"beyond the storage", tensorOf(floats("k", 2), 0, []int64{3}, []int64{1}), "reach outside a storage of 2"},
		{"offset", tensorOf(floats("k", 2), 2, []int64{1}, []int64{1}), "reach outside a storage of 2"},
		{"scalar offset", tensorOf(floats("k", 2), 2, nil, nil), "reach outside"},
		{"negative offset", tensorOf(floats("k", 2), -1, []int64{1}, []int64{1}), "negative storage offset"},
		{"huge offset", tensorOf(floats("k", 2), big, []int64{1}, []int64{1}), "reach outside"},
		{"stride", tensorOf(floats("k", 2), 0, []int64{2}, []int64{2}), "reach outside"},
		{"negative stride", tensorOf(floats("k", 2), 1, []int64{2}, []int64{-1}), "out of range"},
		{"negative size", tensorOf(floats("k", 2), 0, []int64{-1}, []int64{1}), "out of range"},
		{"two negative sizes", tensorOf(floats("k", 2), 0, []int64{-1, -2}, []int64{1, 1}), "out of range"},
		{"shape overflow", tensorOf(floats("k", 2), 0, []int64{big, big}, []int64{0, 0}), "too large"},
		{"stride overflow", tensorOf(floats("k", 2), 0, []int64{3, 3}, []int64{big, big}), "reach outside"},
		{"expanded", tensorOf(floats("k", 2), 0, []int64{1 << 40}, []int64{0}), "describes more than"},
		{"sizes and strides", tensorOf(floats("k", 2), 0, []int64{2}, []int64{}), "1 sizes but 0 strides"},
		{"65 dimensions", tensorOf(floats("k", 2), 0, slices.Repeat([]int64{1}, 65), slices.Repeat([]int64{1}, 65)), "65 dimensions"},
		{"storage length", tensorOf(floats("k", 3), 0, []int64{1}, []int64{1}), "has 2 elements, its tensors say 3"},
		{"huge storage", tensorOf(floats("k", big), 0, []int64{1}, []int64{1}), "out of range"},
		{"negative storage", tensorOf(floats("k", -2), 0, []int64{1}, []int64{1}), "out of range"},
		{"absent storage", tensorOf(floats("other", 2), 0, []int64{1}, []int64{1}), "one that no tensor has"},
		{"two descriptions", seq(tensorOf(floats("k", 2), 0, nil, nil), "0", tensorOf(storageID("torch.IntStorage", "k", 2), 0, nil, nil)), "described in two ways"},
		{"storage class", tensorOf(storageID("torch.QInt8Storage", "k", 2), 0, nil, nil), "torch.QInt8Storage: refused"},
		{"dtype as storage", tensorOf(storageID("torch.float32", "k", 2), 0, nil, nil), "a storage of class torch.float32"},
		{"untyped", tensorOf(storageID("torch.UntypedStorage", "k", 2), 0, nil, nil), "without a dtype"},
		{"conjugated", call("torch._utils._rebuild_tensor_v2", floats("k", 2), integers(0), ")", ")", "\x89", "N", dict(text("neg"), "\x88")), "conjugated or negated"},
		{"dtype over floats", call("torch._utils._rebuild_tensor_v3", floats("k", 2), integers(0), ")", ")", "\x89", "N", global("torch.float64")), "over a storage of float32"},
		{"few arguments", call("torch._utils._rebuild_tensor_v2", floats("k", 2)), "made from 1 arguments"},
		{"no storage", call("torch._utils._rebuild_tensor_v2", "N", integers(0), ")", ")"), "made from None"},
		{"view outside", tensorOf(tuple(text("storage"), global("torch.FloatStorage"), text("k"), text("cpu"), integers(2), tuple(text("v"), integers(1, 2)))+"Q", 0, nil, nil), "outside its storage"},
		{"module", tuple(text("module"), global("torch.Tensor"), text("source"), text("")) + "Q", "code of a module"},
		{"rebuilt by another", call("torch._tensor._rebuild_from_type_v2", global("collections.OrderedDict"), global("torch.Tensor"), tuple(), "N"), "refused"},
	} {
		b := legacy(dict(text("w"), c.tensor), keyed{"k", 2, f32(1, 2)})
		_, err := load(b)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "some.pth") {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func TestHostilePickles(t *testing.T) {
	for _, c := range []struct{ what, pickle, want string }{
		{"foreign class", global("os.system"), "os.system: refused"},
		{"foreign class on the stack", text("builtins") + text("eval") + "\x93", "builtins.eval: refused"},
		{"dotted", text("collections") + text("OrderedDict.__init__") + "\x93", "collections.OrderedDict.__init__: refused"},
		{"called dtype", global("torch.float32") + ")R", "calls torch.float32: refused"},
		{"called storage class", global("torch.FloatStorage") + ")R", "calls torch.FloatStorage: refused"},
		{"new tensor", global("torch._utils._rebuild_tensor") + ")\x81", "refused"},
		{"NEWOBJ_EX", global("collections.OrderedDict") + ")}\x92", "NEWOBJ_EX"},
		{"called dict", "})R", "calls a dict"},
		{"state of a list", "]}b", "sets the state of a list or tuple: refused"},
		{"item of a class", global("collections.OrderedDict") + text("a") + "Ns", "sets an item of class collections.OrderedDict"},
		{"extension", "\x82\x01", "opcode 0x82"},
		{"instance of protocol 0", "(ios\nsystem\n", "opcode 0x69"},
		{"out-of-band buffer", "\x97", "opcode 0x97"},
		{"protocol", "\x80\x06", "protocol 6"},
		{"empty stack", "0", "stack is empty"},
		{"below the mark", "N(0", "stack is empty"},
		{"no mark", "t", "no mark"},
		{"memo", "h\x05", "memo 5 was never set"},
		{"odd pairs", "}(Nu", "a key without a value"},
		{"append to None", "NNa", "appends to None"},
		{"length", "X\xff\xff\xff\xff", "cut off"},
		{"64-bit length", "\x8e" + strings.Repeat("\xff", 8), "cut off"},
		{"LONG4", "\x8b\xff\xff\xff\x7f", "cut off"},
		{"persistent id", text("storage") + "Q", "persistent id"},
		{"no newline", "c" + strings.Repeat("a", 2000), "more than 1000 bytes"},
		{"bytes within bytes", call("torch.storage._load_from_bytes", string(bytesOp(string(legacy(call("torch.storage._load_from_bytes", "C\x00")))))), "bytes within bytes"},
		{"bytes without a storage", call("torch.storage._load_from_bytes", bytesOp(string(legacy("N")))), "hold None"},
		{"steps", strings.Repeat("N0", maxSteps/2+1), "steps: refused"},
		// A list copied again and again: few bytes, quadratic work.
		{"copies", "](" + strings.Repeat("N", 1<<16) + "eq\x00" + strings.Repeat("0cbuiltins\nlist\nh\x00\x85R", 1000), "steps: refused"},
		{"no mapping", "N", "holds None, not a mapping"},
		{"empty mapping", "}", "no mapping of names to tensors"},
		{"only itself", "}q\x00" + text("model") + "h\x00s", `among the entries "model"`},
		{"absent", dict(text("w"), tensorOf(floats("k", 1), 0, nil, nil)), `tensor "w": its storage "k" is not in the file`},
	} {
		_, err := load([]byte(pickled(c.pickle)))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "some.pth") {
			t.Errorf("%s: %.300v, want %q", c.what, err, c.want)
		}
	}
}

func bytesOp(s string) string {
	return "B" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func TestHostileOlderFormat(t *testing.T) {
	w := dict(text("w"), tensorOf(floats("k", 2), 0, []int64{2}, []int64{1}))
	k := keyed{"k", 2, f32(1, 2)}
	values(t, legacy(w, k), "w", 1, 2) // the cases below are faults in this file
	head := pickled("\x8a\x0a" + string(magic))
	for _, c := range []struct {
		what string
		file []byte
		want string
	}{
		{"version", []byte(head + pickled(integers(1002))), "version 1002"},
		{"list", []byte(head + pickled(integers(1001)) + pickled("}") + pickled(w) + pickled("N")), "list of storages: it is None"},
		{"key", []byte(head + pickled(integers(1001)) + pickled("}") + pickled(w) + pickled(list(integers(1)))), "one that no tensor has"},
		{"twice", legacy(w, k, k), `storage "k" stands twice`},
		{"none", legacy(w), `tensor "w": its storage "k" is not in the file`},
		{"cut off", legacy(w, keyed{"k", 2, f32(1)}), `cut off in storage "k": 4 bytes left of 8`},
		{"cut off before", legacy(w, keyed{"k", 2, nil})[:len(legacy(w, keyed{"k", 2, nil}))-1], `cut off before storage "k"`},
		{"negative", legacy(w, keyed{"k", -1, f32(1)}), "has -1 elements"},
	} {
		_, err := load(c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	w := pickled(dict(text("w"), tensorOf(floats("0", 2), 0, []int64{2}, []int64{1})))
	pkl, data := member{"x/data.pkl", w}, member{"x/data/0", string(f32(1, 2))}
	values(t, archive(t, pkl, data), "w", 1, 2) // the cases below are faults in this archive

	var deflated bytes.Buffer
	z := zip.NewWriter(&deflated)
	d, err := z.Create("x/data.pkl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write([]byte(w)); err != nil {
		t.Fatal(err)
	}
	z.Close()

	wrong := archive(t, pkl, data)
	wrong[bytes.Index(wrong, f32(1, 2))] ^= 1

	// The checksum is of all of a storage, whatever tensors view of it.
	four := func(tensors ...string) []byte {
		pkl := member{"x/data.pkl", pickled(dict(tensors...))}
		a := archive(t, pkl, member{"x/data/0", string(f32(1, 2, 3, 4))})
		a[bytes.Index(a, f32(1, 2, 3, 4))+12] ^= 1
		return a
	}
	middle := tensorOf(floats("0", 4), 1, []int64{2}, []int64{1})
	all := tensorOf(floats("0", 4), 0, []int64{2, 2}, []int64{2, 1})
	turned := tensorOf(floats("0", 4), 0, []int64{2, 2}, []int64{1, 2})
	none := tensorOf(floats("0", 4), 0, []int64{0}, []int64{1})

	lying := archive(t, pkl, data)
	// The sizes in the central directory's second entry (offsets 20 and 24), made 1 GiB.
	at := bytes.LastIndex(lying, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(lying[at+20:], 1<<30)
	binary.LittleEndian.PutUint32(lying[at+24:], 1<<30)

	for _, c := range []struct {
		what string
		file []byte
		want string
	}{
		{"no pickle", archive(t, data), "without data.pkl"},
		{"two pickles", archive(t, pkl, member{"y/data.pkl", w}, data), `both "x/data.pkl" and "y/data.pkl"`},
		{"name twice", archive(t, pkl, data, data), `"x/data/0" stands twice`},
		{"no storage", archive(t, pkl), `tensor "w": its storage "0" is not in the file`},
		{"short storage", archive(t, pkl, member{"x/data/0", "1234"}), "has 4 bytes, its tensors say 8"},
		{"compressed", deflated.Bytes(), "compressed or encrypted"},
		{"checksum", wrong, `tensor "w": zip archive: "x/data/0": zip: checksum error`},
		{"checksum beyond a view", four(text("v"), middle), `tensor "v": zip archive: "x/data/0": zip: checksum error`},
		{"checksum of the second's view", four(text("v"), middle, text("w"), all), `tensor "w": zip archive: "x/data/0": zip: checksum error`},
		{"checksum of a transpose", four(text("v"), turned), `tensor "v": zip archive: "x/data/0": zip: checksum error`},
		{"checksum of no values", four(text("v"), none), `tensor "v": zip archive: "x/data/0": zip: checksum error`},
		{"size", lying, `"x/data/0" is cut off`},
		{"byteorder", archive(t, pkl, data, member{"x/byteorder", "middle"}), `unknown byteorder "middle"`},
		{"foreign class", archive(t, member{"x/data.pkl", pickled(global("os.system"))}), "os.system: refused"},
	} {
		_, err := load(c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "some.pth") {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

// Storages that lie over each other, and tensors that share one, must not make a
// small file fill the memory.
func TestAmplification(t *testing.T) {
	const n = 1 << 18
	data := make([]byte, 4*n)
	var views []string
	for i := range 200 {
		views = append(views, text("w"+strings.Repeat("x", i)), tensorOf(floats("k", n), 0, []int64{n}, []int64{1}))
	}
	var sparse []string
	for i := range 200 {
		sparse = append(sparse, text("w"+strings.Repeat("x", i)), tensorOf(floats("k", n), 0, []int64{2}, []int64{n - 1}))
	}
	for what, b := range map[string][]byte{
		"views":  legacy(dict(views...), keyed{"k", n, data}),
		"sparse": legacy(dict(sparse...), keyed{"k", n, data}),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := load(b)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "describes more than") {
			t.Errorf("%s: %v", what, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<23 {
			t.Errorf("%s: %d bytes allocated before it was refused", what, got)
		}
	}

	// Two directory entries for the same bytes.
	root := pickled(dict(text("a"), tensorOf(floats("0", n), 0, []int64{1}, []int64{1}), text("b"), tensorOf(floats("1", n), 0, []int64{1}, []int64{1})))
	b := archive(t, member{"data.pkl", root}, member{"data/0", string(data)}, member{"data/1", string(data)})
	at := bytes.LastIndex(b, []byte("PK\x01\x02"))
	first := bytes.LastIndex(b[:at], []byte("PK\x01\x02"))
	copy(b[at+42:at+46], b[first+42:first+46]) // the place of the local header
	// The second entry's own bytes, cut out, are what makes it a small file.
	cut := 4*n + 30 + len("data/1")
	local := bytes.LastIndex(b[:first], []byte("PK\x03\x04"))
	small := append(slices.Clone(b[:local]), b[local+cut:]...)
	end := len(small) - 22
	binary.LittleEndian.PutUint32(small[end+16:], binary.LittleEndian.Uint32(small[end+16:])-uint32(cut))
	if _, err := load(small); err == nil || !strings.Contains(err.Error(), "storages overlap") {
		t.Errorf("overlapping: %v", err)
	}
}

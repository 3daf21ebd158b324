package nac

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"nac/imageset"
	"nac/internal/safetensors"
	"nac/onnx"
)

var update = flag.Bool("update", false, "write testdata anew, for the current version of the format")

// smallDetector is nac's of a layer, made of so many images; its file names no folder.
func smallDetector(t *testing.T, layer string, images int) *Detector {
	t.Helper()
	o := fashionOptions()
	o.Detector, o.Layers, o.Rate = "nac", []string{layer}, 0.1
	list := fashionList(t, "main_train_fashion")
	list.Items = list.Items[:images]
	for i := range list.Items {
		list.Items[i].Path = strings.TrimPrefix(list.Items[i].Path, fashion(t)+"/")
	}
	list.FS, list.Name = os.DirFS(fashion(t)), "fashion"
	m := fashionModel(t)
	m.info.Path = ""
	d, err := Fit(t.Context(), m, list, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A detector that version 1 of the format stored is read, and says what it said then.
func TestStoredVersion(t *testing.T) {
	const file = "testdata/version1.nac"
	results := func(d *Detector) (all []Result) {
		for _, name := range []string{"test_fashion", "test_ankle_boot", "test_mnist"} {
			for _, item := range fashionList(t, name).Items[:3] {
				r, err := d.ScoreFile(t.Context(), item.Path)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, r)
			}
		}
		return all
	}
	if *update && fileVersion == "1" {
		d := smallDetector(t, "avgpool", 100)
		if err := d.Save(file); err != nil {
			t.Fatal(err)
		}
		said, err := json.MarshalIndent(results(d), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".json", said, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Load(file, fashionModel(t))
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(file + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var want []Result
	if err := json.Unmarshal(said, &want); err != nil {
		t.Fatal(err)
	}
	for i, r := range results(d) {
		w := want[i]
		// Kernels of other processors round otherwise: a state may cross a bin's edge.
		if diff := r.Score - w.Score; r.Class != w.Class || diff > 2e-3 || diff < -2e-3 {
			t.Errorf("image %d: %+v, then %+v", i, r, w)
		}
	}
	again := filepath.Join(t.TempDir(), "again.nac")
	if err := d.Save(again); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(file)
	if b, err := os.ReadFile(again); err != nil || !bytes.Equal(a, b) {
		t.Errorf("read and saved, the file is another (%v)", err)
	}
}

// A version that nobody has written yet is refused by its name, whatever the rest is like.
func TestLaterVersion(t *testing.T) {
	f, err := safetensors.Read("testdata/version1.nac")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tensors []safetensors.Tensor
	for _, name := range f.Names() {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, tensor)
	}
	meta := f.Metadata()
	path := filepath.Join(t.TempDir(), "later.nac")
	for version, want := range map[string]string{fileVersion: "", "2000": `version "2000" of the format; this program reads up to version ` + fileVersion} {
		meta["version"] = version
		sum := newChecksum(meta)
		for _, tensor := range tensors {
			sum.add(tensor.Name, tensor.DType, tensor.Shape, tensor.Data)
		}
		meta["sha256"] = sum.hex()
		if err := safetensors.Write(path, tensors, meta); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), path+": "+want) {
			t.Errorf("version %s: %v", version, err)
		}
	}
	if len(readers) == 0 || readers[fileVersion] == nil {
		t.Errorf("no reader of version %s", fileVersion)
	}
}

// A file cut at any byte is refused, and so is one with any byte changed.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "damaged.nac")
	if err := smallDetector(t, "layer1", 50).Save(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, b := range data {
		if _, err := f.WriteAt([]byte{b ^ 1<<(i%8)}, int64(i)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "damaged.nac") {
			t.Fatalf("byte %d of %d changed: %v", i, len(data), err)
		}
		if _, err := f.WriteAt(data[i:i+1], int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(path, nil); err != nil {
		t.Fatalf("whole again: %v", err)
	}
	for n := len(data) - 1; n >= 0; n-- {
		if err := f.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "damaged.nac") {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestOtherModel(t *testing.T) {
	network, err := onnx.Load("onnx/testdata/plain.onnx")
	if err != nil {
		t.Fatal(err)
	}
	other := fashionModel(t)
	other.hash = known(strings.Repeat("0", 64))
	for _, c := range []struct {
		m    *Model
		want string
	}{{NewModel(network, "x"), "architecture"}, {other, "against 000000000000"}} {
		if _, err := Load("testdata/version1.nac", c.m); err == nil || !strings.Contains(err.Error(), "another model") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("loaded for another model: %v", err)
		}
	}
}

// Parts added up are what fitting on all images gives, count for count.
func TestMergeIsFit(t *testing.T) {
	m := fashionModel(t)
	all := fashionList(t, "main_train_fashion")
	all.Items = all.Items[:120]
	o := fashionOptions()
	o.Detector, o.Rate, o.Calibration = "nac", 0.1, fashionList(t, "val_fashion")
	o.Calibration.Items = o.Calibration.Items[:40]
	like, err := Fit(t.Context(), m, all, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Like = like
	fit := func(items, calibration []imageset.Item) *Detector {
		images, p := all, o
		images.Items, p.Calibration.Items = items, calibration
		d, err := Fit(t.Context(), m, images, p)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	held := o.Calibration.Items
	sum := fit(all.Items[:50], held[:20])
	if err := sum.Merge(fit(all.Items[50:], held[20:])); err != nil {
		t.Fatal(err)
	}
	whole := fit(all.Items, held)
	a, b := sum.Info(), whole.Info()
	a.Fit.Sources, b.Fit.Sources = nil, nil
	if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(sum.ref, whole.ref) {
		t.Errorf("merged:\n%+v\nat once:\n%+v", a, b)
	}
	x, err := sum.tensors()
	if err != nil {
		t.Fatal(err)
	}
	y, err := whole.tensors()
	if err != nil || !reflect.DeepEqual(x, y) {
		t.Errorf("the tensors differ (%v)", err)
	}
}

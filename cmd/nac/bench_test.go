package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nac/internal/safetensors"
	"nac/metric"
	"nac/quickstart"
)

// kept is the quickstart's data in a folder, every list cut to one image in
// thirty.
type kept struct{ dir, checkpoint string }

func keep(t *testing.T) kept {
	t.Helper()
	files, err := quickstart.FS()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyFile := func(name string, data []byte) {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, to, data)
	}
	read := func(name string) []byte {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	lists, err := fs.Glob(files, "benchmark_imglist/fashion/*.txt")
	if err != nil || len(lists) == 0 {
		t.Fatalf("no lists: %v", err)
	}
	for _, l := range lists {
		var b bytes.Buffer
		i := 0
		for line := range bytes.Lines(read(l)) {
			if i++; i%30 == 0 {
				b.Write(line)
				image := "images_classic/" + string(bytes.Fields(line)[0])
				copyFile(image, read(image))
			}
		}
		copyFile(l, b.Bytes())
	}
	copyFile(quickstart.Checkpoint, read(quickstart.Checkpoint))
	return kept{dir, filepath.Join(dir, filepath.FromSlash(quickstart.Checkpoint))}
}

func (k kept) list(name string) string {
	return filepath.Join(k.dir, "benchmark_imglist", "fashion", name+".txt")
}

func (k kept) bench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return call(t, append([]string{"bench", "fashion", "--arch", "resnet20", "--checkpoint", k.checkpoint, "--data", k.dir}, args...)...)
}

func TestBench(t *testing.T) {
	k := keep(t)
	out := filepath.Join(t.TempDir(), "deep", "out")
	code, stdout, stderr := k.bench(t, "--out", out, "--batch", "7")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, s := range []string{"estimate: ", " MB", "train ", "ankle_boot "} {
		if !strings.Contains(stderr, s) {
			t.Errorf("stderr does not say %q: %s", s, stderr)
		}
	}
	for _, s := range []string{"near bag", "near mean", "far mnist", "far mean", "ID accuracy", "Overfitting check", "alpha=3.09046", "wait", out} {
		if !strings.Contains(stdout, s) {
			t.Errorf("the report does not say %q", s)
		}
	}
	r := readReport(t, out)
	if r.Benchmark != "fashion" || r.Network != "resnet20" || r.Checkpoint != k.checkpoint || r.Kernel == "" || r.Transform == "" || r.TrainImages != 33 {
		t.Errorf("the report's head is %+v", r)
	}
	// The table is that of the scores that were written.
	for _, m := range r.Methods {
		id := readScores(t, out, "test", m.Key)
		for _, row := range append(m.Near, m.Far...) {
			want, err := metric.OOD(id, readScores(t, out, row.Set, m.Key))
			if err != nil {
				t.Fatal(err)
			}
			if row.Result != want {
				t.Errorf("%s on %s: %v, the scores give %v", m.Key, row.Set, row.Result, want)
			}
		}
	}
	table := readCSV(t, filepath.Join(out, "table.csv"))
	if len(table) != 1+4*5 {
		t.Errorf("table.csv has %d lines, want 21", len(table))
	}
	rows := readCSV(t, filepath.Join(out, "scores", "test.csv"))
	if len(rows) != 1+33 || strings.Join(rows[0], ",") != "path,label,prediction,nac,msp,mls,ebo" {
		t.Errorf("test.csv has %d lines, head %v", len(rows), rows[0])
	}
	right := 0
	for _, row := range rows[1:] {
		if row[1] == row[2] {
			right++
		}
	}
	if got := float64(right) / 33; got != r.Accuracy.Test {
		t.Errorf("ID accuracy is %v, the predictions give %v", r.Accuracy.Test, got)
	}

	// What a run gives depends neither on the batches nor on the workers.
	again := filepath.Join(t.TempDir(), "out")
	if code, _, stderr := k.bench(t, "--out", again, "--batch", "7", "--workers", "3", "--quiet"); code != exitOK || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, set := range []string{"sub_train", "val", "test", "bag", "ankle_boot", "mnist"} {
		a, err := os.ReadFile(filepath.Join(out, "scores", set+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(again, "scores", set+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s.csv is another with more workers", set)
		}
	}
}

func TestBenchAbsentSets(t *testing.T) {
	k := keep(t)
	for _, l := range []string{"test_mnist", "test_bag", "sub_train_fashion"} {
		if err := os.Remove(k.list(l)); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := k.bench(t, "--detectors", "msp")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "absent: bag, mnist") {
		t.Errorf("absent sets are not told of: %s", stdout)
	}
	if !strings.Contains(stdout, "Overfitting check: none") {
		t.Errorf("the absent overfitting check is not told of: %s", stdout)
	}
	if strings.Contains(stdout, "far mean") {
		t.Errorf("a mean over no set: %s", stdout)
	}
	if err := os.Remove(k.list("test_fashion")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := k.bench(t); code != exitFailure || !strings.Contains(stderr, "test_fashion.txt") {
		t.Errorf("without the ID test list: exit code %d, %s", code, stderr)
	}
}

func TestBenchBadImages(t *testing.T) {
	k := keep(t)
	data, err := os.ReadFile(k.list("test_bag"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	image := func(i int) string {
		return filepath.Join(k.dir, "images_classic", filepath.FromSlash(strings.Fields(lines[i])[0]))
	}
	for _, err := range []error{
		os.Remove(image(0)),
		os.WriteFile(image(1), nil, 0o644),
		os.WriteFile(image(2), []byte("this is a text, not a picture"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	code, stdout, stderr := k.bench(t, "--detectors", "msp", "--out", out)
	if code != exitFailure || !strings.Contains(stderr, filepath.Base(image(0))) {
		t.Errorf("--on-error stop: exit code %d, %s", code, stderr)
	}
	if stdout != "" {
		t.Errorf("--on-error stop: a table: %s", stdout)
	}
	noFiles(t, out)
	code, stdout, stderr = k.bench(t, "--detectors", "msp", "--out", out, "--on-error", "skip")
	if code != exitOK || !strings.Contains(stdout, "3 images were skipped") {
		t.Fatalf("--on-error skip: exit code %d, %s%s", code, stderr, stdout)
	}
	for i := range 3 {
		if !strings.Contains(stdout, image(i)) {
			t.Errorf("the skipped %s is not named", image(i))
		}
	}
	r := readReport(t, out)
	if len(r.Skipped) != 3 || r.Methods[0].Near[0].Images != 13 {
		t.Errorf("the report: %d skipped, %d left of 16", len(r.Skipped), r.Methods[0].Near[0].Images)
	}
}

func TestBenchBadLists(t *testing.T) {
	for _, c := range []struct{ name, change, to, says string }{
		{"a label beyond the classes", " 3\n", " 8\n", "8 classes"},
		{"an OOD label among ID images", " 3\n", " -1\n", "label -1"},
		{"a label that is no number", " 3\n", " cat\n", "cat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := keep(t)
			data, err := os.ReadFile(k.list("val_fashion"))
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(data), c.change, c.to, 1)
			if changed == string(data) {
				t.Fatal("nothing to change")
			}
			if err := os.WriteFile(k.list("val_fashion"), []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
			if code, stdout, stderr := k.bench(t); code != exitFailure || stdout != "" || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, %s", code, stderr)
			}
		})
	}
}

func TestBenchBadCheckpoints(t *testing.T) {
	k := keep(t)
	whole, err := os.ReadFile(k.checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Read(k.checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// rewrite gives the checkpoint's tensors with one changed, or left out if nil.
	rewrite := func(t *testing.T, path, name string, tensor *safetensors.Tensor) {
		var tensors []safetensors.Tensor
		for _, n := range f.Names() {
			x, err := f.Tensor(n)
			if err != nil {
				t.Fatal(err)
			}
			if n == name {
				if tensor == nil {
					continue
				}
				x = *tensor
			}
			tensors = append(tensors, x)
		}
		if err := safetensors.Write(path, tensors, nil); err != nil {
			t.Fatal(err)
		}
	}
	bias, shape, err := f.Float32s("linear.bias")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		says string
	}{
		{"empty", func(t *testing.T, path string) { writeFile(t, path, nil) }, ""},
		{"cut off", func(t *testing.T, path string) { writeFile(t, path, whole[:len(whole)/2]) }, ""},
		{"a picture", func(t *testing.T, path string) { writeFile(t, path, []byte("\x89PNG\r\n\x1a\n0000")) }, ""},
		{"a foreign class", foreignPickle, "posix.system"},
		{"NaN", func(t *testing.T, path string) {
			b := append([]float32(nil), bias...)
			b[2] = float32(math.NaN())
			x := safetensors.Float32("linear.bias", shape, b)
			rewrite(t, path, "linear.bias", &x)
		}, "linear.bias"},
		{"missing", func(t *testing.T, path string) { rewrite(t, path, "bn1.weight", nil) }, "bn1.weight"},
		{"another shape", func(t *testing.T, path string) {
			x := safetensors.Float32("linear.bias", []int{9}, make([]float32, 9))
			rewrite(t, path, "linear.bias", &x)
		}, "linear.bias"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "checkpoint.bin")
			c.make(t, path)
			k := kept{k.dir, path}
			code, stdout, stderr := k.bench(t)
			if code != exitFailure || stdout != "" {
				t.Errorf("exit code %d", code)
			}
			for _, s := range []string{path, c.says} {
				if !strings.Contains(stderr, s) {
					t.Errorf("%q does not say %q", stderr, s)
				}
			}
			if strings.Count(stderr, "\n") != 1 {
				t.Errorf("more than one line: %s", stderr)
			}
		})
	}
	// An architecture that the checkpoint does not fit.
	code, _, stderr := call(t, "layers", "--arch", "resnet32", "--checkpoint", k.checkpoint)
	if code != exitFailure || !strings.Contains(stderr, "layer1.3.conv1.weight") {
		t.Errorf("a ResNet-20 as ResNet-32: exit code %d, %s", code, stderr)
	}
	if code, stdout, _ := call(t, "layers", "--arch", "resnet20", "--checkpoint", k.checkpoint); code != exitOK || !strings.Contains(stdout, "layer3") {
		t.Errorf("layers: exit code %d, %s", code, stdout)
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// foreignPickle writes a PyTorch zip whose pickle calls posix.system.
func foreignPickle(t *testing.T, path string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range map[string]string{
		"archive/data.pkl": "\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
		"archive/version":  "3\n",
	} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, b.Bytes())
}

func TestUnwritableOutput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	writeFile(t, file, nil)
	places := map[string]string{"below a file": filepath.Join(file, "out"), "a file": file}
	if runtime.GOOS != "windows" && os.Getuid() != 0 {
		closed := filepath.Join(dir, "closed")
		if err := os.Mkdir(closed, 0o555); err != nil {
			t.Fatal(err)
		}
		places["a closed folder"] = filepath.Join(closed, "out")
	}
	for name, out := range places {
		// No estimate: the fault is found before the work.
		if code, stdout, stderr := call(t, "quickstart", "--out", out); code != exitFailure || stdout != "" || !strings.HasPrefix(stderr, "nac: --out: ") {
			t.Errorf("%s: exit code %d, %s", name, code, stderr)
		}
	}
}

func TestKeep(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "empty")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := keepFiles(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(quickstart.Checkpoint))); err != nil {
		t.Error(err)
	}
	if err := keepFiles(dir); err == nil {
		t.Error("files are written into a folder that is not empty")
	}
	if err := keepFiles(filepath.Join(parent, "absent", "dir")); err == nil {
		t.Error("a folder is made in one that does not exist")
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v %v are left behind", entries, err)
	}
}

func TestReportIsJSON(t *testing.T) {
	var v map[string]any
	k := keep(t)
	out := t.TempDir()
	if code, _, stderr := k.bench(t, "--detectors", "msp", "--out", out); code != exitOK {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"version", "benchmark", "network", "checkpoint", "transform", "kernel", "train_images", "id_accuracy", "methods", "estimate", "stages", "conventions"} {
		if v[key] == nil || v[key] == "" {
			t.Errorf("report.json has no %s", key)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/parquet-go/parquet-go"

	"nac"
	"nac/quickstart"
)

// own is a folder with the built-in network and images, and a detector fitted to 200
// of them in each of two parts.
var own = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nac-own-")
	if err != nil {
		return "", err
	}
	return dir, quickstart.Extract(dir)
})

func TestMain(m *testing.M) {
	// A command that starts others of itself starts this program.
	if os.Getenv("NAC_TEST_AS_PROGRAM") != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	code := m.Run()
	if dir, err := own(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

type ownFiles struct{ dir, model, lists, images string }

func ownData(t *testing.T) ownFiles {
	t.Helper()
	dir, err := own()
	if err != nil {
		t.Fatal(err)
	}
	return ownFiles{
		dir, filepath.Join(dir, filepath.FromSlash(quickstart.Checkpoint)),
		filepath.Join(dir, "benchmark_imglist", quickstart.Benchmark), filepath.Join(dir, "images_classic"),
	}
}

// part writes some lines of a list to a file.
func (o ownFiles) part(t *testing.T, list string, from, to int) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.lists, list+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")[from:to]
	file := filepath.Join(t.TempDir(), list+".txt")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

func (o ownFiles) fit(t *testing.T, out string, more ...string) string {
	t.Helper()
	args := append([]string{"fit", "--model", o.model, "--arch", quickstart.Arch, "--root", o.images,
		"--mean", "0.2752,0.2752,0.2752", "--std", "0.3336,0.3336,0.3336", "-o", out}, more...)
	code, stdout, stderr := call(t, args...)
	if code != exitOK {
		t.Fatalf("%v: exit code %d, %s", args, code, stderr)
	}
	return stdout
}

func ok(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := call(t, args...)
	if code != exitOK {
		t.Fatalf("%v: exit code %d, %s", args, code, stderr)
	}
	return stdout
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFitInfoMergeScore(t *testing.T) {
	o := ownData(t)
	dir := t.TempDir()
	detector, second, sum := filepath.Join(dir, "a.nac"), filepath.Join(dir, "b.nac"), filepath.Join(dir, "sum.nac")
	stdout := o.fit(t, detector, "--id", o.part(t, "main_train_fashion", 0, 100), "--detector", "nac")
	for _, want := range []string{"resnet20, 8 classes", "layer3", "fitted      on 80 images", "calibrated  on 20 others", "threshold", "nac score " + detector} {
		if !strings.Contains(stdout, want) {
			t.Errorf("fit does not print %q:\n%s", want, stdout)
		}
	}
	var info nac.Info
	if err := json.Unmarshal([]byte(ok(t, "info", detector, "--json")), &info); err != nil || info.Fit.Images != 80 {
		t.Errorf("info --json: %+v, %v", info, err)
	}
	if text := ok(t, "info", detector); !strings.HasPrefix(stdout, text) {
		t.Errorf("info prints %s", text)
	}

	o.fit(t, second, "--id", o.part(t, "main_train_fashion", 100, 200), "--like", detector)
	if stdout := ok(t, "merge", detector, second, "-o", sum); !strings.Contains(stdout, "on 160 images") || !strings.Contains(stdout, "on 40 others") {
		t.Errorf("merge prints %s", stdout)
	}
	o.fit(t, second, "--id", o.part(t, "main_train_fashion", 100, 200), "--detector", "nac")
	if code, _, stderr := call(t, "merge", detector, second, "-o", sum); code != exitFailure || !strings.Contains(stderr, "alpha") {
		t.Errorf("merging other settings: exit code %d, %s", code, stderr)
	}

	stdout = o.fit(t, second, "--id", o.part(t, "main_train_fashion", 100, 160), "--fpr", "0.1")
	if !strings.Contains(stdout, "nac_auto\n  layers    avgpool, layer3, layer2, layer1") || !strings.Contains(stdout, "response  64 neurons") {
		t.Errorf("fit of nac_auto prints %s", stdout)
	}
	if code, _, stderr := call(t, "merge", second, second, "-o", sum); code != exitFailure || !strings.Contains(stderr, "nac_auto is not a count of images") {
		t.Errorf("merging nac_auto: exit code %d, %s", code, stderr)
	}

	// All formats say the same; a bad file is a row and an exit code.
	list := o.part(t, "test_mnist", 0, 12)
	if err := os.WriteFile(list, append(read(t, list), "absent.png -1\n"...), 0o666); err != nil {
		t.Fatal(err)
	}
	var rows []scoreRow
	score := func(format string) []byte {
		t.Helper()
		out := filepath.Join(dir, "out."+format)
		code, stdout, stderr := call(t, "score", detector, list, "--root", o.images, "--out", out)
		if code != exitPartial || stdout != "" || !strings.Contains(stderr, "1 of 13 images could not be scored") {
			t.Fatalf("%s: exit code %d, %q, %s", format, code, stdout, stderr)
		}
		for _, left := range []string{".partial", ".partial.lock"} {
			if _, err := os.Stat(out + left); err == nil {
				t.Errorf("%s is left behind", out+left)
			}
		}
		return read(t, out)
	}
	lines := score("jsonl")
	for d := json.NewDecoder(bytes.NewReader(lines)); ; {
		var r scoreRow
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	if len(rows) != 13 || rows[12].Verdict != verdictError || !strings.Contains(rows[12].Error, "absent.png") || rows[12].Score != nil {
		t.Fatalf("%d rows, the last is %+v", len(rows), rows[len(rows)-1])
	}
	if r := rows[3]; r.Score == nil || *r.Score <= 0 || *r.PValue <= 0 || *r.Class > 7 || *r.Probability < 1./8 || r.Path != filepath.Join(o.images, "mnist", "test", filepath.Base(r.Path)) {
		t.Errorf("row 3: %+v", r)
	}
	table, err := csv.NewReader(bytes.NewReader(score("csv"))).ReadAll()
	if err != nil || len(table) != 14 || table[4][0] != rows[3].Path || table[13][1] != verdictError {
		t.Errorf("CSV of %d rows, %v", len(table), err)
	}
	data := score("parquet")
	stored, err := parquet.Read[scoreRow](bytes.NewReader(data), int64(len(data)))
	if err != nil || len(stored) != 13 || *stored[3].Score != *rows[3].Score || stored[12].Score != nil || stored[12].Error != rows[12].Error {
		t.Errorf("parquet: %d rows, %v", len(stored), err)
	}
	if text := score("table"); bytes.Count(text, []byte("\n")) != 14 {
		t.Errorf("table:\n%s", text)
	}

	// An interrupted run goes on: whole rows stay, a torn one is scored again.
	out := filepath.Join(dir, "resumed.jsonl")
	partial := func(keep int, images ...string) {
		t.Helper()
		hash, err := hashFile(detector)
		if err != nil {
			t.Fatal(err)
		}
		head, err := json.Marshal(journalHead{Detector: hash, Rate: 0.05, Images: images, Root: o.images})
		if err != nil {
			t.Fatal(err)
		}
		whole := bytes.Join(bytes.SplitAfter(lines, []byte("\n"))[:keep], nil)
		begun := append(append(append(head, '\n'), whole...), `{"path":"torn`...)
		if err := os.WriteFile(out+".partial", begun, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	partial(7, list)
	if code, _, stderr := call(t, "score", detector, list, "--root", o.images, "--out", out); code != exitPartial || !strings.Contains(stderr, "7 images were scored by an earlier run") {
		t.Errorf("resumed: exit code %d, %s", code, stderr)
	}
	if !bytes.Equal(read(t, out), lines) {
		t.Error("a resumed run ends in other rows")
	}
	partial(7, "other")
	if code, _, stderr := call(t, "score", detector, list, "--root", o.images, "--out", out); code != exitFailure || !strings.Contains(stderr, "--restart") {
		t.Errorf("another run's rows: exit code %d, %s", code, stderr)
	}
	if code, _, _ := call(t, "score", detector, list, "--root", o.images, "--out", out, "--restart"); code != exitPartial {
		t.Errorf("restarted: exit code %d", code)
	}

	// Other ways to give images.
	folder := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(folder, "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "below", "one.png"), read(t, rows[0].Path), 0o666); err != nil {
		t.Fatal(err)
	}
	if text := ok(t, "score", detector, rows[0].Path, folder, "--format", "csv"); strings.Count(text, "\n") != 3 || !strings.Contains(text, filepath.Join(folder, "below", "one.png")) {
		t.Errorf("a file and a folder: %s", text)
	}
	if code, _, stderr := call(t, "score", detector, filepath.Join(dir, "absent")); code != exitUsage || !strings.Contains(stderr, "absent") {
		t.Errorf("an absent place: exit code %d, %s", code, stderr)
	}
	input := func(in []byte) string {
		var stdout, stderr bytes.Buffer
		file := filepath.Join(dir, "input")
		if err := os.WriteFile(file, in, 0o666); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		saved := os.Stdin
		os.Stdin = f
		defer func() { os.Stdin = saved }()
		if code := run(t.Context(), []string{"score", detector, "-", "--format", "jsonl"}, &stdout, &stderr); code != exitOK {
			t.Fatalf("exit code %d, %s", code, stderr.String())
		}
		return stdout.String()
	}
	first := string(bytes.SplitAfter(lines, []byte("\n"))[0])
	if got := input([]byte(rows[0].Path + "\n")); got != first {
		t.Errorf("a list on the standard input: %s, want %s", got, first)
	}
	if got := input(read(t, rows[0].Path)); strings.ReplaceAll(got, `"-"`, `"`+rows[0].Path+`"`) != first {
		t.Errorf("an image on the standard input: %s, want %s", got, first)
	}

	// Why a digit is no piece of clothing.
	why := filepath.Join(dir, "why")
	ok(t, "score", detector, rows[0].Path, "--explain", why)
	name := filepath.Join(why, "000001-"+strings.TrimSuffix(filepath.Base(rows[0].Path), ".png"))
	if text := read(t, name+".txt"); !bytes.Contains(text, []byte("layer2")) || !bytes.Contains(text, []byte("class ")) {
		t.Errorf("explained: %s", text)
	}
	var explained struct {
		Path   string
		Score  float64
		Layers []nac.LayerExplanation
	}
	if err := json.Unmarshal(read(t, name+".json"), &explained); err != nil || explained.Path != rows[0].Path || explained.Score != *rows[0].Score || len(explained.Layers) == 0 {
		t.Errorf("explained as JSON: %+v, %v", explained, err)
	}
	if picture, err := png.Decode(bytes.NewReader(read(t, name+".png"))); err != nil || picture.Bounds().Dx() < 2*picture.Bounds().Dy() {
		t.Errorf("the picture: %v", err)
	}

	// The classifier is gone, or another.
	if err := os.WriteFile(filepath.Join(dir, "other.onnx"), read(t, filepath.Join("..", "..", "onnx", "testdata", "plain.onnx")), 0o666); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := call(t, "score", detector, rows[0].Path, "--model", filepath.Join(dir, "gone.onnx")); code != exitFailure || !strings.Contains(stderr, "gone.onnx") {
		t.Errorf("a classifier that is gone: exit code %d, %s", code, stderr)
	}
}

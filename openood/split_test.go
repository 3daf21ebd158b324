package openood

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nac/internal/shareddata"
)

func fileHash(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// splitOf is a split with the hashes of the files that the reference's
// imglist_generator.py wrote for the same list.
type splitOf struct {
	name      string
	seed      uint32
	sub, main string
}

func (c splitOf) check(t *testing.T, dir string) {
	t.Helper()
	s, err := SplitTrain(dir, c.name, 1000, c.seed, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := fileHash(t, s.SubFile); got != c.sub {
		t.Errorf("%s, seed %d: %s is another", c.name, c.seed, s.SubFile)
	}
	if got := fileHash(t, s.MainFile); got != c.main {
		t.Errorf("%s, seed %d: %s is another", c.name, c.seed, s.MainFile)
	}
}

func trainList(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "train_"+name+".txt"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSplitTrain(t *testing.T) {
	dir := t.TempDir()
	// 37 residues, of which 19 occur, in unequal numbers.
	var b strings.Builder
	for i := range 5003 {
		fmt.Fprintf(&b, "imagenet_1k/train/n%05d.JPEG %d\n", i, (i*i+3*i)/2%37)
	}
	trainList(t, dir, "made", b.String())
	splitOf{"made", 3, "7fd97aba8b7de05092dafd3172eaa108530dc7e5e63145a89ee06644e3b0f7a4", "9a4a32badb651428b0e307a3d9181ff419f73c25752fedfc6c62f85e62a88509"}.check(t, dir)

	// The same again changes nothing; another is refused, and both lists stay.
	s, err := SplitTrain(dir, "made", 1000, 3, false)
	if err != nil || !s.Kept {
		t.Errorf("the same split again: kept %v, %v", s.Kept, err)
	}
	before := fileHash(t, s.MainFile)
	if _, err := SplitTrain(dir, "made", 1000, 4, false); !errors.Is(err, ErrOtherSplit) || fileHash(t, s.MainFile) != before {
		t.Errorf("another split: %v", err)
	}
	trainList(t, dir, "made", b.String()+"a b c.png 3")
	if s, err = SplitTrain(dir, "made", 1000, 3, true); err != nil || s.MainImages+s.SubImages != 5004 {
		t.Errorf("a last line without an end: %d and %d images, %v", s.MainImages, s.SubImages, err)
	}
}

func TestSplitTrainRefused(t *testing.T) {
	for _, c := range []struct{ name, list, says string }{
		{"empty", "", "no images"},
		{"no label", "a.png\n", "line 1"},
		{"OOD", "a.png 0\nb.png -1\n", "b.png"},
		{"too few", "a.png 0\nb.png 1\nc.png 2\n", "3 images"},
		{"nothing left", "a.png 0\nb.png 0\n", "2 and 0"},
	} {
		dir := t.TempDir()
		trainList(t, dir, "made", c.list)
		_, err := SplitTrain(dir, "made", 2, 1, false)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "train_made.txt") {
			t.Errorf("%s: %v", c.name, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%s: files are left behind", c.name)
		}
	}
	if _, err := SplitTrain(t.TempDir(), "made", 2, 1, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no list: %v", err)
	}
}

// OpenOOD's own lists: the reference's split, and as many images as the
// benchmarks say.
func TestOriginalLists(t *testing.T) {
	z, err := zip.OpenReader(shareddata.Path(t, "data", "openood_original_lists.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	lists := map[string][]byte{}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".txt") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lists[strings.ToLower(strings.TrimPrefix(f.Name, "openood_original_lists/"))] = data
	}
	found := 0
	for _, b := range Benchmarks() {
		for list, want := range b.Images {
			data, ok := lists[b.Name+"/"+list+".txt"]
			if !ok {
				continue
			}
			found++
			if got := len(listLines(data)); got != want {
				t.Errorf("%s: %s has %d images, want %d", b.Name, list, got, want)
			}
		}
	}
	if found != 26 { // of 30; tin597, Places and SUN are in no benchmark
		t.Errorf("%d lists were compared, want 26", found)
	}
	for _, c := range []splitOf{
		{"cifar10", 1, "1ab721584f5f743501922cfdce7ed0ef7f354d27462f49be69321bc4ef2b8a16", "03bb2ef6446207ee25bf3656699867086fe69e04ca2ae89d672958e3c55aa322"},
		{"cifar10", 7, "ac5cc4863a50dc11bed809c1eb5ca5395b1e1e9c028bc833329357644da43771", "20247b56b70d5291dcc231d4b4e021c1863113e117d3d6b77f840330f81983ba"},
		{"cifar100", 1, "8f4afb539436d675e74af134c8474beb40d1b96dae2e9a83e2d3951e427f9401", "faeff1a3705a5748897b736d1e5c33501eb9e7d07f350ab1a14bf998caa9ab99"},
		{"cifar100", 7, "8b467d76ae7a28c2f4fb52650987a3b927dfce7090a838fd9feccaef273c3740", "829cabe50d7e604e4cc36561bac1881c1a749280da7e6876abb7a7ae8c5fbc26"},
	} {
		dir := t.TempDir()
		trainList(t, dir, c.name, string(bytes.Clone(lists[c.name+"/train_"+c.name+".txt"])))
		c.check(t, dir)
	}
}

package quickstart

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

func files(t *testing.T) fs.FS {
	t.Helper()
	f, err := FS()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t *testing.T, f fs.FS, name string) []byte {
	t.Helper()
	data, err := fs.ReadFile(f, name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEmbeddedSize(t *testing.T) {
	const limit = 6 << 20
	if len(archive) > limit {
		t.Errorf("the archive has %d bytes, at most %d are allowed", len(archive), limit)
	}
}

// lists says what each list must hold: so many images of each class, the
// classes by folder name, in which split, and whether they are OOD.
var lists = []struct {
	name    string
	folder  string
	classes []string
	each    int
	ood     bool
}{
	{"main_train_fashion", "fashion/train", ClassNames(), 125, false},
	{"sub_train_fashion", "fashion/train", ClassNames(), 50, false},
	{"val_fashion", "fashion/test", ClassNames(), 50, false},
	{"test_fashion", "fashion/test", ClassNames(), 125, false},
	{"val_heldout", "fashion/train", []string{"bag", "ankle_boot"}, 100, true},
	{"test_bag", "fashion/test", []string{"bag"}, 500, true},
	{"test_ankle_boot", "fashion/test", []string{"ankle_boot"}, 500, true},
	{"test_mnist", "mnist/test", strings.Split("0123456789", ""), 100, true},
}

func TestLists(t *testing.T) {
	f := files(t)
	inList := map[string]string{} // image path: list
	for _, l := range lists {
		count := map[string]int{}
		scan := bufio.NewScanner(bytes.NewReader(read(t, f, "benchmark_imglist/"+Benchmark+"/"+l.name+".txt")))
		for scan.Scan() {
			p, text, _ := strings.Cut(scan.Text(), " ")
			label, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("%s: line %q: %v", l.name, scan.Text(), err)
			}
			class := classOf(p)
			want := -1
			if !l.ood {
				want = slices.Index(ClassNames(), class)
			}
			if label != want {
				t.Errorf("%s: %s has label %d, want %d", l.name, p, label, want)
			}
			if !strings.HasPrefix(p, l.folder+"/") {
				t.Errorf("%s: %s is not below %s", l.name, p, l.folder)
			}
			if other, twice := inList[p]; twice {
				t.Errorf("%s: %s is in %s too", l.name, p, other)
			}
			inList[p] = l.name
			count[class]++
			if err := checkImage(read(t, f, "images_classic/"+p)); err != nil {
				t.Errorf("%s: %s: %v", l.name, p, err)
			}
		}
		if err := scan.Err(); err != nil {
			t.Fatal(err)
		}
		if len(count) != len(l.classes) {
			t.Errorf("%s: classes %v, want %v", l.name, count, l.classes)
		}
		for _, c := range l.classes {
			if count[c] != l.each {
				t.Errorf("%s: %d images of %s, want %d", l.name, count[c], c, l.each)
			}
		}
	}
	images, err := fs.Glob(f, "images_classic/*/*/*.png")
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := fs.Glob(f, "images_classic/*/*/*/*.png")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(images) + len(deeper); n != len(inList) {
		t.Errorf("%d images in the archive, %d in lists", n, len(inList))
	}
}

// classOf returns the folder of a Fashion-MNIST image, the digit of an MNIST one.
func classOf(p string) string {
	if strings.HasPrefix(p, "mnist/") {
		digit, _, _ := strings.Cut(path.Base(p), "_")
		return digit
	}
	return path.Base(path.Dir(p))
}

func checkImage(data []byte) error {
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	gray, ok := img.(*image.Gray)
	if !ok || gray.Rect != image.Rect(0, 0, 28, 28) {
		return fmt.Errorf("%T of %v, want a grey image of 28x28", img, img.Bounds())
	}
	lowest, highest := slices.Min(gray.Pix), slices.Max(gray.Pix)
	if lowest == highest {
		return errors.New("all pixels are alike")
	}
	return nil
}

// The constants must be those the network was trained with.
func TestCheckpointMetadata(t *testing.T) {
	data := read(t, files(t), Checkpoint)
	n := binary.LittleEndian.Uint64(data)
	if n > uint64(len(data)-8) {
		t.Fatalf("header of %d bytes in a file of %d", n, len(data))
	}
	var header struct {
		Metadata map[string]string `json:"__metadata__"`
	}
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"arch":    Arch,
		"classes": strings.Join(ClassNames(), " "),
		"mean":    fmt.Sprint(Mean),
		"std":     fmt.Sprint(Std),
	} {
		if got := header.Metadata[key]; got != want {
			t.Errorf("%s is %q in the checkpoint, %q in the program", key, got, want)
		}
	}
}

// What is said beside the source must be what users get.
func TestNotices(t *testing.T) {
	f := files(t)
	for _, name := range []string{"NOTICE", "licenses/fashion-mnist.txt", "licenses/GoMNIST.txt"} {
		want, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, f, name), want) {
			t.Errorf("%s in the archive is not the file beside the package", name)
		}
	}
}

func TestFS(t *testing.T) {
	if err := fstest.TestFS(files(t), Checkpoint, "NOTICE"); err != nil {
		t.Error(err)
	}
}

func TestExtract(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if err := Extract(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(Checkpoint)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, read(t, files(t), Checkpoint)) {
		t.Error("the extracted checkpoint differs")
	}
	err = Extract(dir)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("extracting twice: %v, want an error matching fs.ErrExist", err)
	}
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("extracting twice: %v does not name the folder", err)
	}
}

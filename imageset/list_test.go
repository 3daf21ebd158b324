package imageset

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"nac/internal/shareddata"
)

func TestReadList(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "test_odd.names.txt")
	text := "\ufeffa/b.png 3\r\n\r\n  c d/e  f.jpg -1  \n../up.png 0\n/abs/x.png 12\ncarpenter's_kit.JPEG\t7"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	list, err := ReadList(file, "root/images")
	if err != nil {
		t.Fatal(err)
	}
	want := []Item{
		{filepath.Join("root", "images", "a", "b.png"), 3},
		{filepath.Join("root", "images", "c d", "e  f.jpg"), -1},
		{filepath.Join("root", "up.png"), 0},
		{"/abs/x.png", 12},
		{filepath.Join("root", "images", "carpenter's_kit.JPEG"), 7},
	}
	if list.Name != "test_odd.names" || list.FS != nil || len(list.Items) != len(want) {
		t.Fatalf("got %+v", list)
	}
	for i, w := range want {
		if list.Items[i] != w {
			t.Errorf("item %d is %+v, want %+v", i, list.Items[i], w)
		}
	}
}

func TestReadListFaults(t *testing.T) {
	for text, want := range map[string]string{
		"a.png 1\nb.png":                    `line 2: "b.png" has no label`,
		"a.png 1\nb c.png":                  `line 2: the label "c.png"`,
		"a.png 1.5":                         `line 1: the label "1.5"`,
		"a.png -2":                          "line 1: the label -2",
		"\n\na.png 99999999999":             "line 3: the label",
		"":                                  "no images",
		" \r\n\n":                           "no images",
		"\x89PNG\r\n\x1a\n\x00\x00 1":       "line",
		"a\x00b.png 1":                      "NUL",
		"../../x.png 1":                     "out of the image root",
		"/etc/passwd 1":                     "absolute",
		strings.Repeat("x", 1<<20) + ".png": "no label",
	} {
		fsys := fstest.MapFS{"lists/l.txt": {Data: []byte(text)}}
		_, err := ReadListFS(fsys, "lists/l.txt", "images")
		if err == nil {
			t.Errorf("%.40q: no error", text)
			continue
		}
		if msg := err.Error(); !strings.Contains(msg, want) || !strings.Contains(msg, "lists/l.txt") || len(msg) > 1000 {
			t.Errorf("%.40q: the error is %.300q, want one with %q and the file's name", text, msg, want)
		}
	}
	if _, err := ReadList(filepath.Join(t.TempDir(), "none.txt"), ""); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none.txt") {
		t.Errorf("a missing list: %v", err)
	}
	if _, err := ReadList(t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder for a list: %v", err)
	}
}

// TestSharedLists reads OpenOOD's own lists; the counts are the published ones.
func TestSharedLists(t *testing.T) {
	dir := shareddata.Unpacked(t)
	for name, want := range map[string]int{
		"benchmark_imglist/cifar10/test_cifar10.txt":          9000,
		"benchmark_imglist/cifar10/val_tin.txt":               1000,
		"benchmark_imglist/imagenet/test_imagenet_sample.txt": 334,
		"openood_original_lists/cifar10/test_mnist.txt":       70000,
		"openood_original_lists/cifar10/test_places365.txt":   35195,
		"openood_original_lists/imagenet/train_imagenet.txt":  1281167,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil && strings.HasPrefix(name, "openood") {
			t.Logf("%s is not in the shared data", name)
			continue
		}
		list, err := ReadList(filepath.Join(dir, name), filepath.Join(dir, "images_classic"))
		if err != nil {
			t.Error(err)
		} else if len(list.Items) != want {
			t.Errorf("%s has %d images, want %d", name, len(list.Items), want)
		}
	}
	list, err := ReadList(filepath.Join(dir, "benchmark_imglist/cifar10/test_texture.txt"), filepath.Join(dir, "images_classic"))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Check(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestReadFolder(t *testing.T) {
	image := &fstest.MapFile{Data: []byte("x")}
	classes := fstest.MapFS{
		"train/dog/b.JPG":                image,
		"train/dog/a.png":                image,
		"train/dog/notes.txt":            image,
		"train/cat/z/1.jpeg":             image,
		"train/cat/m.webp":               image,
		"train/cat/.hidden.png":          image,
		"train/cat z/0.bmp":              image,
		"train/.ipynb_checkpoints/a.png": image,
		"train/readme.md":                image,
	}
	want := []Item{
		{"cat/m.webp", 0}, {"cat/z/1.jpeg", 0},
		{"cat z/0.bmp", 1},
		{"dog/a.png", 2}, {"dog/b.JPG", 2},
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, classes); err != nil {
		t.Fatal(err)
	}
	fromFS, err := ReadFolderFS(classes, "train")
	if err != nil {
		t.Fatal(err)
	}
	fromOS, err := ReadFolder(filepath.Join(dir, "train"))
	if err != nil {
		t.Fatal(err)
	}
	if fromFS.FS == nil || fromOS.FS != nil || fromFS.Name != "train" || fromOS.Name != "train" || strings.Join(fromOS.Classes, "|") != "cat|cat z|dog" {
		t.Errorf("got %+v and %+v", fromFS, fromOS)
	}
	for i, w := range want {
		if i >= len(fromFS.Items) || fromFS.Items[i] != (Item{"train/" + w.Path, w.Label}) {
			t.Errorf("FS: item %d of %v, want %v", i, fromFS.Items, w)
		}
		if i >= len(fromOS.Items) || fromOS.Items[i] != (Item{filepath.Join(dir, "train", filepath.FromSlash(w.Path)), w.Label}) {
			t.Errorf("OS: item %d of %v, want %v", i, fromOS.Items, w)
		}
	}

	flat, err := ReadFolderFS(fstest.MapFS{"f/b.png": image, "f/a.gif": image}, "f")
	if err != nil || len(flat.Items) != 2 || flat.Items[0] != (Item{"f/a.gif", Unlabelled}) || flat.Classes != nil {
		t.Errorf("flat folder: %+v, %v", flat, err)
	}

	for name, bad := range map[string]fstest.MapFS{
		"no images in it":     {"f/x.txt": image},
		"class b has no":      {"f/a/1.png": image, "f/b/x.txt": image},
		"lies beside class":   {"f/a/1.png": image, "f/2.png": image},
		"file does not exist": {"g/a.png": image},
		"folders deep":        {"f/" + strings.Repeat("a/", 40) + "1.png": image},
	} {
		if _, err := ReadFolderFS(bad, "f"); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "f") {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}

func TestCheck(t *testing.T) {
	list := List{Name: "val", FS: fstest.MapFS{"a.png": {}, "d/x": {}}}
	for _, p := range []string{"a.png", "gone1", "d", "gone2", "gone3", "gone4", "gone5", "gone6"} {
		list.Items = append(list.Items, Item{Path: p})
	}
	err := list.Check(context.Background())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"val", "7 of 8", "gone1", "d: not a regular file", "gone4"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := list.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("a.png 1\nb c.png -1\r\n"))
	f.Add([]byte("\ufeff\n\n 3\n"))
	f.Add([]byte("../x 1\n/y 2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ReadListFS(fstest.MapFS{"l": {Data: data}}, "l", "root")
		if err != nil {
			return
		}
		for _, item := range list.Items {
			if item.Label < Unlabelled || !fs.ValidPath(item.Path) {
				t.Errorf("got %+v", item)
			}
		}
	})
}

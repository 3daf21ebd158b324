package imageset

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeShard makes a WebDataset shard of the first images of numbered and returns its
// bytes; every second image has a class.
func writeShard(t testing.TB, file string, first, n int) []byte {
	t.Helper()
	_, files := numbered(t, first+n)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	for i := first; i < first+n; i++ {
		if i%2 == 0 {
			add(fmt.Sprintf("a/%06d.cls", i), []byte(fmt.Sprintf("%d\n", i%7)))
		}
		add(fmt.Sprintf("a/%06d.jpg.png", i), files[fmt.Sprintf("img/%d.png", i)].Data)
		add(fmt.Sprintf("a/%06d.json", i), []byte("{}"))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestShards(t *testing.T) {
	dir := t.TempDir()
	writeShard(t, filepath.Join(dir, "s-000.tar"), 0, 20)
	data := writeShard(t, filepath.Join(dir, "s-001.tar"), 20, 11)
	list, err := Read(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 31 {
		t.Fatalf("%d images, want 31", len(list.Items))
	}
	for i, item := range list.Items {
		want := i % 7
		if i%2 == 1 {
			want = Unlabelled
		}
		if item.Label != want {
			t.Errorf("%s: label %d, want %d", item.Path, item.Label, want)
		}
		list.Items[i].Label = i % 7 // as checkBatch wants it
	}
	l := Load(context.Background(), list, LoadOptions{Transform: asIs, BatchSize: 8})
	n := 0
	for {
		b, err := l.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		checkBatch(t, b)
		n += b.N
	}
	if n != 31 {
		t.Errorf("%d images decoded", n)
	}
	if _, err := list.FS.Open(filepath.Join(dir, "s-000.tar") + "/a/absent.png"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent member: %v", err)
	}
	// However an archive is cut off: an error, or fewer images.
	cut := filepath.Join(dir, "cut.tar")
	for end := 0; end < len(data); end += 97 {
		if err := os.WriteFile(cut, data[:end], 0o666); err != nil {
			t.Fatal(err)
		}
		if l, err := ReadShards(cut); err == nil && len(l.Items) > 11 {
			t.Errorf("cut at %d: %d images", end, len(l.Items))
		}
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"zipped.tar": {[]byte{0x1f, 0x8b, 8, 0}, "gzip"},
		"text.tar":   {bytes.Repeat([]byte("no archive "), 100), "text.tar"},
		"empty.tar":  {make([]byte, 1024), "no images"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, c.data, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadShards(file); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"b/2.png", "b/10.png", "b/deep/1.jpg", "a.webp", "b/notes.md", "b/.hidden.png", "c/d.tar/e.png"} {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	writeShard(t, filepath.Join(dir, "s.tar"), 0, 2)
	list := filepath.Join(dir, "list.txt")
	text := "\ufeffb/2.png\n\n  b/with space.png  \nb/10.png 7\n" + filepath.Join(dir, "a.webp") + "\n"
	if err := os.WriteFile(list, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "image-without-ending")
	if err := os.WriteFile(raw, []byte("\x89PNG\x00\x00"), 0o666); err != nil {
		t.Fatal(err)
	}
	find := func(root string, places ...string) (got []string, err error) {
		for item, err := range Find(&Shards{Keep: 1}, root, places...) {
			if err != nil {
				return got, err
			}
			name, _ := filepath.Rel(dir, item.Path)
			got = append(got, fmt.Sprintf("%s %d", filepath.ToSlash(name), item.Label))
		}
		return got, nil
	}
	for _, c := range []struct {
		places []string
		want   []string
	}{
		{[]string{filepath.Join(dir, "b")}, []string{"b/10.png -1", "b/2.png -1", "b/deep/1.jpg -1"}},
		{[]string{filepath.Join(dir, "c"), raw}, []string{"c/d.tar/e.png -1", "image-without-ending -1"}},
		{[]string{list}, []string{"b/2.png -1", "b/with space.png -1", "b/10.png 7", "a.webp -1"}},
		{[]string{filepath.Join(dir, "s.tar"), filepath.Join(dir, "a.webp")}, []string{"s.tar/a/000000.jpg.png 0", "s.tar/a/000001.jpg.png -1", "a.webp -1"}},
	} {
		if got, err := find("", c.places...); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v; want %v", c.places, got, err, c.want)
		}
	}
	if got, err := find(filepath.Join(dir, "other"), list); err != nil || got[0] != "other/b/2.png -1" {
		t.Errorf("with a root: %v, %v", got, err)
	}
	if _, err := find("", filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent place: %v", err)
	}
	if _, err := (&Shards{}).Open(filepath.Join(dir, "c/d.tar/e.png")); err != nil {
		t.Errorf("a folder that is called like an archive: %v", err)
	}
	l, err := Read(list, "")
	if err != nil || len(l.Items) != 4 || l.Items[2].Label != 7 || l.Items[0].Label != Unlabelled {
		t.Errorf("Read: %+v, %v", l, err)
	}
}

// A stream reports every image in order, good and bad, and keeps none of them.
func TestStream(t *testing.T) {
	list, files := numbered(t, 30)
	bad := spoil(files)
	broken := errors.New("broken")
	for _, size := range []int{1, 4, 10, 64} {
		l := Stream(context.Background(), files, func(yield func(Item, error) bool) {
			for _, item := range list.Items {
				if !yield(item, nil) {
					return
				}
			}
			yield(Item{}, broken)
		}, LoadOptions{Transform: asIs, BatchSize: size})
		next := 0
		var failed []int
		for {
			b, err := l.Next()
			if err != nil {
				if !errors.Is(err, broken) {
					t.Errorf("size %d: %v", size, err)
				}
				break
			}
			checkBatch(t, b)
			if b.First != next || b.N+len(b.Failed) != len(b.Items) || b.Items[0] != list.Items[next] {
				t.Errorf("size %d: batch of %d from %d, want %d", size, len(b.Items), b.First, next)
			}
			for _, f := range b.Failed {
				failed = append(failed, f.Index)
			}
			next += len(b.Items)
			b.Release()
		}
		if next != 30 || !slices.Equal(failed, bad) || len(l.Skipped()) != 0 {
			t.Errorf("size %d: %d images, failed %v, want %v", size, next, failed, bad)
		}
	}
}

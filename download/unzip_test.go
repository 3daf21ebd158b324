package download

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rawEntry is an entry whose header a test makes up.
type rawEntry struct {
	name   string
	data   string
	mode   fs.FileMode
	change func(h *zip.FileHeader)
}

func rawZip(t testing.TB, entries ...rawEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if e.mode != 0 {
			h.SetMode(e.mode)
		}
		if e.change != nil {
			e.change(h)
		}
		var f io.Writer
		var err error
		if h.Method == zip.Store || h.Method == zip.Deflate {
			f, err = w.CreateHeader(h)
		} else {
			h.UncompressedSize64, h.CompressedSize64 = uint64(len(e.data)), uint64(len(e.data))
			f, err = w.CreateRaw(h)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.data != "" {
			if _, err := f.Write([]byte(e.data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// patched replaces the first occurrences of 4-byte numbers after a signature of the
// central directory.
func patched(t testing.TB, archive []byte, offset int, value uint32) []byte {
	t.Helper()
	b := bytes.Clone(archive)
	at := bytes.Index(b, []byte("PK\x01\x02"))
	if at < 0 {
		t.Fatal("no central directory")
	}
	binary.LittleEndian.PutUint32(b[at+offset:], value)
	return b
}

func TestUnzipRefuses(t *testing.T) {
	ok := rawEntry{name: "ok.txt", data: "ok"}
	plain := rawZip(t, rawEntry{name: "a", data: strings.Repeat("abc", 1000)})
	file := func(name string) []byte { return rawZip(t, ok, rawEntry{name: name, data: "x"}) }
	for _, c := range []struct {
		name    string
		archive []byte
		problem string
		partly  bool // found while unpacking
		corrupt bool
	}{
		{name: "parent", archive: file("../evil"), problem: "leads out"},
		{name: "parent within", archive: file("a/../../evil"), problem: "leads out"},
		{name: "parent that stays inside", archive: file("a/../b"), problem: "leads out"},
		{name: "parent folder", archive: rawZip(t, ok, rawEntry{name: "../"}), problem: "leads out"},
		{name: "absolute", archive: file("/etc/passwd"), problem: "absolute"},
		{name: "backslash", archive: file(`..\evil`), problem: "character"},
		{name: "zero byte", archive: file("a\x00b"), problem: "character"},
		{name: "escape", archive: file("a\x1b[2J"), problem: "character"},
		{name: "dot", archive: file("a/./b"), problem: "empty part"},
		{name: "double slash", archive: file("a//b"), problem: "empty part"},
		{name: "no name", archive: rawZip(t, ok, rawEntry{name: "/"}), problem: "no name"},
		{name: "long name", archive: file(strings.Repeat("a/", 2500) + "b"), problem: "no name"},
		{name: "symbolic link", archive: rawZip(t, ok, rawEntry{name: "link", data: "/etc", mode: fs.ModeSymlink | 0o777}), problem: "neither"},
		{name: "link, then through it", archive: rawZip(t, rawEntry{name: "link", data: "/tmp", mode: fs.ModeSymlink | 0o777}, rawEntry{name: "link/evil", data: "x"}), problem: "neither"},
		{name: "device", archive: rawZip(t, ok, rawEntry{name: "dev", mode: fs.ModeDevice | 0o600}), problem: "neither"},
		{name: "pipe", archive: rawZip(t, ok, rawEntry{name: "pipe", mode: fs.ModeNamedPipe | 0o600}), problem: "neither"},
		{name: "file with a folder's mode", archive: rawZip(t, ok, rawEntry{name: "a", mode: fs.ModeDir | 0o700}), problem: "neither"},
		{name: "encrypted", archive: patchedFlags(t, file("a"), 1), problem: "encrypted"},
		{name: "unknown method", archive: rawZip(t, rawEntry{name: "a", data: "x", change: func(h *zip.FileHeader) { h.Method = 9 }}), problem: "method (9)"},
		{name: "twice under two spellings", archive: rawZip(t, ok, rawEntry{name: "./ok.txt"}), problem: "twice"},
		{name: "twice", archive: rawZip(t, ok, ok), problem: "twice"},
		{name: "file and folder", archive: rawZip(t, rawEntry{name: "a", data: "x"}, rawEntry{name: "a/"}), problem: "both"},
		{name: "folder and file", archive: rawZip(t, rawEntry{name: "a/"}, rawEntry{name: "a", data: "x"}), problem: "twice"},
		{name: "file above a file", archive: rawZip(t, rawEntry{name: "a/b/c", data: "x"}, rawEntry{name: "a/b", data: "x"}), problem: "both"},
		{name: "bomb", archive: rawZip(t, rawEntry{name: "a", data: strings.Repeat("\x00", 3<<20)}), problem: "times its size"},
		{name: "many", archive: rawZip(t, rawEntry{name: "a"}, rawEntry{name: "b"}, rawEntry{name: "c"}, rawEntry{name: "d"}), problem: "4 entries"},
		{name: "large", archive: rawZip(t, rawEntry{name: "a", data: noise(5 << 20)}), problem: "more than"},
		{name: "announces less", archive: patched(t, plain, 24, 10), problem: "valid zip", partly: true, corrupt: true},
		{name: "announces more", archive: patched(t, plain, 24, 5000), problem: "unexpected EOF", partly: true, corrupt: true},
		{name: "announces 4 GB", archive: patched(t, plain, 24, 0xfffffffe), problem: "more than"},
		{name: "wrong checksum", archive: patched(t, plain, 16, 1), problem: "checksum", partly: true, corrupt: true},
		{name: "cut", archive: plain[:len(plain)-10], problem: "valid zip", corrupt: true},
		{name: "empty", archive: nil, problem: "valid zip", corrupt: true},
		{name: "a web page", archive: []byte(quotaPage), problem: "valid zip", corrupt: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer := t.TempDir()
			src, dir := filepath.Join(outer, "a.zip"), filepath.Join(outer, "out", "in")
			if err := os.MkdirAll(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(src, c.archive, 0o666); err != nil {
				t.Fatal(err)
			}
			err := Unzip(t.Context(), src, dir, Limits{Entries: 3, Bytes: 4 << 20, Ratio: 100}, nil)
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Fatalf("error %v, want one with %q", err, c.problem)
			}
			if got := errors.As(err, new(corruptError)); got != c.corrupt {
				t.Errorf("marked as damaged: %v, want %v (%v)", got, c.corrupt, err)
			}
			for name := range tree(t, outer) {
				if name != "a.zip" && !(c.partly && strings.HasPrefix(name, "out/in/")) {
					t.Errorf("%s has been written", name)
				}
			}
		})
	}
}

// patchedFlags sets the flags of the last entry of the central directory.
func patchedFlags(t testing.TB, archive []byte, flags uint16) []byte {
	t.Helper()
	b := bytes.Clone(archive)
	binary.LittleEndian.PutUint16(b[bytes.LastIndex(b, []byte("PK\x01\x02"))+8:], flags)
	return b
}

func TestUnzip(t *testing.T) {
	src, dir := filepath.Join(t.TempDir(), "a.zip"), t.TempDir()
	archive := rawZip(t,
		rawEntry{name: "empty/"},
		rawEntry{name: "a/b/carpenter's kit ü.JPEG", data: noise(1000)},
		rawEntry{name: "a/b/", mode: fs.ModeDir},
		rawEntry{name: "a/setuid", data: "x", mode: fs.ModePerm | 0o777},
		rawEntry{name: "a/none", mode: 0o200},
		rawEntry{name: "stored", data: "abc", change: func(h *zip.FileHeader) { h.Method = zip.Store }},
		rawEntry{name: "__MACOSX/a/._b", data: "x"}, rawEntry{name: "a/.DS_Store", data: "x"},
		rawEntry{name: "a/Icon\r"}, rawEntry{name: "./"}, rawEntry{name: "./dot", data: "d"},
		// Text shrinks more than images; small archives may.
		rawEntry{name: "zeros", data: strings.Repeat("\x00", 1<<19)},
	)
	if err := os.WriteFile(src, archive, 0o666); err != nil {
		t.Fatal(err)
	}
	var wrote, total int64
	if err := Unzip(t.Context(), src, dir, DefaultLimits, func(n, all int64) { wrote, total = wrote+n, all }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a/b/carpenter's kit ü.JPEG": noise(1000), "a/setuid": "x", "a/none": "", "stored": "abc", "dot": "d", "zeros": strings.Repeat("\x00", 1<<19)}
	wantTree(t, dir, want)
	if wrote != 1000+1+3+1+1<<19 || wrote != total {
		t.Errorf("%d bytes of %d reported", wrote, total)
	}
	if info, err := os.Stat(filepath.Join(dir, "empty")); err != nil || !info.IsDir() {
		t.Errorf("empty: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "a", "setuid")); err != nil || info.Mode()&0o111 != 0 {
		t.Errorf("the archive's mode was taken: %v, %v", info.Mode(), err)
	}
	// What is there is never overwritten.
	if err := Unzip(t.Context(), src, dir, DefaultLimits, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: error %v", err)
	}
}

func TestUnzipInterrupted(t *testing.T) {
	src := filepath.Join(t.TempDir(), "a.zip")
	if err := os.WriteFile(src, zipOf(t, toyFiles()), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Unzip(ctx, src, t.TempDir(), DefaultLimits, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// Archives that are well-formed but for their names and modes.
func FuzzUnzipNames(f *testing.F) {
	for _, s := range []string{"a/b", "../b", "/a", "a/../b", "a//b", "C:b", `..\b`, "a/", "link/evil", "..", ".", "CON", "a\x00"} {
		f.Add(s, "link/x", uint32(fs.ModeSymlink|0o777), "/tmp")
		f.Add(s, s, uint32(0o644), "x")
	}
	f.Fuzz(func(t *testing.T, first, second string, mode uint32, data string) {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for _, name := range []string{first, second} {
			h := &zip.FileHeader{Name: name, Method: zip.Store}
			h.SetMode(fs.FileMode(mode))
			e, err := w.CreateHeader(h)
			if err != nil {
				t.Skip()
			}
			if !strings.HasSuffix(name, "/") {
				if _, err := e.Write([]byte(data)); err != nil {
					t.Skip()
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Skip()
		}
		unzipStaysInside(t, b.Bytes())
	})
}

func FuzzUnzip(f *testing.F) {
	f.Add(rawZip(f, rawEntry{name: "a/b", data: "abc"}, rawEntry{name: "c/"}))
	f.Add(rawZip(f, rawEntry{name: "../b", data: "abc"}))
	f.Add(rawZip(f, rawEntry{name: "link", data: "/tmp", mode: fs.ModeSymlink | 0o777}, rawEntry{name: "link/evil", data: "x"}))
	f.Add(rawZip(f, rawEntry{name: "a", data: strings.Repeat("\x00", 10000)}))
	f.Add(rawZip(f, rawEntry{name: "s", data: "stored", change: func(h *zip.FileHeader) { h.Method = zip.Store }}))
	f.Add([]byte{})
	f.Fuzz(unzipStaysInside)
}

// unzipStaysInside checks that whatever an archive is, plain files and folders come
// out, inside of the folder and within the limits.
func unzipStaysInside(t *testing.T, archive []byte) {
	limits := Limits{Entries: 50, Bytes: 1 << 20, Ratio: 10}
	outer := t.TempDir()
	src, dir := filepath.Join(outer, "a.zip"), filepath.Join(outer, "out")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src, archive, 0o666); err != nil {
		t.Fatal(err)
	}
	var wrote int64
	err := Unzip(t.Context(), src, dir, limits, func(n, _ int64) { wrote += n })
	if wrote > limits.Bytes {
		t.Fatalf("%d bytes written", wrote)
	}
	var found int64
	werr := filepath.WalkDir(outer, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type()&^fs.ModeDir != 0 {
			t.Errorf("%s is a %v", name, e.Type())
		}
		if !e.IsDir() && name != src {
			if !strings.HasPrefix(name, dir+string(filepath.Separator)) {
				t.Errorf("%s is outside", name)
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			found += info.Size()
		}
		return nil
	})
	if werr != nil {
		t.Fatal(werr)
	}
	if err == nil && found != wrote {
		t.Errorf("%d bytes found, %d reported", found, wrote)
	}
}

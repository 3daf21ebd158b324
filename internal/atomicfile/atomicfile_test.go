package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

func TestWriteNewAndReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	for _, s := range []string{"first", "", strings.Repeat("long ", 1<<16)} {
		if err := Write(path, text(s)); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, s)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("folder holds %v, want only a.txt", got)
	}
}

func TestWriteIsInvisibleUntilDone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	if err := Write(path, text("old")); err != nil {
		t.Fatal(err)
	}
	err := Write(path, func(w io.Writer) error {
		if _, err := w.Write(bytes.Repeat([]byte("x"), 3*bufferSize)); err != nil {
			return err
		}
		wantFile(t, path, "old")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, strings.Repeat("x", 3*bufferSize))
}

func TestWriteFailsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	boom := errors.New("boom")
	half := func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 2*bufferSize)); err != nil {
			return err
		}
		return boom
	}
	err := Write(path, half)
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want boom wrapped with the path", err)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("folder holds %v after a failed first write", got)
	}

	if err := Write(path, text("old")); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, half); !errors.Is(err, boom) {
		t.Errorf("error %v, want boom", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		Write(path, func(io.Writer) error { panic("in write") })
	}()
	wantFile(t, path, "old")
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("folder holds %v, want only a.txt", got)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	called := func(io.Writer) error {
		t.Error("write was called for a path that cannot be written")
		return nil
	}
	for _, path := range []string{
		"",
		dir,
		filepath.Join(dir, "absent", "a.txt"),
		filepath.Join(dir, "absent") + string(filepath.Separator),
		os.DevNull,
	} {
		err := Write(path, called)
		if err == nil {
			t.Errorf("Write(%q) succeeded", path)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("error does not name %q: %v", path, err)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("folder holds %v", got)
	}
	if err := Write(filepath.Join(dir, "absent", "a.txt"), called); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want it to wrap fs.ErrNotExist", err)
	}
}

func TestWriteKeepsPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no Unix permissions")
	}
	path := filepath.Join(t.TempDir(), "a.txt")
	if err := Write(path, text("1")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o400 == 0 || info.Mode().Perm()&0o111 != 0 {
		t.Errorf("a new file has permissions %v", info.Mode())
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, text("2")); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("permissions %v after replacing, want 0640", info.Mode().Perm())
	}
}

func TestWriteFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	real, link, dangling := filepath.Join(dir, "real"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := Write(real, text("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := Write(link, text("new")); err != nil {
		t.Fatal(err)
	}
	wantFile(t, real, "new")
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced (%v, %v)", info, err)
	}
	if err := os.Symlink("nothing", dangling); err != nil {
		t.Fatal(err)
	}
	if err := Write(dangling, text("new")); err == nil {
		t.Error("a dangling link was written through")
	}
}

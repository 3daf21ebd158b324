package download

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// Limits bound what an archive may unpack to.
type Limits struct {
	Entries int   // files and folders
	Bytes   int64 // of all files
	Ratio   int64 // of the bytes of all files to those of the archive
}

// DefaultLimits hold for every set of OpenOOD: images hardly shrink in an archive,
// and the biggest sets have some hundred thousand of them.
var DefaultLimits = Limits{Entries: 5_000_000, Bytes: 1 << 40, Ratio: 100}

// entry is a file of an archive with its checked name.
type entry struct {
	name string // with slashes
	file *zip.File
}

// Unzip unpacks the archive src into the folder dir, which must exist and should be
// empty: an error leaves a part of the files there. Only folders and
// plain files come out, with default permissions and inside of dir. An archive
// is refused, before anything is written, if a name is absolute, leads
// outside, comes twice or cannot be a file's name here; if an entry is
// a symbolic link, a device or encrypted; if it is beyond the limits. Sizes and CRC-32 of
// all files are checked. macOS's extra entries are left out. tell, if not
// nil, is called after each file with the bytes that were written since the last
// call and the bytes of all files, and once before the first.
func Unzip(ctx context.Context, src, dir string, limits Limits, tell func(wrote, total int64)) error {
	r, err := zip.OpenReader(src)
	if err != nil {
		return zipError(err)
	}
	defer r.Close()
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	entries, total, err := inspect(&r.Reader, info.Size(), limits)
	if err != nil {
		return refusedError{err}
	}
	if err := needSpace(dir, total); err != nil {
		return err
	}
	// Whatever a name is, nothing outside of root can be reached.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if tell == nil {
		tell = func(int64, int64) {}
	}
	tell(0, total)
	w := bufio.NewWriterSize(nil, 256<<10)
	made := map[string]bool{".": true}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		folder := path.Dir(e.name)
		if e.file.Mode().IsDir() {
			folder = e.name
		}
		if !made[folder] {
			if err := root.MkdirAll(filepath.FromSlash(folder), 0o777); err != nil {
				return fmt.Errorf("unpack %q: %w", e.name, err)
			}
			made[folder] = true
		}
		if e.file.Mode().IsDir() {
			continue
		}
		n, err := unpack(ctx, root, e, w)
		if err != nil {
			return fmt.Errorf("unpack %q: %w", e.name, zipError(err))
		}
		tell(n, total)
	}
	return nil
}

// refusedError is about an archive that is not what a set of images looks like.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// zipError marks errors that mean damaged bytes.
func zipError(err error) error {
	if errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.HasPrefix(err.Error(), "flate: corrupt") {
		return corruptError{err}
	}
	return err
}

// inspect checks all that can be known of an archive of size bytes before it is
// unpacked. It returns the entries to unpack and the bytes of their files.
func inspect(r *zip.Reader, size int64, limits Limits) ([]entry, int64, error) {
	if len(r.File) > limits.Entries {
		return nil, 0, fmt.Errorf("the archive has %d entries, more than %d", len(r.File), limits.Entries)
	}
	var (
		entries []entry
		total   uint64
		seen    = make(map[string]bool, len(r.File)) // true for a file
	)
	for _, f := range r.File {
		if skipped(f.Name) {
			continue
		}
		name, err := checkName(f.Name)
		if err != nil {
			return nil, 0, err
		}
		mode := f.Mode()
		switch isDir := strings.HasSuffix(f.Name, "/"); {
		case mode.IsDir() != isDir, mode&fs.ModeType&^fs.ModeDir != 0:
			return nil, 0, fmt.Errorf("the archive's entry %q is neither a file nor a folder but %v", f.Name, mode)
		case f.Flags&1 != 0:
			return nil, 0, fmt.Errorf("the archive's entry %q is encrypted", f.Name)
		case f.Method != zip.Store && f.Method != zip.Deflate:
			return nil, 0, fmt.Errorf("the archive's entry %q is compressed by a method (%d) that is not known here", f.Name, f.Method)
		case isDir:
			if f.UncompressedSize64 != 0 {
				return nil, 0, fmt.Errorf("the archive's folder %q has content", f.Name)
			}
			if file, twice := seen[name]; twice && file {
				return nil, 0, fmt.Errorf("the archive has both a file and a folder %q", name)
			}
			seen[name] = false
		default:
			if _, twice := seen[name]; twice {
				return nil, 0, fmt.Errorf("the archive has the name %q twice", name)
			}
			seen[name] = true
			total += f.UncompressedSize64
			if f.UncompressedSize64 > uint64(limits.Bytes) || total > uint64(limits.Bytes) {
				return nil, 0, fmt.Errorf("the archive unpacks to more than %d bytes", limits.Bytes)
			}
		}
		entries = append(entries, entry{name, f})
	}
	// Small archives may well be empty files by the hundred.
	const small = 1 << 20
	if size < 0 || total > small && total/uint64(limits.Ratio) > uint64(size) {
		return nil, 0, fmt.Errorf("the archive of %d bytes unpacks to %d: more than %d times its size, which no set of images does", size, total, limits.Ratio)
	}
	for _, e := range entries {
		for dir := path.Dir(e.name); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return nil, 0, fmt.Errorf("the archive has both a file and a folder %q", dir)
			}
		}
	}
	return entries, int64(total), nil
}

// checkName returns an entry's name without a slash at its end, or an error if it
// could lead outside or is not a file's name on some system.
func checkName(s string) (string, error) {
	name := strings.TrimPrefix(strings.TrimSuffix(s, "/"), "./")
	bad := func(why string) (string, error) { return "", fmt.Errorf("the archive's entry %q %s", s, why) }
	switch {
	case name == "" || len(name) > 4096:
		return bad("has no name that a file can have")
	case strings.HasPrefix(name, "/"):
		return bad("has an absolute path")
	case strings.Contains(name, `\`) || strings.ContainsFunc(name, unicode.IsControl):
		return bad("has a character in its name that no file's name should have")
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return bad("leads out of the archive")
		}
		if elem == "" || elem == "." {
			return bad("has an empty part in its path")
		}
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return bad("has a name that is reserved here")
	}
	return name, nil
}

// skipped tells whether an entry is what macOS adds to archives, or the folder
// itself.
func skipped(name string) bool {
	switch path.Base(name) {
	case ".DS_Store", "Icon\r":
		return true
	}
	return name == "./" || strings.HasPrefix(name, "__MACOSX/")
}

// unpack writes one file. A file that is there already is an error: names that
// differ in case alone are one file on some disks.
func unpack(ctx context.Context, root *os.Root, e entry, w *bufio.Writer) (n int64, err error) {
	r, err := e.file.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	f, err := root.OpenFile(filepath.FromSlash(e.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	w.Reset(f)
	// The size that is announced has been checked; no more is written.
	want := int64(e.file.UncompressedSize64)
	n, err = io.Copy(w, io.LimitReader(&ctxReader{ctx, r}, want+1))
	if err != nil {
		return n, err
	}
	if n != want {
		return n, corruptf("it has not the %d bytes that the archive announces", want)
	}
	return n, w.Flush()
}

// Package atomicfile writes files that are either whole or absent: a reader, a
// crash or an interrupt never meets half of one.
package atomicfile

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

const (
	tempPrefix = ".nac-"
	tempSuffix = ".tmp"
	bufferSize = 1 << 16
)

// Write makes the file path from what write sends to w, replacing a regular file
// that is already there and keeping its permissions. The bytes go to a
// temporary name in the same folder (".nac-*.tmp"), are synced to disk and only
// then renamed; the folder is synced too. A symbolic link is followed: the file
// it points to is replaced. w is buffered and valid until write returns.
//
// On an error (of write, of the disk) or a panic in write the temporary file is
// removed and what was at path stays as it was. The error of write is wrapped,
// with path named. The folder must exist; a path that names a folder, a device
// or a pipe is refused.
func Write(path string, write func(w io.Writer) error) (err error) {
	target, mode, err := resolve(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := create(filepath.Dir(target), mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	renamed := false
	defer func() {
		if !renamed {
			f.Close() // a second Close is harmless
			os.Remove(f.Name())
		}
	}()

	buf := bufio.NewWriterSize(f, bufferSize)
	if err := write(buf); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	renamed = true
	if err := syncFolder(filepath.Dir(target)); err != nil {
		return fmt.Errorf("write %s: sync of its folder: %w", path, err)
	}
	return nil
}

// resolve follows symbolic links and returns the name to rename to and the
// permissions that the new file shall have (before the umask if there is none yet).
func resolve(path string) (target string, mode fs.FileMode, err error) {
	if path == "" {
		return "", 0, errors.New("empty file name")
	}
	const newFile = fs.FileMode(0o666)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A dangling link would be replaced by the rename, not followed: refuse
		// rather than surprise.
		if _, lerr := os.Lstat(path); lerr == nil {
			return "", 0, errors.New("it is a symbolic link to a file that does not exist")
		}
		if os.IsPathSeparator(path[len(path)-1]) {
			return "", 0, errors.New("it names a folder, not a file")
		}
		return path, newFile, nil
	}
	if err != nil {
		return "", 0, err
	}
	if info.IsDir() {
		return "", 0, errors.New("it is a folder")
	}
	if !info.Mode().IsRegular() {
		return "", 0, errors.New("it is not a regular file")
	}
	target, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", 0, err
	}
	return target, info.Mode().Perm(), nil
}

// create opens a new temporary file in dir. os.CreateTemp is not used because
// it gives permissions 0600, which would survive the rename.
func create(dir string, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, tempPrefix+rand.Text()+tempSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// syncFolder makes the rename itself durable.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be opened for syncing there
	}
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // writable but not readable: the file is in place all the same
	}
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil // some network file systems cannot sync folders
	}
	return err
}

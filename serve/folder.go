package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nac"
	"nac/drift"
	"nac/imageset"
)

// file is a version of an image file of a watched folder.
type file struct {
	path, version string
	size          int64
}

// settle is how long a file must have been left alone: what is younger may still be
// being written.
const settle = 2 * time.Second

// Scan says what a look at a folder has found.
type Scan struct {
	// Images were new, OOD of them out-of-distribution; Failed could not be scored.
	Images, OOD, Failed int
	// Young files were left for the next look, for they may still be being written.
	Young int
	// Drift is how all images so far compare with the calibration images.
	Drift drift.Report
}

// ScanFolder scores the images in and below a folder that are new or have changed since
// they were scored, as the store remembers. Names that begin with a dot, tar archives
// and links to folders are passed over. A file that cannot be scored is logged and
// not tried again until it changes.
func (s *Server) ScanFolder(ctx context.Context, detector, dir string) (Scan, error) {
	var scan Scan
	d := s.detectors[detector]
	if d == nil || s.store == nil {
		return scan, fmt.Errorf("serve: a folder needs a detector and a store; there is no detector %q, or no store", detector)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return scan, err
	}
	// A whole batch is on its way at a time.
	files := make(chan file)
	var mu sync.Mutex
	var workers sync.WaitGroup
	found := false
	for range s.options.MaxBatch {
		workers.Go(func() {
			for f := range files {
				r, err := d.scoreFile(ctx, f)
				mu.Lock()
				switch {
				case ctx.Err() != nil || errors.Is(err, fs.ErrNotExist):
				case err == nil:
					scan.Images++
					scan.OOD += b2i(r.OOD)
				default:
					scan.Failed++
				}
				mu.Unlock()
			}
		})
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (path == dir || !errors.Is(err, fs.ErrNotExist)):
			return err
		case err != nil: // deleted meanwhile
			return nil
		case path != dir && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir() || !imageset.IsImage(path):
			return nil
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		found = true
		f := file{path, fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano()), info.Size()}
		if known, err := d.knows(f); known || err != nil {
			return err
		}
		if age := time.Since(info.ModTime()); age >= 0 && age < settle {
			mu.Lock()
			scan.Young++
			mu.Unlock()
			return nil
		}
		select {
		case files <- f:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(files)
	workers.Wait()
	scan.Drift = d.report().Report
	// No image at all may be a disk that is not there, and is no reason to forget.
	if err == nil && found && time.Since(d.tidied) > time.Hour {
		d.tidied = time.Now()
		err = s.forget(d, dir)
	}
	return scan, err
}

// forget drops what has been deleted from a folder out of the store, which would grow
// for ever otherwise.
func (s *Server) forget(d *served, dir string) error {
	d.watch.Lock()
	key := d.key
	d.watch.Unlock()
	return s.store.Forget(key, func(path string) bool {
		if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
			return false
		}
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// knows tells whether a version of a file has been dealt with.
func (d *served) knows(f file) (bool, error) {
	d.watch.Lock()
	version, ok := d.files[f.path]
	key := d.key
	d.watch.Unlock()
	if ok {
		return version == f.version, nil
	}
	version, err := d.server.store.File(key, f.path)
	return version == f.version, err
}

func (d *served) scoreFile(ctx context.Context, f file) (nac.Result, error) {
	v := d.use()
	defer v.users.Done()
	r, err := func() (nac.Result, error) {
		if f.size > d.server.options.MaxBody {
			return nac.Result{}, fmt.Errorf("%d bytes; at most %d are read", f.size, d.server.options.MaxBody)
		}
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nac.Result{}, err
		}
		return d.scoreImage(ctx, v, data, &f)
	}()
	switch {
	case ctx.Err() != nil || errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.server.log.Warn("not scored", "file", f.path, "error", err)
		d.watch.Lock()
		if d.key == d.name+"@"+v.hash {
			d.files[f.path], d.dirty = f.version, true
		}
		d.watch.Unlock()
	case r.OOD:
		d.server.log.Info("out-of-distribution", "file", f.path, "score", r.Score, "p_value", r.PValue)
	default:
		d.server.log.Debug("in-distribution", "file", f.path, "score", r.Score, "p_value", r.PValue)
	}
	return r, err
}

// WatchFolder scans a folder again and again, poll apart, until the context ends. What
// goes wrong is logged and tried again.
func (s *Server) WatchFolder(ctx context.Context, detector, dir string, poll time.Duration) {
	every := time.NewTicker(poll)
	defer every.Stop()
	for {
		scan, err := s.ScanFolder(ctx, detector, dir)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("the folder could not be read to its end", "folder", dir, "error", err)
		case scan.Images+scan.Failed > 0:
			s.log.Info("new images", "folder", dir, "images", scan.Images, "ood", scan.OOD, "failed", scan.Failed)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

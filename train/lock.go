package train

import (
	"fmt"
	"path/filepath"

	"github.com/gofrs/flock"
)

// LockFile is in a run's folder; who trains there holds a lock on it, which also ends
// with the process.
const LockFile = ".nac.lock"

// Lock makes this run the only one that trains into a folder, until release is called.
// It is an error that another one does.
func Lock(dir string) (release func(), err error) {
	l := flock.New(filepath.Join(dir, LockFile))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("train: %s: lock: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("train: another run is writing to %s", dir)
	}
	return func() { l.Unlock() }, nil
}

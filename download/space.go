package download

import (
	"fmt"
	"os"
	"path/filepath"
)

// needSpace returns an error if the disk that dir is on, or will be on, has less
// than n bytes left. Where that cannot be found out it returns nil.
func needSpace(dir string, n int64) error {
	if n <= 0 {
		return nil
	}
	free, ok := freeSpace(existing(dir))
	if !ok || free >= uint64(n) {
		return nil
	}
	return fmt.Errorf("the disk of %s has %s left, %s are needed", dir, megabytes(int64(min(free, 1<<62))), megabytes(n))
}

// existing returns dir or the nearest folder above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

//go:build linux || darwin || freebsd

package download

import "golang.org/x/sys/unix"

// freeSpace returns the bytes that are left to this user on dir's disk.
func freeSpace(dir string) (uint64, bool) {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0, false
	}
	return uint64(max(s.Bavail, 0)) * uint64(s.Bsize), true
}

//go:build !linux && !darwin && !freebsd && !windows

package download

func freeSpace(string) (uint64, bool) { return 0, false }

//go:build !linux

package download

func syncDisk(string) {} // there is no call for one file system

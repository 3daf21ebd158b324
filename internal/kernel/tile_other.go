//go:build !amd64 || purego

package kernel

func machineSets() []*Set { return nil }

// machineBF16 is the set BF16 if this machine can run it, or nil.
var machineBF16 *Set

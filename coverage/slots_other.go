//go:build !amd64 || purego

package coverage

// vectorSlots is for machines whose vector instructions are used: none here.
func (t *lookup) vectorSlots(dst []uint32, z, g []float32, stride uint32) int { return 0 }

// Package memory shows floats as the bytes that they are.
package memory

import (
	"encoding/binary"
	"unsafe"
)

// LittleEndian returns the little-endian bytes of s where they are what lies in memory,
// and else false. They are s, not a copy.
func LittleEndian(s []float32) ([]byte, bool) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, false
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*len(s)), true
}

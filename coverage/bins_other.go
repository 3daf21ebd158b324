//go:build !amd64 || purego

package coverage

// vectorCount is for machines whose vector instructions are used: none here.
func (t *lookup) vectorCount([]uint32, []float32, []float32, int) int { return 0 }

// vectorTally is for machines whose vector instructions are used: none here.
func (t *lookup) vectorTally([]uint32, []float32, []float32, int, int, []uint16) int { return 0 }

// vectorTallySums is for machines whose vector instructions are used: none here.
func vectorTallySums[T entry](*lookup, []T, []float32, []float32, int, int, []uint16, []uint64) int {
	return 0
}

// vectorSum is for machines whose vector instructions are used: none here.
func vectorSum[T entry](*lookup, []T, []float32, []float32, int) (int, uint64) { return 0, 0 }

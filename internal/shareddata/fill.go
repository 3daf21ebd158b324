package shareddata

// Fill returns the made values that the reference numbers were computed from: f of
// numbers in [0,1), by a tensor's name and index.
func Fill(name string, n int, f func(u float64) float64) []float32 {
	h := uint64(0xCBF29CE484222325)
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 0x100000001B3
	}
	v := make([]float32, n)
	for i := range v {
		x := h + uint64(i) + 0x9E3779B97F4A7C15
		x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
		x = (x ^ x>>27) * 0x94D049BB133111EB
		x ^= x >> 31
		v[i] = float32(f(float64(x>>40) / (1 << 24)))
	}
	return v
}

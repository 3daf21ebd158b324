package detector

import (
	"math"
	"slices"
)

// logSumExp is T * log sum_k exp(logits_k / T).
func logSumExp(logits []float64, temperature float64) float64 {
	top := slices.Max(logits)
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp((v - top) / temperature)
	}
	return top + temperature*math.Log(sum)
}

// softmax puts the probabilities in place of logits.
func softmax(logits []float64) []float64 {
	top := slices.Max(logits)
	sum := 0.0
	for k, v := range logits {
		logits[k] = math.Exp(v - top)
		sum += logits[k]
	}
	for k := range logits {
		logits[k] /= sum
	}
	return logits
}

// argmax is the index of the largest value, the first of equal ones.
func argmax[T float32 | float64](v []T) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

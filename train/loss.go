package train

import (
	"fmt"
	"math"
)

// CrossEntropy is softmax cross-entropy, averaged over a batch.
type CrossEntropy struct {
	// Smoothing moves this share of a label's weight evenly to all classes
	// (Szegedy et al., 2016).
	Smoothing float64
	// Weights of the classes; nil for ones. The average is then weighted by the
	// labels' weights, as in PyTorch.
	Weights []float64
}

// Loss returns the loss of logits, a row of classes for each label, and writes its
// gradient into grad, if not nil.
func (c CrossEntropy) Loss(logits []float32, labels []int, grad []float32) float64 {
	if len(labels) == 0 {
		return 0
	}
	k := len(logits) / len(labels)
	weight := func(class int) float64 {
		if c.Weights == nil {
			return 1
		}
		return c.Weights[class]
	}
	total := 0.0
	for _, y := range labels {
		total += weight(y)
	}
	sum := 0.0
	p := make([]float64, k)
	for i, y := range labels {
		row := logits[i*k : (i+1)*k]
		logSum := softmax(row, p)
		even := 0.0 // total weight of the even share
		for class, z := range row {
			w := c.Smoothing / float64(k) * weight(class)
			if class == y {
				w += (1 - c.Smoothing) * weight(y)
			}
			even += w
			sum += w * (logSum - float64(z))
		}
		if grad == nil {
			continue
		}
		for class := range row {
			w := c.Smoothing / float64(k) * weight(class)
			if class == y {
				w += (1 - c.Smoothing) * weight(y)
			}
			grad[i*k+class] = float32((even*p[class] - w) / total)
		}
	}
	return sum / total
}

// softmax writes the probabilities of a row of logits and returns the logarithm of
// the sum of their exponentials.
func softmax(row []float32, p []float64) (logSum float64) {
	top := math.Inf(-1)
	for _, z := range row {
		top = max(top, float64(z))
	}
	sum := 0.0
	for c, z := range row {
		p[c] = math.Exp(float64(z) - top)
		sum += p[c]
	}
	for c := range row {
		p[c] /= sum
	}
	return top + math.Log(sum)
}

// BinaryCrossEntropy returns the mean of -(t log s(z) + (1-t) log(1-s(z))) with s
// the sigmoid, and writes its gradient into grad, if not nil.
func BinaryCrossEntropy(logits, targets, grad []float32) float64 {
	sum := 0.0
	for i, z := range logits {
		x, t := float64(z), float64(targets[i])
		sum += max(x, 0) - x*t + math.Log1p(math.Exp(-math.Abs(x)))
		if grad != nil {
			grad[i] = float32((1/(1+math.Exp(-x)) - t) / float64(len(logits)))
		}
	}
	return sum / float64(len(logits))
}

// Predictions returns the class of the largest logit of each row.
func Predictions(logits []float32, classes int) []int {
	p := make([]int, len(logits)/classes)
	for i := range p {
		row := logits[i*classes : (i+1)*classes]
		for c, z := range row {
			if z > row[p[i]] {
				p[i] = c
			}
		}
	}
	return p
}

// Correct returns how many rows of logits are largest at their label.
func Correct(logits []float32, labels []int) int {
	n := 0
	for i, p := range Predictions(logits, len(logits)/max(len(labels), 1)) {
		if p == labels[i] {
			n++
		}
	}
	return n
}

// DivergedError says that a loss is no number, so that training had to stop.
type DivergedError struct {
	Step int
	Loss float64
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("the loss is %v at step %d: training has diverged; try a lower learning rate, warm-up, or check the images' normalisation", e.Loss, e.Step)
}

// CheckLoss returns a DivergedError for a loss that is not finite.
func CheckLoss(step int, loss float64) error {
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return &DivergedError{step, loss}
	}
	return nil
}

package detector

// head is a network's last linear layer, whose logits detectors compute anew
// from features they have changed.
type head struct {
	classes, features int
	weight, bias      []float32 // classes x features, classes
	packed            *bank
}

// takeHead copies the head of the network being begun.
func (f *fitting) takeHead(n Network) (*head, error) {
	if len(n.Weight) != n.Classes*n.Features || len(n.Bias) != n.Classes {
		return nil, f.errorf("needs the network's last linear layer, of %dx%d weights and %d biases; there are %d and %d",
			n.Classes, n.Features, n.Classes, len(n.Weight), len(n.Bias))
	}
	if err := rows("weights of the last layer", n.Weight, n.Classes, n.Features); err != nil {
		return nil, f.errorf("%w", err)
	}
	if err := rows("biases of the last layer", n.Bias, 1, n.Classes); err != nil {
		return nil, f.errorf("%w", err)
	}
	return newHead(n.Classes, n.Features, append([]float32(nil), n.Weight...), append([]float32(nil), n.Bias...)), nil
}

func newHead(classes, features int, weight, bias []float32) *head {
	return &head{classes, features, weight, bias, bankOf(weight, features)}
}

// logits computes those of n features.
func (h *head) logits(features []float32, n int) []float32 {
	dst := make([]float32, n*h.classes)
	h.packed.multiply(features, n, h.bias, dst)
	return dst
}

// storeHead keeps a head in a file.
func (f *fitting) storeHead(s *storage, h **head) {
	if s.saving {
		s.float32s("head.weight", &(*h).weight, f.classes, f.features)
		s.float32s("head.bias", &(*h).bias, f.classes)
		return
	}
	var weight, bias []float32
	s.float32s("head.weight", &weight, f.classes, f.features)
	s.float32s("head.bias", &bias, f.classes)
	if s.err == nil {
		*h = newHead(f.classes, f.features, weight, bias)
	}
}

// energies writes the log-sum-exp of the logits of n features into dst.
func (h *head) energies(features []float32, n int, dst []float64) {
	logits := h.logits(features, n)
	row := make([]float64, h.classes)
	for i := range n {
		dst[i] = logSumExp(widen(logits[i*h.classes:][:h.classes], row), 1)
	}
}

// scaledEnergies does the same for features that are each to be multiplied by a
// scale, in float64, so that a large one does not overflow.
func (h *head) scaledEnergies(features []float32, scales []float64, n int, dst []float64) {
	products := make([]float32, n*h.classes)
	h.packed.multiply(features, n, nil, products)
	row := make([]float64, h.classes)
	for i := range n {
		for k, v := range products[i*h.classes:][:h.classes] {
			row[k] = scales[i]*float64(v) + float64(h.bias[k])
		}
		dst[i] = logSumExp(row, 1)
	}
}

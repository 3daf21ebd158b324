package coverage

// TrainSubset chooses about n training samples, as many of each class, and
// returns their indices: the same ones, in the same order, as the reference's
// choice with NumPy and that seed (its default is 1).
//
// Classes come in the order in which they first appear in labels. The indices
// of each are shuffled by a fresh generator of the seed and the first k taken;
// k is n divided by the number of classes, rounded down, but at most the size
// of the smallest class. So fewer than n may come out, and none if n is smaller
// than the number of classes.
func TrainSubset(labels []int, n int, seed uint32) []int {
	var classes []int
	members := map[int][]int{}
	for i, l := range labels {
		if members[l] == nil {
			classes = append(classes, l)
		}
		members[l] = append(members[l], i)
	}
	if len(classes) == 0 || n <= 0 {
		return nil
	}
	k := n / len(classes)
	for _, m := range members {
		k = min(k, len(m))
	}
	chosen := make([]int, 0, k*len(classes))
	for _, c := range classes {
		m := members[c]
		newMT19937(seed).shuffle(m)
		chosen = append(chosen, m[:k]...)
	}
	return chosen
}

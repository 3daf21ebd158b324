package coverage

import "nac/internal/mt19937"

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
	classes := shuffled(labels, seed)
	if len(classes) == 0 || n <= 0 {
		return nil
	}
	k := n / len(classes)
	for _, m := range classes {
		k = min(k, len(m))
	}
	chosen := make([]int, 0, k*len(classes))
	for _, m := range classes {
		chosen = append(chosen, m[:k]...)
	}
	return chosen
}

// Split parts training samples into about n for the overfitting check, as many
// of each class, and the rest to fit on, and returns their indices: the same
// ones, in the same order, as the reference's split with that seed (its
// default is 1). A class that has not as many gives all it has.
func Split(labels []int, n int, seed uint32) (sub, main []int) {
	classes := shuffled(labels, seed)
	if len(classes) == 0 {
		return nil, nil
	}
	each := max(n, 0) / len(classes)
	for _, m := range classes {
		k := min(each, len(m))
		sub = append(sub, m[:k]...)
		main = append(main, m[k:]...)
	}
	return sub, main
}

// shuffled returns the indices of each class, in the order in which the classes
// first appear, each shuffled by a fresh generator of the seed.
func shuffled(labels []int, seed uint32) [][]int {
	var classes [][]int
	at := map[int]int{}
	for i, l := range labels {
		c, ok := at[l]
		if !ok {
			c = len(classes)
			at[l] = c
			classes = append(classes, nil)
		}
		classes[c] = append(classes[c], i)
	}
	for _, m := range classes {
		mt19937.New(seed).Shuffle(m)
	}
	return classes
}

// Package coverage measures Neuron Activation Coverage (Liu et al., "Neuron
// Activation Coverage: Rethinking Out-of-distribution Detection and
// Generalization", ICLR 2024).
//
// A neuron's state is a function of its pooled activation z and of the pooled
// gradient g of KL(uniform || softmax) at that activation, mostly
// sigmoid(alpha*z*g). Per neuron a histogram counts how many in-distribution
// training samples put its state into each of M-1 bins between M thresholds
// ([Thresholds]). The coverage of a bin is min(count/O, 1). A sample's score
// (NAC-UE) is the mean over neurons of the coverage of the bin its state falls
// in, and the mean over layers of that: higher = more in-distribution. NAC-ME
// sums the coverage itself ([Layer.Summary]).
//
// [Layer] holds one layer, [Coverage] several. Build them with Add, join shards
// with Merge, then Score. States come in as float32 rows: z and g have n rows
// of one value per channel.
//
// # Exactness
//
// Counts are integers, so a coverage does not depend on how its samples were
// batched or sharded. Scores are sums of integers, divided once: they do not
// depend on batches either, nor on the order of channels. States follow the
// float32 arithmetic of the PyTorch reference to the last bit for o, g_kl,
// o*g_kl and the sigmoids, and bins compare that float32 state with float64
// thresholds, as the reference does.
//
// # Speed
//
// No state is computed while adding or scoring. Every state function rises
// with one float32 argument (z, g, or z*g), so each threshold is pulled back
// once, at construction, to the smallest argument whose state reaches it; a
// small table over the argument's bits then gives the bin directly. The time
// per state does not depend on M.
package coverage

package coverage_test

import (
	"fmt"

	"nac/coverage"
)

// Two neurons, seen with a handful of training samples: an input that behaves
// as those scores higher than one that does not.
func Example() {
	settings := []coverage.LayerSettings{{Layer: "avgpool", M: 50, O: 2, Alpha: 100, Func: coverage.SigmoidOG}}
	c, err := coverage.New(settings, map[string]int{"avgpool": 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	activations := []float32{0.50, 1.2, 0.51, 1.2, 0.52, 1.1, 0.49, 1.3} // 4 samples of 2 channels
	gradients := []float32{0.02, -0.01, 0.02, -0.01, 0.02, -0.01, 0.02, -0.01}
	if err := c.Add([]coverage.States{{Layer: "avgpool", Z: activations, G: gradients}}, 4); err != nil {
		fmt.Println(err)
		return
	}
	test := coverage.States{Layer: "avgpool", Z: []float32{0.5, 1.2, 0.1, 1.2}, G: []float32{0.02, -0.01, -0.02, 0.03}}
	scores := make([]float32, 2)
	if err := c.Score([]coverage.States{test}, 2, scores); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(scores)
	// Output: [1 0]
}

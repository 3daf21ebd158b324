package detector

// VRA is Variational Rectified Activation (Xu et al., "VRA: Variational Rectified
// Activation for Out-of-distribution Detection", NeurIPS 2023), in OpenOOD's form:
// ReAct that clips from below too.
var vraParams = []Param{
	{
		Name: "percentile_high", About: "percentile of the features above which they are clipped", Default: 90, Min: 0, Max: 100,
		Sweep: []float64{85, 90, 95, 99},
	},
	{
		Name: "percentile_low", About: "percentile of the features below which they are clipped", Default: 10, Min: 0, Max: 100,
		Sweep: []float64{1, 5, 10, 15},
	},
}

var _ = register(Method{
	Key: "vra", About: "energy of features clipped from above and below", Paper: "Xu, NeurIPS 2023",
	Params: vraParams, make: newVRA,
})

func newVRA(p params) (Detector, error) {
	d := newClipping(p)
	d.high, d.low = p.float("percentile_high"), p.float("percentile_low")
	if d.low > d.high {
		return nil, d.errorf("percentile_low is %v, above percentile_high, %v", d.low, d.high)
	}
	d.fromBelow = true
	return d, nil
}

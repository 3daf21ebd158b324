package train

import (
	"nac/arch"
	"nac/weights"
)

// Average is a running mean of a network's tensors, running statistics of batch
// norms included.
type Average struct {
	// Decay is what an exponential moving average keeps at each Update; with 0 it
	// is the plain mean of all that was added (stochastic weight averaging, Izmailov
	// et al., 2018), whose batch norms want RefreshNorms.
	Decay float64
	n     int
	sd    *weights.StateDict
}

// NewAverage returns an average to which nothing was added.
func NewAverage(decay float64) *Average { return &Average{Decay: decay, sd: weights.New("average")} }

// Update adds the tensors as they stand. The first ones are taken whole.
func (a *Average) Update(sd *weights.StateDict) {
	share := 1 - a.Decay
	if a.Decay == 0 {
		share = 1 / float64(a.n+1)
	}
	for _, name := range sd.Names() {
		t, _ := sd.Lookup(name)
		m, ok := a.sd.Lookup(name)
		if !ok || a.n == 0 {
			m = weights.Tensor{Shape: t.Shape, Data: append([]float32(nil), t.Data...)}
			a.sd.Set(name, m)
			continue
		}
		for i, v := range t.Data {
			m.Data[i] += float32(share * (float64(v) - float64(m.Data[i])))
		}
	}
	a.n++
}

// Begin makes the average hold the tensors as they stand until the first Update, as if
// nothing had been added.
func (a *Average) Begin(sd *weights.StateDict) {
	a.Reset()
	a.Update(sd)
	a.n = 0
}

// Reset forgets all that was added.
func (a *Average) Reset() { a.n, a.sd = 0, weights.New("average") }

// Count is how many times tensors were added.
func (a *Average) Count() int { return a.n }

// StateDict is the mean; it is the average's own.
func (a *Average) StateDict() *weights.StateDict { return a.sd }

// RefreshNorms sets the running statistics of a trainee's batch norms to their plain
// means over the loader's batches.
func RefreshNorms(t *arch.Trainee, l *Loader) error {
	defer l.Close()
	defer t.SetMomentum(0.1)
	for i := 1; ; i++ {
		b, err := l.Next()
		if b == nil {
			return ignoreEOF(err)
		}
		t.SetMomentum(1 / float64(i))
		if err := t.Forward(b.Images, b.N, 0); err != nil {
			return err
		}
	}
}

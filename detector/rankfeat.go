package detector

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// rankFeat removes the leading singular component of activations (Song et al.,
// "RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection", NeurIPS
// 2022): T times the log-sum-exp of logits / T, where the logits are the mean of those
// without the component of the last stage's activation, channels by pixels, and of
// those without that of the stage before, if there is one.
type rankFeat struct {
	fitting
	stages int
}

var _ = register(Method{
	Key: "rankfeat", About: "energy without the leading component of deep activations", Paper: "Song, NeurIPS 2022",
	make:   newRankFeat,
	Params: []Param{{Name: "temperature", About: "what logits are divided by", Default: 1, Min: 1e-3, Max: 1e6}},
})

func newRankFeat(p params) (Detector, error) {
	d := &rankFeat{fitting: fitting{params: p}}
	d.state = func(s *storage) { s.count("stages", &d.stages) }
	return d, nil
}

func (d *rankFeat) Begin(n Network) error {
	if d.stages = len(n.Stages); d.stages == 0 {
		return d.errorf("the network has no stages, of which it changes the last two")
	}
	return d.begin(n)
}

func without(stage int) Pass { return Pass{From: stageName(stage), Change: rankRemoved{}} }

func (d *rankFeat) Needs(n Network, p Phase) Needs {
	if p != Scoring {
		return Needs{}
	}
	var needs Needs
	for i := range min(rankFeatStages, len(n.Stages)) {
		needs.Passes = append(needs.Passes, Further{Pass: without(len(n.Stages) - 1 - i), Logits: true})
	}
	return needs
}

// rankFeatStages is how many stages are changed, the last ones.
const rankFeatStages = 2

func (d *rankFeat) Score(in *Inputs, dst []float64) error {
	if err := d.scoring(in, dst); err != nil {
		return err
	}
	passes := make([]*Inputs, min(rankFeatStages, d.stages))
	for i := range passes {
		var err error
		if passes[i], err = in.pass(without(d.stages - 1 - i)); err != nil {
			return d.errorf("%w", err)
		}
		if err := d.check(passes[i]); err != nil {
			return err
		}
	}
	row := make([]float64, d.classes)
	for i := range in.N {
		for k := range row {
			sum := 0.0
			for _, p := range passes {
				sum += float64(p.Logits[i*d.classes+k])
			}
			row[k] = sum / float64(len(passes))
		}
		dst[i] = logSumExp(row, d.float("temperature"))
	}
	return nil
}

// rankRemoved is an activation without its leading singular component.
type rankRemoved struct{}

func (rankRemoved) Size(l Layer) int { return l.Values() }

func (rankRemoved) Reduce(activation []float32, l Layer, dst []float32) {
	rows, cols := l.Pixels(), l.Channels
	x := blas64.General{Rows: rows, Cols: cols, Stride: cols, Data: widen(activation, make([]float64, len(activation)))}
	// The shorter side's singular vector is an eigenvector of a small matrix.
	side, trans, other := rows, blas.NoTrans, blas.Trans
	if cols < rows {
		side, trans, other = cols, blas.Trans, blas.NoTrans
	}
	gram := blas64.Symmetric{N: side, Stride: side, Uplo: blas.Upper, Data: make([]float64, side*side)}
	blas64.Syrk(trans, 1, x, 0, gram)
	v := blas64.Vector{N: side, Inc: 1, Data: leading(gram)}
	w := blas64.Vector{N: rows + cols - side, Inc: 1, Data: make([]float64, rows+cols-side)}
	blas64.Gemv(other, 1, x, v, 0, w)
	if cols < rows {
		v, w = w, v
	}
	blas64.Ger(-1, v, w, x)
	for i, value := range x.Data {
		dst[i] = float32(value)
	}
}

// leading returns the eigenvector of the largest eigenvalue of a matrix that has
// none below zero; zeros for a matrix of zeros.
func leading(a blas64.Symmetric) []float64 {
	n := a.N
	v, w := make([]float64, n), make([]float64, n)
	vec := func(v []float64) blas64.Vector { return blas64.Vector{N: n, Data: v, Inc: 1} }
	// Power iteration from the row sums: activations behind ReLUs are far from
	// negative, so their leading vector is apart and not orthogonal to that.
	for i := range v {
		w[i] = 1
	}
	const most = 200
	for range most {
		blas64.Symv(1, a, vec(w), 0, vec(v))
		norm := blas64.Nrm2(vec(v))
		if norm == 0 {
			break // of a matrix of zeros, or by ill luck
		}
		off := 0.0
		for i := range v {
			v[i] /= norm
			off = max(off, math.Abs(v[i]-w[i]))
		}
		v, w = w, v
		if off < 1e-12 {
			return w
		}
	}
	var e mat.EigenSym
	if !e.Factorize(mat.NewSymDense(n, a.Data), true) || !(e.Values(nil)[n-1] > 0) {
		return make([]float64, n)
	}
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	return mat.Col(nil, n-1, &vectors)
}

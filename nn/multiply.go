package nn

import "fmt"

// mulOp is a product; the second factor may be 1x1.
type mulOp struct{}

// Mul is the product of two activations of one shape, or of an activation and a
// factor for each of its channels, as in squeeze and excitation.
func (g *Graph) Mul(x, y *Node) *Node {
	if y.shape != x.shape && y.shape != (Shape{x.shape.C, 1, 1}) {
		panic(fmt.Sprintf("nn: product of %v and %v", x.shape, y.shape))
	}
	return g.add(mulOp{}, x.shape, x, y)
}

// factors returns the row of b that multiplies row y, and how far to go in it
// from pixel to pixel.
func (ws *workspace) factors(b *buffer, whole *geometry, image, y int) (row []float32, step int) {
	if b.geom.pixels() < whole.pixels() {
		return ws.pixel(b, image, 0, 0), 0
	}
	return ws.row(b, image, y), whole.stride
}

type mulJob struct{ a, b, out *buffer }

func (j *mulJob) uses() []*buffer { return []*buffer{j.a, j.b, j.out} }

func (j *mulJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.out.geom
	for y := range g.height {
		a, out := ws.row(j.a, image, y), ws.row(j.out, image, y)
		b, step := ws.factors(j.b, g, image, y)
		for p, q := 0, 0; p < len(out); p, q = p+g.stride, q+step {
			x, f, to := a[p:][:g.stride], b[q:][:g.stride], out[p:][:g.stride]
			for c, v := range x {
				to[c] = v * f[c]
			}
		}
	}
}

// mulBackJob adds from times factor to a gradient of the product's shape, or,
// summed over space, to one of a 1x1 factor.
type mulBackJob struct{ from, factor, to, mask *buffer }

func (j *mulBackJob) uses() []*buffer { return []*buffer{j.from, j.factor, j.to, j.mask} }

func (j *mulBackJob) run(ws *workspace, _, image, _ int, s *scratch) {
	g := j.from.geom
	if j.to.geom.pixels() < g.pixels() {
		j.reduce(ws, image, s)
		return
	}
	for y := range g.height {
		from, to := ws.row(j.from, image, y), ws.row(j.to, image, y)
		b, step := ws.factors(j.factor, g, image, y)
		var mask []float32
		if j.mask != nil {
			mask = ws.row(j.mask, image, y)
		}
		for p, q := 0, 0; p < len(to); p, q = p+g.stride, q+step {
			x, f, dst := from[p:][:g.stride], b[q:][:g.stride], to[p:][:g.stride]
			if mask == nil {
				for c, v := range x {
					dst[c] += v * f[c]
				}
				continue
			}
			m := mask[p:][:g.stride]
			for c, v := range x {
				if m[c] > 0 {
					dst[c] += v * f[c]
				}
			}
		}
	}
}

func (j *mulBackJob) reduce(ws *workspace, image int, s *scratch) {
	g := j.from.geom
	to := ws.pixel(j.to, image, 0, 0)
	total, sums := s.totals[:g.stride], s.sums[:g.stride]
	clear(total)
	for y := range g.height {
		clear(sums)
		from, factor := ws.row(j.from, image, y), ws.row(j.factor, image, y)
		for p := 0; p < len(from); p += g.stride {
			x, f := from[p:][:g.stride], factor[p:][:g.stride]
			for c, v := range x {
				sums[c] += v * f[c]
			}
		}
		for c, v := range sums {
			total[c] += v
		}
	}
	var mask []float32
	if j.mask != nil {
		mask = ws.pixel(j.mask, image, 0, 0)
	}
	for c, v := range total[:g.channels] {
		if mask == nil || mask[c] > 0 {
			to[c] += v
		}
	}
}

// product contributes the gradient g of a product to its factors.
func (c *compiler) product(g *buffer, x, y *value) {
	for _, f := range []struct{ to, other *value }{{x, y}, {y, x}} {
		if f.to.wantGrad {
			c.prepare(f.to)
			c.emit(&mulBackJob{g, f.other.act, f.to.grad, f.to.mask()})
		}
	}
}

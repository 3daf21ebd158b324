package nn

import "fmt"

// tokensOp strings pixels into tokens, the class token in front.
type tokensOp struct{ class, position []float32 }

// Tokens makes an image's pixels, row by row, a sequence of 1+H*W tokens, 1 high,
// whose first is the class token, and adds the position embedding, [1+H*W][C]
// (Dosovitskiy et al., 2021).
func (g *Graph) Tokens(x *Node, class, position []float32) *Node {
	s := x.shape
	n := 1 + s.H*s.W
	if len(class) != s.C || len(position) != n*s.C {
		panic(fmt.Sprintf("nn: tokens of %v with a class token of %d values and %d positions' values", s, len(class), len(position)))
	}
	return g.add(tokensOp{class, position}, Shape{s.C, 1, n}, x)
}

type tokensJob struct {
	tokensOp
	in, out *buffer
}

func (j *tokensJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *tokensJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	write := func(token int, in []float32) {
		out := ws.pixel(j.out, image, 0, token)
		c := len(in)
		for i, p := range j.position[token*c:][:c] {
			out[i] = in[i] + p
		}
		clear(out[c:])
	}
	write(0, j.class)
	g := j.in.geom
	for y := range g.height {
		for x := range g.width {
			write(1+y*g.width+x, ws.pixel(j.in, image, y, x)[:g.channels])
		}
	}
}

// tokensBackJob adds the gradients of all tokens but the class token.
type tokensBackJob struct{ from, to, mask *buffer }

func (j *tokensBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *tokensBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g := j.to.geom
	for y := range g.height {
		for x := range g.width {
			ws.addPixel(j.to, j.mask, image, y, x, ws.pixel(j.from, image, 0, 1+y*g.width+x))
		}
	}
}

// addPixel adds v to a pixel of a gradient where mask, if there is one, is above zero.
func (ws *workspace) addPixel(to, mask *buffer, image, y, x int, v []float32) {
	dst := ws.pixel(to, image, y, x)
	v = v[:to.geom.channels]
	if mask == nil {
		for c, d := range v {
			dst[c] += d
		}
		return
	}
	m := ws.pixel(mask, image, y, x)[:len(v)]
	for c, d := range v {
		if m[c] > 0 {
			dst[c] += d
		}
	}
}

// tokenOp takes one of a sequence's tokens.
type tokenOp struct{ index int }

// Token is one token of a sequence, such as the class token, which is the first.
func (g *Graph) Token(x *Node, index int) *Node {
	if x.shape.H != 1 || index < 0 || index >= x.shape.W {
		panic(fmt.Sprintf("nn: token %d of %v", index, x.shape))
	}
	return g.add(tokenOp{index}, Shape{x.shape.C, 1, 1}, x)
}

type tokenJob struct {
	tokenOp
	in, out *buffer
}

func (j *tokenJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *tokenJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	copy(ws.pixel(j.out, image, 0, 0), ws.pixel(j.in, image, 0, j.index))
}

type tokenBackJob struct {
	tokenOp
	from, to, mask *buffer
}

func (j *tokenBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *tokenBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	ws.addPixel(j.to, j.mask, image, 0, j.index, ws.pixel(j.from, image, 0, 0))
}

// mergeOp puts the channels of 2x2 pixels into one.
type mergeOp struct{}

// MergePatches puts the channels of 2x2 neighbouring pixels behind each other, in
// the order (0,0), (1,0), (0,1), (1,1) of row and column (Liu et al., 2021,
// section 3.1). An odd side gets zeros behind it.
func (g *Graph) MergePatches(x *Node) *Node {
	s := x.shape
	return g.add(mergeOp{}, Shape{4 * s.C, (s.H + 1) / 2, (s.W + 1) / 2}, x)
}

type mergeJob struct{ in, out *buffer }

func (j *mergeJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *mergeJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g, c := j.in.geom, j.in.geom.channels
	for y := range j.out.geom.height {
		for x := range j.out.geom.width {
			out := ws.pixel(j.out, image, y, x)
			clear(out)
			for i := range 4 {
				if iy, ix := 2*y+i%2, 2*x+i/2; iy < g.height && ix < g.width {
					copy(out[i*c:], ws.pixel(j.in, image, iy, ix)[:c])
				}
			}
		}
	}
}

type mergeBackJob struct{ from, to, mask *buffer }

func (j *mergeBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *mergeBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	g, c := j.to.geom, j.to.geom.channels
	for y := range g.height {
		for x := range g.width {
			i := y%2 + x%2*2
			ws.addPixel(j.to, j.mask, image, y, x, ws.pixel(j.from, image, y/2, x/2)[i*c:][:c])
		}
	}
}

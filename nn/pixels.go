package nn

import "fmt"

// pixelsOp takes pixels from places of its input, and adds a constant to each.
type pixelsOp struct {
	index []int
	table []float32
}

// Pixels makes an image of height x width pixels of x's: pixel i, counted row by
// row, is x's pixel index[i], or zeros if that is -1. A pixel may be taken more
// than once. To it table is added, which is nil or [height*width][C]. Rolling,
// cropping, padding, and a transformer's class token and position embedding are
// all of this form.
func (g *Graph) Pixels(x *Node, height, width int, index []int, table []float32) *Node {
	s := Shape{x.shape.C, height, width}
	bad := len(index) != height*width || (table != nil && len(table) != len(index)*s.C)
	for _, i := range index {
		bad = bad || i < -1 || i >= x.shape.H*x.shape.W
	}
	if bad {
		panic(fmt.Sprintf("nn: %d pixels of %v, with %d constants, as %v", len(index), x.shape, len(table), s))
	}
	return g.add(pixelsOp{index, table}, s, x)
}

type pixelsJob struct {
	pixelsOp
	in, out *buffer
}

func (j *pixelsJob) uses() []*buffer { return []*buffer{j.in, j.out} }

func (j *pixelsJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	c, width := j.out.geom.channels, j.out.geom.width
	for i, from := range j.index {
		out := ws.pixel(j.out, image, i/width, i%width)
		if from < 0 {
			clear(out)
		} else {
			clear(out[copy(out, ws.pixel(j.in, image, from/j.in.geom.width, from%j.in.geom.width)[:c]):])
		}
		if j.table != nil {
			for k, v := range j.table[i*c:][:c] {
				out[k] += v
			}
		}
	}
}

type pixelsBackJob struct {
	pixelsOp
	from, to, mask *buffer
}

func (j *pixelsBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.mask} }

func (j *pixelsBackJob) run(ws *workspace, _, image, _ int, _ *scratch) {
	width, wide := j.from.geom.width, j.to.geom.width
	for i, at := range j.index {
		if at < 0 {
			continue
		}
		ws.addPixel(j.to, j.mask, image, at/wide, at%wide, ws.pixel(j.from, image, i/width, i%width))
	}
}

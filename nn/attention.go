package nn

import (
	"fmt"
	"math"

	"nac/internal/kernel"
)

// attentionOp is multi-head attention within groups of tokens.
type attentionOp struct {
	heads int
	// window is the side of a group, 0 if all tokens are one; shift is how far the
	// windows are rolled; bias is nil or [heads][tokens][tokens].
	window, shift int
	bias          []float32
}

// Attention is multi-head attention among all pixels (Vaswani et al., 2017):
// softmax(Q K' / sqrt(d)) V for each head. x has 3C channels, the queries, keys
// and values of all heads behind each other; the result has C.
func (g *Graph) Attention(x *Node, heads int) *Node {
	return g.attention(x, attentionOp{heads: heads})
}

// WindowAttention is Attention within square windows of the given side, which
// must divide the image's, with a bias [heads][side*side][side*side] that is added
// to the scores (Liu et al., 2021). With a shift the image is rolled by so many
// pixels up and to the left before, and back afterwards; pixels that are no
// neighbours but for the rolling get a score less by 100.
func (g *Graph) WindowAttention(x *Node, heads, window, shift int, bias []float32) *Node {
	s := x.shape
	t := window * window
	if window < 1 || s.H%window != 0 || s.W%window != 0 || shift < 0 || shift >= window || len(bias) != heads*t*t {
		panic(fmt.Sprintf("nn: attention of %v in windows of %d, shifted by %d, with %d values of bias", s, window, shift, len(bias)))
	}
	return g.attention(x, attentionOp{heads, window, shift, bias})
}

func (g *Graph) attention(x *Node, op attentionOp) *Node {
	s := x.shape
	if op.heads < 1 || s.C%(3*op.heads) != 0 {
		panic(fmt.Sprintf("nn: attention of %v by %d heads", s, op.heads))
	}
	return g.add(op, Shape{s.C / 3, s.H, s.W}, x)
}

// pixels lists the pixels of each group, and a number for each group: those of one
// number have the same mask.
func (op attentionOp) pixels(g *geometry) (groups [][][2]int, masks []int) {
	height, width := op.window, op.window
	if op.window == 0 {
		height, width = g.height, g.width
	}
	for top := 0; top < g.height; top += height {
		for left := 0; left < g.width; left += width {
			var group [][2]int
			for y := range height {
				for x := range width {
					group = append(group, [2]int{(top + y + op.shift) % g.height, (left + x + op.shift) % g.width})
				}
			}
			groups = append(groups, group)
			mask := 0
			if op.shift > 0 && top+height == g.height {
				mask++
			}
			if op.shift > 0 && left+width == g.width {
				mask += 2
			}
			masks = append(masks, mask)
		}
	}
	return groups, masks
}

// apart reports whether tokens i and j of a window are neighbours only because
// the image was rolled.
func (op attentionOp) apart(mask, i, j int) bool {
	rolled := func(at int) bool { return at >= op.window-op.shift }
	return mask&1 != 0 && rolled(i/op.window) != rolled(j/op.window) || mask&2 != 0 && rolled(i%op.window) != rolled(j%op.window)
}

// maskedScore is what is added to the score of tokens that are apart.
const maskedScore = -100

// attention is what both directions share. All products are the tile kernel's:
// tokens are its rows, at any place in memory, and the smaller operand of each
// product, of one head of one group, is packed as its weights.
type attention struct {
	op                 attentionOp
	kernels            *kernel.Transformer
	byKeys, byChannels kernel.Tile
	qkv, out           *buffer
	dim, tokens        int // of a head; of a group
	channels, columns  int // the same in whole tiles
	block, blockStride int // queries of a block; the same in whole vectors
	scale              float32
	groups             []attentionGroup
	pad                []float32   // [columns]: minus infinity behind the tokens
	bias               [][]float32 // [mask*heads+head][query][columns]; nil if there is none
	// Offsets of a block's rows of scores and of channels, of all tokens' rows of
	// channels, and of rows of transposed scores.
	byScore, byResult, byRow, transposed [][kernel.Rows]int64
	scoreRows                            [][kernel.Lanes]int64 // byScore, to transpose
}

// attentionGroup is where a group's tokens lie in an image, in bytes.
type attentionGroup struct {
	qkv, out   [][kernel.Rows]int64  // in tiles
	qkv16      [][kernel.Lanes]int64 // to transpose
	qkv1, out1 []int64               // one by one
	mask       int
}

// attentionBlock is about how many queries are computed at a time: their scores
// should stay in the second-level cache, and a head's packed keys be read seldom.
const attentionBlock = 96

// newAttention plans blocks of about so many queries.
func newAttention(k *kernel.Set, op attentionOp, qkv, out *buffer, block int) *attention {
	c := out.geom.channels
	groups, masks := op.pixels(out.geom)
	a := &attention{op: op, kernels: k.Transformer(), qkv: qkv, out: out, dim: c / op.heads, tokens: len(groups[0])}
	a.scale = float32(1 / math.Sqrt(float64(a.dim)))
	a.channels = kernel.Pad(a.dim)
	a.byChannels = k.Tile(a.channels)
	// The widest tile that wastes little.
	for _, t := range k.Tiles() {
		a.byKeys = t
		a.columns = (a.tokens + t.Width - 1) / t.Width * t.Width
		if a.columns*10 <= kernel.Pad(a.tokens)*11 {
			break
		}
	}
	tiles := (a.tokens + kernel.Rows - 1) / kernel.Rows
	blocks := (a.tokens + block - 1) / block
	a.block = (tiles + blocks - 1) / blocks * kernel.Rows
	a.blockStride = kernel.Pad(a.block)

	for i, group := range groups {
		g := attentionGroup{mask: masks[i]}
		for _, p := range group {
			g.qkv1 = append(g.qkv1, 4*int64(qkv.geom.offset(p[0], p[1])))
			g.out1 = append(g.out1, 4*int64(out.geom.offset(p[0], p[1])))
		}
		at := func(offsets []int64) func(int) int64 {
			return func(i int) int64 { return offsets[min(i, a.tokens-1)] }
		}
		g.qkv, g.out = tilesOf(a.tokens, at(g.qkv1)), tilesOf(a.tokens, at(g.out1))
		g.qkv16 = lanesOf(a.columns, at(g.qkv1))
		a.groups = append(a.groups, g)
	}
	step := func(floats, last int) func(int) int64 {
		return func(i int) int64 { return 4 * int64(min(i, last)*floats) }
	}
	a.byScore = tilesOf(a.block, step(a.columns, a.block))
	a.scoreRows = lanesOf(a.blockStride, step(a.columns, a.block-1))
	a.byResult = tilesOf(a.block, step(a.channels, a.block))
	a.byRow = tilesOf(a.tokens, step(a.channels, a.tokens-1))
	a.transposed = tilesOf(a.tokens, step(a.blockStride, a.tokens-1))

	a.pad = kernel.Aligned(a.columns)
	for i := a.tokens; i < a.columns; i++ {
		a.pad[i] = float32(math.Inf(-1))
	}
	if op.bias != nil {
		a.bias = make([][]float32, 4*op.heads)
		for i, mask := range masks {
			for h := range op.heads {
				if at := &a.bias[masks[i]*op.heads+h]; *at == nil {
					*at = a.table(mask, h)
				}
			}
		}
	}
	return a
}

// table is the bias of one head with the mask of a kind of window.
func (a *attention) table(mask, head int) []float32 {
	t := a.tokens
	table := kernel.Aligned((t + kernel.Rows) * a.columns)
	for row := range t + kernel.Rows {
		i := min(row, t-1) // rows behind the last token are copies of it
		for j := range t {
			table[row*a.columns+j] = a.op.bias[(head*t+i)*t+j]
			if a.op.apart(mask, i, j) {
				table[row*a.columns+j] += maskedScore
			}
		}
	}
	return table
}

// tilesOf lists the offsets of at least n rows, in tiles.
func tilesOf(n int, at func(int) int64) [][kernel.Rows]int64 {
	tiles := make([][kernel.Rows]int64, (n+kernel.Rows-1)/kernel.Rows)
	for i := range len(tiles) * kernel.Rows {
		tiles[i/kernel.Rows][i%kernel.Rows] = at(i)
	}
	return tiles
}

func lanesOf(n int, at func(int) int64) [][kernel.Lanes]int64 {
	lanes := make([][kernel.Lanes]int64, (n+kernel.Lanes-1)/kernel.Lanes)
	for i := range len(lanes) * kernel.Lanes {
		lanes[i/kernel.Lanes][i%kernel.Lanes] = at(i)
	}
	return lanes
}

// whole reports whether a head's channels are whole vectors, and so can be written to
// their place by the tiles.
func (a *attention) whole() bool { return a.dim == a.channels }

// tasks: one for each head of each group.
func (a *attention) tasks(n, _ int) int { return n * len(a.groups) * a.op.heads }

// attentionScratch is a worker's room for one head of one group.
type attentionScratch struct {
	tile      kernel.TileArgs
	softmax   kernel.SoftmaxArgs
	transpose kernel.TransposeArgs
	tapOff    [1]int64
	// Packed operands, scores and results; of the gradient alone the second half.
	packedKeys, packedValues, result, scores          []float32
	keyRows, queries, grads, slopes, scoresT, slopesT []float32
	keyGrad, valueGrad                                []float32
}

func (s *attentionScratch) grow(jobs []job) {
	need := func(v *[]float32, n int) {
		if len(*v) < n {
			*v = kernel.Aligned(n)
		}
	}
	for _, j := range jobs {
		var a *attention
		back, ok := j.(*attentionBackJob)
		if ok {
			a = back.attention
		} else if forward, ok := j.(*attentionJob); ok {
			a = forward.attention
		} else {
			continue
		}
		need(&s.packedKeys, a.columns*a.dim)
		need(&s.packedValues, max(a.tokens*a.channels, a.columns*a.dim))
		need(&s.scores, a.block*a.columns)
		need(&s.result, a.block*a.channels)
		if back == nil {
			continue
		}
		need(&s.keyRows, a.tokens*a.channels)
		need(&s.queries, a.block*a.channels)
		need(&s.grads, a.block*a.channels)
		need(&s.slopes, a.block*a.columns)
		need(&s.scoresT, a.columns*a.blockStride)
		need(&s.slopesT, a.columns*a.blockStride)
		need(&s.keyGrad, a.tokens*a.channels)
		need(&s.valueGrad, a.tokens*a.channels)
	}
}

// attentionHead is one head of one group of one image: a task.
type attentionHead struct {
	*attention
	*attentionScratch
	group  *attentionGroup
	index  int
	qkv    []float32 // the image's, from the head's queries on
	values int       // where its values begin in qkv; keys lie halfway
	bias   []float32
}

func (a *attention) head(ws *workspace, task int, s *attentionScratch) attentionHead {
	h := attentionHead{attention: a, attentionScratch: s, index: task % a.op.heads}
	group := task / a.op.heads % len(a.groups)
	h.group = &a.groups[group]
	h.qkv = a.image(ws, a.qkv, task)[h.index*a.dim:]
	h.values = 2 * a.dim * a.op.heads
	if a.bias != nil {
		h.bias = a.bias[h.group.mask*a.op.heads+h.index]
	}
	return h
}

// image is a slab from the task's image on.
func (a *attention) image(ws *workspace, b *buffer, task int) []float32 {
	return ws.slabs[b.slab][task/a.op.heads/len(a.groups)*b.geom.image():]
}

// product computes tiles of rows of a times packed panels of weights: a row has
// cin values. Panels are tile.Width columns wide.
func (s *attentionScratch) product(tile kernel.Tile, columns int, in []float32, inOff [][kernel.Rows]int64, cin int,
	weights, out []float32, outOff [][kernel.Rows]int64, tiles int, flags int64, pad, bias []float32) {
	a := &s.tile
	*a = kernel.TileArgs{
		In: &in[0], InOff: &inOff[0], OutOff: &outOff[0], TapOff: &s.tapOff[0],
		Taps: 1, Cin: int64(cin), Count: int64(tiles), Flags: flags,
	}
	for lane := 0; lane < columns; lane += tile.Width {
		a.Weights, a.Out = &weights[lane*cin], &out[lane]
		if pad != nil {
			a.Bias = &pad[lane]
		}
		if bias != nil {
			a.Res = &bias[lane]
		}
		tile.Run(a)
	}
}

// transposeTokens packs columns that are tokens: in's rows times scale.
func (h *attentionHead) transposeTokens(in, out []float32, scale float32) {
	w := h.byKeys.Width
	t := &h.transpose
	for i := range h.group.qkv16 {
		key := i * kernel.Lanes
		*t = kernel.TransposeArgs{
			In: &in[0], InOff: &h.group.qkv16[i], Out: &out[key/w*w*h.dim+key%w],
			Cols: int64(h.dim), OutStep: 4 * int64(w), Scale: scale,
		}
		h.kernels.Transpose(t)
	}
}

// packTokens packs rows that are tokens at the given places, columns that are channels.
func (h *attentionHead) packTokens(in []float32, offsets []int64, out []float32) {
	w := h.byChannels.Width
	for lane := 0; lane < h.channels; lane += w {
		n := min(w, h.dim-lane)
		for t, off := range offsets {
			to, from := out[lane*len(offsets)+t*w:][:w], in[int(off/4)+lane:][:n]
			if n < w {
				clear(to[copy(to, from):])
				continue
			}
			for c := 0; c < w; c += kernel.Lanes {
				*(*[kernel.Lanes]float32)(to[c:]) = *(*[kernel.Lanes]float32)(from[c:])
			}
		}
	}
}

// softmaxBlock computes the softmax of the scores of the block's queries from
// the given one on, of which it returns the number and that of tiles.
func (h *attentionHead) softmaxBlock(first int) (queries, tiles int) {
	queries = min(h.block, h.tokens-first)
	tiles = (queries + kernel.Rows - 1) / kernel.Rows
	var bias []float32
	if h.bias != nil {
		bias = h.bias[first*h.columns:]
	}
	h.product(h.byKeys, h.columns, h.qkv, h.group.qkv[first/kernel.Rows:], h.dim,
		h.packedKeys, h.scores, h.byScore, tiles, 0, h.pad, bias)
	// Whole tiles: rows behind the last token are copies of it, and stay so.
	h.softmax = kernel.SoftmaxArgs{X: &h.scores[0], Rows: int64(tiles * kernel.Rows), Cols: int64(h.columns)}
	h.kernels.Softmax(&h.softmax)
	return queries, tiles
}

type attentionJob struct{ *attention }

func newAttentionJob(k *kernel.Set, op attentionOp, qkv, out *buffer) *attentionJob {
	return &attentionJob{newAttention(k, op, qkv, out, attentionBlock)}
}

func (j *attentionJob) uses() []*buffer { return []*buffer{j.qkv, j.out} }

func (j *attentionJob) run(ws *workspace, _, task, _ int, s *scratch) {
	h := j.head(ws, task, &s.attention)
	h.transposeTokens(h.qkv[h.values/2:], s.attention.packedKeys, j.scale)
	h.packTokens(h.qkv[h.values:], h.group.qkv1, s.attention.packedValues)
	out := j.image(ws, j.out, task)
	for first := 0; first < j.tokens; first += j.block {
		queries, tiles := h.softmaxBlock(first)
		if j.whole() {
			h.product(j.byChannels, j.channels, h.scores, j.byScore, j.tokens,
				s.attention.packedValues, out[h.index*j.dim:], h.group.out[first/kernel.Rows:], tiles, 0, nil, nil)
			continue
		}
		h.product(j.byChannels, j.channels, h.scores, j.byScore, j.tokens,
			s.attention.packedValues, h.result, j.byResult, tiles, 0, nil, nil)
		for i, off := range h.group.out1[first : first+queries] {
			to := out[off/4:][:j.out.geom.stride]
			copy(to[h.index*j.dim:], h.result[i*j.channels:][:j.dim])
			if h.index == 0 {
				clear(to[j.out.geom.channels:])
			}
		}
	}
}

// attentionBackJob is the gradient with respect to queries, keys and values. The
// scores are computed anew, block by block, instead of being kept.
type attentionBackJob struct {
	*attention
	from, to, mask *buffer
	accumulate     bool
	// Queries from the first to before the last have gradients.
	first, last int
}

// attentionContribution contributes the gradient of v to x, the queries, keys and values.
func (c *compiler) attentionContribution(op attentionOp, v, x *value) {
	out := &buffer{geom: v.geom} // for its geometry alone
	lone, block := v.lone && op.window == 0, attentionBlock
	if lone {
		block = kernel.Rows
	}
	a := newAttention(c.kernel, op, x.act, out, block)
	j := &attentionBackJob{attention: a, from: v.grad, mask: x.mask(), last: a.tokens}
	if lone {
		j.first = v.pixel / a.block * a.block
		j.last = min(j.first+a.block, a.tokens)
	}
	if x.written || x.pending != nil || j.mask != nil || lone {
		c.prepare(x)
		j.accumulate = true
	}
	if x.grad == nil {
		x.grad = &buffer{geom: x.geom}
	}
	x.written = true
	j.to = x.grad
	c.emit(j)
}

func (j *attentionBackJob) uses() []*buffer { return []*buffer{j.from, j.to, j.qkv, j.mask} }

func (j *attentionBackJob) run(ws *workspace, _, task, _ int, sc *scratch) {
	s := &sc.attention
	h := j.head(ws, task, s)
	keys, values := h.qkv[h.values/2:], h.qkv[h.values:]
	h.transposeTokens(keys, s.packedKeys, j.scale)
	// With the scale here the scores' gradient has it, for queries and keys.
	h.transposeTokens(values, s.packedValues, j.scale)
	h.packTokens(keys, h.group.qkv1, s.keyRows)
	grad := j.image(ws, j.from, task)[h.index*j.dim:]
	tokenTiles := len(j.transposed)
	to := j.image(ws, j.to, task)[h.index*j.dim:]
	keyGrad, valueGrad, byRow := s.keyGrad, s.valueGrad, j.byRow
	// To their place, if nothing is there already.
	direct := j.whole() && !j.accumulate
	if direct {
		keyGrad, valueGrad, byRow = to[h.values/2:], to[h.values:], h.group.qkv
	}
	for first := j.first; first < j.last; first += j.block {
		queries, tiles := h.softmaxBlock(first)
		h.product(j.byKeys, j.columns, grad, h.group.out[first/kernel.Rows:], j.dim, s.packedValues, s.slopes, j.byScore, tiles, 0, nil, nil)
		h.transposeScores(s.scores, s.scoresT)
		s.softmax.Grad = &s.slopes[0]
		j.kernels.SoftmaxBack(&s.softmax)
		h.transposeScores(s.slopes, s.slopesT)

		flags := int64(0)
		if first > j.first {
			flags = kernel.Accumulate
		}
		h.packTokens(grad, h.group.out1[first:first+queries], s.grads)
		h.product(j.byChannels, j.channels, s.scoresT, j.transposed, queries, s.grads, valueGrad, byRow, tokenTiles, flags, nil, nil)
		h.packTokens(h.qkv, h.group.qkv1[first:first+queries], s.queries)
		h.product(j.byChannels, j.channels, s.slopesT, j.transposed, queries, s.queries, keyGrad, byRow, tokenTiles, flags, nil, nil)
		if direct {
			h.product(j.byChannels, j.channels, s.slopes, j.byScore, j.tokens, s.keyRows, to, byRow[first/kernel.Rows:], tiles, 0, nil, nil)
			continue
		}
		h.product(j.byChannels, j.channels, s.slopes, j.byScore, j.tokens, s.keyRows, s.result, j.byResult, tiles, 0, nil, nil)
		j.write(ws, task, h.index*j.dim, h.group.qkv1[first:first+queries], s.result)
	}
	if direct {
		return
	}
	j.write(ws, task, h.values/2+h.index*j.dim, h.group.qkv1, s.keyGrad)
	j.write(ws, task, h.values+h.index*j.dim, h.group.qkv1, s.valueGrad)
}

// transposeScores makes the rows of a block columns.
func (h *attentionHead) transposeScores(in, out []float32) {
	for i := range h.scoreRows {
		h.transpose = kernel.TransposeArgs{
			In: &in[0], InOff: &h.scoreRows[i], Out: &out[i*kernel.Lanes],
			Cols: int64(h.columns), OutStep: 4 * int64(h.blockStride), Scale: 1,
		}
		h.kernels.Transpose(&h.transpose)
	}
}

// write puts rows of a head's gradient to their tokens, from channel lane on.
func (j *attentionBackJob) write(ws *workspace, task, lane int, offsets []int64, rows []float32) {
	to := j.image(ws, j.to, task)
	var mask []float32
	if j.mask != nil {
		mask = j.image(ws, j.mask, task)
	}
	g := j.to.geom
	for i, off := range offsets {
		pixel := to[off/4:][:g.stride]
		row, dst := rows[i*j.channels:][:j.dim], pixel[lane:][:j.dim]
		switch {
		case !j.accumulate:
			copy(dst, row)
			if lane == 0 {
				clear(pixel[g.channels:])
			}
		case mask == nil:
			for c, v := range row {
				dst[c] += v
			}
		default:
			m := mask[int(off/4)+lane:][:j.dim]
			for c, v := range row {
				if m[c] > 0 {
					dst[c] += v
				}
			}
		}
	}
}

package main

import (
	"fmt"
	"maps"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of WinogradInput and WinogradOutput;
// winograd_test.go checks them.
const (
	winInIn       = 0
	winInOut      = 8
	winInOffsets  = 16
	winInRow      = 24
	winInPixel    = 32
	winInPlane    = 40
	winInBlock    = 48
	winInStep     = 56
	winInChannels = 64
	winInCount    = 72

	winOutIn       = 0
	winOutOut      = 8
	winOutBias     = 16
	winOutRes      = 24
	winOutMask     = 32
	winOutOffsets  = 40
	winOutRow      = 48
	winOutPixel    = 56
	winOutPlane    = 64
	winOutBlock    = 72
	winOutStep     = 80
	winOutChannels = 88
	winOutCount    = 96
	winOutRows     = 104
	winOutCols     = 112
	winOutFlags    = 120
)

// load puts fields of the arguments, whose address goes to RAX, into registers.
func load(fields map[int]GPPhysical) {
	MOVQ(NewParamAddr("a", 0), RAX)
	for _, disp := range slices.Sorted(maps.Keys(fields)) {
		MOVQ(Mem{Base: RAX, Disp: disp}, fields[disp])
	}
}

// patches is the loop over the patches of a transform: where the next one's offset and its
// row of transformed values are, and how many patches are left.
type patches struct{ offset, row, left Mem }

// eachPatch begins the loop, at the label "patch", with the patch's offset in R15 and
// its row in the given register.
func eachPatch(offsets, first, step, count int, row GPPhysical) patches {
	local := AllocLocal(24)
	p := patches{local, local.Offset(8), local.Offset(16)}
	for _, f := range []struct {
		field int
		to    Mem
	}{{offsets, p.offset}, {first, p.row}, {count, p.left}} {
		MOVQ(Mem{Base: RAX, Disp: f.field}, R15)
		MOVQ(R15, f.to)
	}
	Label("patch")
	MOVQ(p.row, row)
	MOVQ(Mem{Base: RAX, Disp: step}, R15)
	ADDQ(R15, p.row)
	MOVQ(p.offset, R15)
	ADDQ(Imm(8), p.offset)
	MOVQ(Mem{Base: R15}, R15)
	return p
}

// end goes to the next patch, or home.
func (p patches) end() {
	DECQ(p.left)
	JNZ(LabelRef("patch"))
	VZEROUPPER()
	RET()
}

// nextChannels moves a pointer to transformed values, which lie in blocks of 16 channels, on to the
// next channels, counts those in RCX, and goes to the label "channels" if there are any.
func (v vector) nextChannels(values GPPhysical, block int) {
	if v.bytes == 64 {
		ADDQ(Mem{Base: RAX, Disp: block}, values)
		SUBQ(Imm(16), RCX)
		JG(LabelRef("channels"))
		return
	}
	ADDQ(Imm(uint64(v.bytes)), values)
	SUBQ(Imm(8), RCX)
	TESTQ(U32(8), RCX)
	JNZ(LabelRef("channels"))
	SUBQ(Imm(64), values)
	ADDQ(Mem{Base: RAX, Disp: block}, values)
	TESTQ(RCX, RCX)
	JG(LabelRef("channels"))
}

func winogradInputArgs() patches {
	load(map[int]GPPhysical{winInRow: R8, winInPixel: R9, winInPlane: R10})
	p := eachPatch(winInOffsets, winInOut, winInStep, winInCount, RDI)
	MOVQ(Mem{Base: RAX, Disp: winInIn}, RSI)
	ADDQ(R15, RSI)
	MOVQ(Mem{Base: RAX, Disp: winInChannels}, RCX)
	return p
}

// winogradInputNext ends an input transform: on to the next channels, to the next patch, or home.
func winogradInputNext(v vector, p patches) {
	ADDQ(U32(uint32(v.bytes)), RSI)
	v.nextChannels(RDI, winInBlock)
	p.end()
}

func winogradOutputArgs() patches {
	load(map[int]GPPhysical{winOutRow: R8, winOutPixel: R9, winOutPlane: R10, winOutFlags: RBX})
	p := eachPatch(winOutOffsets, winOutIn, winOutStep, winOutCount, RSI)
	for _, f := range []struct {
		field int
		to    GPPhysical
	}{{winOutRes, R13}, {winOutMask, R14}} {
		null := fmt.Sprintf("null%d", f.field)
		MOVQ(Mem{Base: RAX, Disp: f.field}, f.to)
		TESTQ(f.to, f.to)
		JZ(LabelRef(null))
		ADDQ(R15, f.to)
		Label(null)
	}
	MOVQ(Mem{Base: RAX, Disp: winOutOut}, RDI)
	ADDQ(R15, RDI)
	MOVQ(Mem{Base: RAX, Disp: winOutBias}, R12)
	MOVQ(Mem{Base: RAX, Disp: winOutChannels}, RCX)
	return p
}

// winogradInput writes the input transform. A row of the result needs two rows
// of the patch, so that four registers hold it between the two directions.
//
// Registers: RSI patch, RDI result, R8 row stride, R9 pixel stride, R10 plane
// stride, RCX channels left.
func winogradInput(v vector) {
	TEXT("winogradInput"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("winogradInput" + v.suffix + " is the input transform of F(2x2,3x3); see WinogradInput for the formula.")
	Pragma("noescape")
	loop := winogradInputArgs()
	Comment("R11-R14 are the rows, RDX three pixels.")
	LEAQ(Mem{Base: R9, Index: R9, Scale: 2}, RDX)

	Label("channels")
	MOVQ(RSI, R11)
	LEAQ(Mem{Base: R11, Index: R8, Scale: 1}, R12)
	LEAQ(Mem{Base: R12, Index: R8, Scale: 1}, R13)
	LEAQ(Mem{Base: R13, Index: R8, Scale: 1}, R14)
	pixel := func(row GPPhysical, x int) Mem {
		switch x {
		case 0:
			return Mem{Base: row}
		case 1:
			return Mem{Base: row, Index: R9, Scale: 1}
		case 2:
			return Mem{Base: row, Index: R9, Scale: 2}
		}
		return Mem{Base: row, Index: RDX, Scale: 1}
	}
	MOVQ(RDI, RBX)
	t := func(x int) VecPhysical { return v.reg(x) }
	for _, step := range []struct {
		a, b GPPhysical
		add  bool
	}{{R11, R13, false}, {R12, R13, true}, {R13, R12, false}, {R12, R14, false}} {
		for x := 0; x < 4; x++ {
			VMOVUPS(pixel(step.a, x), t(x))
		}
		for x := 0; x < 4; x++ {
			if step.add {
				VADDPS(pixel(step.b, x), t(x), t(x))
			} else {
				VSUBPS(pixel(step.b, x), t(x), t(x))
			}
		}
		VSUBPS(t(2), t(0), v.reg(4))
		VADDPS(t(2), t(1), v.reg(5))
		VSUBPS(t(1), t(2), v.reg(6))
		VSUBPS(t(3), t(1), v.reg(7))
		for x := 0; x < 4; x++ {
			VMOVUPS(v.reg(4+x), Mem{Base: RBX})
			ADDQ(R10, RBX)
		}
	}
	winogradInputNext(v, loop)
}

// winogradOutput writes the output transform with the epilogue of a tile.
//
// Registers: RSI planes, RDX a row of planes, RDI result, R8 row stride, R9 pixel
// stride, R10 plane stride, R11 three planes, R12 bias, R13 residual, R14 mask,
// RCX channels left, RBX flags.
func winogradOutput(v vector) {
	TEXT("winogradOutput"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("winogradOutput" + v.suffix + " is the output transform of F(2x2,3x3); see WinogradOutput for the formula.")
	Pragma("noescape")
	zero := v.reg(15)
	v.zero(zero)
	loop := winogradOutputArgs()
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R11)

	plane := func(row GPPhysical, x int) Mem {
		switch x {
		case 0:
			return Mem{Base: row}
		case 1:
			return Mem{Base: row, Index: R10, Scale: 1}
		case 2:
			return Mem{Base: row, Index: R10, Scale: 2}
		}
		return Mem{Base: row, Index: R11, Scale: 1}
	}
	s := func(row, x int) VecPhysical { return v.reg(4*row + x) }

	Label("channels")
	Comment("Rows: 0+1+2 and 1-2-3.")
	MOVQ(RSI, RDX)
	for x := 0; x < 4; x++ {
		VMOVUPS(plane(RDX, x), s(0, x))
	}
	LEAQ(Mem{Base: RDX, Index: R10, Scale: 4}, RDX)
	for x := 0; x < 4; x++ {
		VMOVUPS(plane(RDX, x), s(1, x))
		VADDPS(s(1, x), s(0, x), s(0, x))
	}
	LEAQ(Mem{Base: RDX, Index: R10, Scale: 4}, RDX)
	for x := 0; x < 4; x++ {
		VMOVUPS(plane(RDX, x), v.reg(8+x))
		VADDPS(v.reg(8+x), s(0, x), s(0, x))
		VSUBPS(v.reg(8+x), s(1, x), s(1, x))
	}
	LEAQ(Mem{Base: RDX, Index: R10, Scale: 4}, RDX)
	for x := 0; x < 4; x++ {
		VSUBPS(plane(RDX, x), s(1, x), s(1, x))
	}
	Comment("Columns likewise, into registers 0, 1 (first row) and 4, 5.")
	for row := 0; row < 2; row++ {
		VADDPS(s(row, 1), s(row, 0), s(row, 0))
		VADDPS(s(row, 2), s(row, 0), s(row, 0))
		VSUBPS(s(row, 2), s(row, 1), s(row, 1))
		VSUBPS(s(row, 3), s(row, 1), s(row, 1))
	}
	Comment("Bias.")
	TESTQ(R12, R12)
	JZ(LabelRef("unbiased"))
	VMOVUPS(Mem{Base: R12}, v.reg(8))
	for row := 0; row < 2; row++ {
		VADDPS(v.reg(8), s(row, 0), s(row, 0))
		VADDPS(v.reg(8), s(row, 1), s(row, 1))
	}
	ADDQ(U32(uint32(v.bytes)), R12)
	Label("unbiased")

	for row := 0; row < 2; row++ {
		for col := 0; col < 2; col++ {
			label := func(what string) string { return what + string(rune('0'+row)) + string(rune('0'+col)) }
			if row > 0 {
				CMPQ(Mem{Base: RAX, Disp: winOutRows}, Imm(2))
				JL(LabelRef("next"))
			}
			if col > 0 {
				CMPQ(Mem{Base: RAX, Disp: winOutCols}, Imm(2))
				JL(LabelRef(label("stored")))
			}
			y := s(row, col)
			Comment("RDX is the pixel's offset.")
			switch {
			case row == 0 && col == 0:
				XORQ(RDX, RDX)
			case row == 0:
				MOVQ(R9, RDX)
			case col == 0:
				MOVQ(R8, RDX)
			default:
				LEAQ(Mem{Base: R8, Index: R9, Scale: 1}, RDX)
			}
			winogradPixel(v, y, zero, v.reg(9), label)
			Label(label("stored"))
		}
	}
	winogradNext(v, loop)
}

// winogradPixel writes one pixel y of an output transform: what TileArgs says of
// sums, residuals, ReLU and mask. Registers as in winogradOutput.
func winogradPixel(v vector, y, zero, spare VecPhysical, label func(what string) string) {
	at := func(base GPPhysical) Mem { return Mem{Base: base, Index: RDX, Scale: 1} }
	TESTQ(U32(flagAccumulate), RBX)
	JZ(LabelRef(label("res")))
	VADDPS(at(RDI), y, y)
	Label(label("res"))
	TESTQ(R13, R13)
	JZ(LabelRef(label("relu")))
	VADDPS(at(R13), y, y)
	Label(label("relu"))
	TESTQ(U32(flagReLU), RBX)
	JZ(LabelRef(label("mask")))
	VMAXPS(y, zero, y)
	Label(label("mask"))
	TESTQ(R14, R14)
	JZ(LabelRef(label("store")))
	const lessThan = 0x11
	if v.bytes == 64 {
		VCMPPS(Imm(lessThan), at(R14), zero, K1)
		VMOVAPS_Z(y, K1, y)
	} else {
		VCMPPS(Imm(lessThan), at(R14), zero, spare)
		VANDPS(spare, y, y)
	}
	Label(label("store"))
	VMOVUPS(y, at(RDI))
}

// winogradNext ends an output transform: on to the next channels, to the next patch, or home.
func winogradNext(v vector, p patches) {
	Label("next")
	ADDQ(U32(uint32(v.bytes)), RDI)
	Comment("Null pointers stay null.")
	for i, p := range []GPPhysical{R13, R14} {
		label := []string{"nores", "nomask"}[i]
		TESTQ(p, p)
		JZ(LabelRef(label))
		ADDQ(U32(uint32(v.bytes)), p)
		Label(label)
	}
	v.nextChannels(RSI, winOutBlock)
	p.end()
}

// The points of F(4x4,3x3), squared and cubed as the transforms use them;
// winograd_test.go compares the result with a convolution. They are exact in float32.
const (
	pointA, pointB = 0.625, 1.5
)

// constants are floats in memory, broadcast when they are used.
func constants() func(float32) Mem {
	offsets := map[float32]int{}
	data := GLOBL("winograd4", RODATA|NOPTR)
	return func(f float32) Mem {
		at, ok := offsets[f]
		if !ok {
			at = 4 * len(offsets)
			offsets[f] = at
			DATA(at, F32(f))
		}
		return data.Offset(at)
	}
}

// winograd4Input writes the input transform of F(4x4,3x3): columns first, into
// the stack, then rows.
//
// Registers: RSI patch, RDI result, R8 row stride, R9 pixel stride, R10 plane
// stride, RCX channels left, RSP[] half-transformed patch.
func winograd4Input(v vector, constant func(float32) Mem) {
	TEXT("winograd4Input"+v.suffix, 0, "func(a *byte)")
	Doc("winograd4Input" + v.suffix + " is the input transform of F(4x4,3x3); see WinogradInput for the formula.")
	Pragma("noescape")
	half := AllocLocal(36 * v.bytes)
	d := func(i int) VecPhysical { return v.reg(i) }
	constants := []struct {
		value float32
		reg   VecPhysical
	}{
		{pointA * pointA, v.reg(10)}, {pointB * pointB, v.reg(11)},
		{pointA * pointA * pointB * pointB, v.reg(12)}, {pointA*pointA + pointB*pointB, v.reg(13)},
		{pointA, v.reg(14)}, {pointB, v.reg(15)},
	}
	for _, c := range constants {
		VBROADCASTSS(constant(c.value), c.reg)
	}
	loop := winogradInputArgs()
	aa, bb, aabb, aabbSum, a, b := v.reg(10), v.reg(11), v.reg(12), v.reg(13), v.reg(14), v.reg(15)
	// side transforms registers 0 to 5 and calls out for each result.
	side := func(out func(i int, r VecPhysical)) {
		Comment("0: a^2 b^2 d0 - (a^2+b^2) d2 + d4")
		VMOVAPS(d(4), v.reg(6))
		VFNMADD231PS(aabbSum, d(2), v.reg(6))
		VFMADD231PS(aabb, d(0), v.reg(6))
		out(0, v.reg(6))
		Comment("5: a^2 b^2 d1 - (a^2+b^2) d3 + d5")
		VFNMADD231PS(aabbSum, d(3), d(5))
		VFMADD231PS(aabb, d(1), d(5))
		out(5, d(5))
		for i, p := range []struct{ square, point VecPhysical }{{bb, a}, {aa, b}} {
			Comment([]string{"1, 2: (d4 - b^2 d2) +- a (d3 - b^2 d1)", "3, 4: (d4 - a^2 d2) +- b (d3 - a^2 d1)"}[i])
			VMOVAPS(d(4), v.reg(6))
			VFNMADD231PS(p.square, d(2), v.reg(6))
			VMOVAPS(d(3), v.reg(7))
			VFNMADD231PS(p.square, d(1), v.reg(7))
			VMOVAPS(v.reg(6), v.reg(8))
			VFMADD231PS(p.point, v.reg(7), v.reg(6))
			VFNMADD231PS(p.point, v.reg(7), v.reg(8))
			out(1+2*i, v.reg(6))
			out(2+2*i, v.reg(8))
		}
	}

	sixPlanes(v, 6, half, d, side, loop)
}

// winograd4Output writes the output transform of F(4x4,3x3) with the epilogue of
// a tile: columns into the stack, then a row's four pixels at a time.
//
// Registers: RSI planes, RDI result, R8 row stride, R9 pixel stride, R10 plane
// stride, R12 bias, R13 residual, R14 mask, RCX channels left, RBX flags, RDX the
// pixel's offset.
func winograd4Output(v vector, constant func(float32) Mem) {
	TEXT("winograd4Output"+v.suffix, 0, "func(a *byte)")
	Doc("winograd4Output" + v.suffix + " is the output transform of F(4x4,3x3); see WinogradOutput for the formula.")
	Pragma("noescape")
	half := AllocLocal(24 * v.bytes)
	zero, bias := v.reg(15), v.reg(14)
	v.zero(zero)
	powers := []struct {
		value float32
		reg   VecPhysical
	}{
		{pointA, v.reg(8)}, {pointB, v.reg(9)}, {pointA * pointA, v.reg(10)}, {pointB * pointB, v.reg(11)},
		{pointA * pointA * pointA, v.reg(12)}, {pointB * pointB * pointB, v.reg(13)},
	}
	for _, c := range powers {
		VBROADCASTSS(constant(c.value), c.reg)
	}
	loop := winogradOutputArgs()
	a, b, aa, bb, aaa, bbb := v.reg(8), v.reg(9), v.reg(10), v.reg(11), v.reg(12), v.reg(13)
	m := func(i int) VecPhysical { return v.reg(i) }
	// side transforms registers 0 to 5 into 0, 6, 7, 5.
	results := []VecPhysical{m(0), m(6), m(7), m(5)}
	side := func() {
		Comment("Sums into 1 and 3, differences into 2 and 4.")
		for _, i := range []int{1, 3} {
			VSUBPS(m(i+1), m(i), m(6))
			VADDPS(m(i+1), m(i), m(i))
			VMOVAPS(m(6), m(i+1))
		}
		VADDPS(m(1), m(0), m(0))
		VADDPS(m(3), m(0), m(0))
		VMULPS(a, m(2), m(6))
		VFMADD231PS(b, m(4), m(6))
		VMULPS(aa, m(1), m(7))
		VFMADD231PS(bb, m(3), m(7))
		VFMADD231PS(aaa, m(2), m(5))
		VFMADD231PS(bbb, m(4), m(5))
	}

	Label("channels")
	Comment("R11: six planes.")
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R11)
	ADDQ(R11, R11)
	MOVQ(RSI, RDX)
	for x := 0; x < 6; x++ {
		MOVQ(RDX, R15)
		for y := 0; y < 6; y++ {
			VMOVUPS(Mem{Base: R15}, m(y))
			if y < 5 {
				ADDQ(R11, R15)
			}
		}
		side()
		for y, r := range results {
			VMOVUPS(r, half.Offset((6*y+x)*v.bytes))
		}
		if x < 5 {
			ADDQ(R10, RDX)
		}
	}
	v.zero(bias)
	TESTQ(R12, R12)
	JZ(LabelRef("unbiased"))
	VMOVUPS(Mem{Base: R12}, bias)
	ADDQ(U32(uint32(v.bytes)), R12)
	Label("unbiased")

	Comment("R11: the row's offset.")
	XORQ(R11, R11)
	for row := 0; row < 4; row++ {
		rowEnd := fmt.Sprintf("row%d", row)
		if row > 0 {
			CMPQ(Mem{Base: RAX, Disp: winOutRows}, Imm(uint64(row)))
			JLE(LabelRef("next"))
			ADDQ(R8, R11)
		}
		for x := 0; x < 6; x++ {
			VMOVUPS(half.Offset((6*row+x)*v.bytes), m(x))
		}
		side()
		MOVQ(R11, RDX)
		for col, y := range results {
			label := func(what string) string { return fmt.Sprintf("%s%d%d", what, row, col) }
			if col > 0 {
				CMPQ(Mem{Base: RAX, Disp: winOutCols}, Imm(uint64(col)))
				JLE(LabelRef(rowEnd))
				ADDQ(R9, RDX)
			}
			VADDPS(bias, y, y)
			winogradPixel(v, y, zero, m(1), label)
		}
		Label(rowEnd)
	}
	winogradNext(v, loop)
}

// winograd4Gradient writes the transpose of the output transform of F(4x4,3x3): columns
// first, into the stack, then rows.
//
// Registers: as in winograd4Input.
func winograd4Gradient(v vector, constant func(float32) Mem) {
	TEXT("winograd4Gradient"+v.suffix, 0, "func(a *byte)")
	Doc("winograd4Gradient" + v.suffix + " is Set.WinogradGradient; see there for the formula.")
	Pragma("noescape")
	half := AllocLocal(24 * v.bytes)
	y := func(i int) VecPhysical { return v.reg(i) }
	points := []struct{ point, square, cube VecPhysical }{{v.reg(8), v.reg(10), v.reg(12)}, {v.reg(9), v.reg(11), v.reg(13)}}
	for i, p := range []float32{pointA, pointB} {
		VBROADCASTSS(constant(p), points[i].point)
		VBROADCASTSS(constant(p*p), points[i].square)
		VBROADCASTSS(constant(p*p*p), points[i].cube)
	}
	loop := winogradInputArgs()
	// side transforms registers 0 to 3 and calls out for each result.
	side := func(out func(i int, r VecPhysical)) {
		out(0, y(0))
		out(5, y(3))
		for i, p := range points {
			Comment([]string{"1, 2: (y0 + a^2 y2) +- (a y1 + a^3 y3)", "3, 4: (y0 + b^2 y2) +- (b y1 + b^3 y3)"}[i])
			VMOVAPS(y(0), v.reg(4))
			VFMADD231PS(p.square, y(2), v.reg(4))
			VMULPS(p.point, y(1), v.reg(5))
			VFMADD231PS(p.cube, y(3), v.reg(5))
			VADDPS(v.reg(5), v.reg(4), v.reg(6))
			VSUBPS(v.reg(5), v.reg(4), v.reg(7))
			out(1+2*i, v.reg(6))
			out(2+2*i, v.reg(7))
		}
	}

	sixPlanes(v, 4, half, y, side, loop)
}

// sixPlanes writes the loop over channels of a transform from n x n pixels to the six by
// six points of F(4x4,3x3), and over patches: side transforms what is in the registers of in and
// hands out its six values, first for each column, into half, and then for each row of those.
func sixPlanes(v vector, n int, half Mem, in func(int) VecPhysical, side func(out func(int, VecPhysical)), loop patches) {
	Label("channels")
	MOVQ(RSI, R11)
	for x := 0; x < n; x++ {
		MOVQ(R11, RDX)
		for y := 0; y < n; y++ {
			VMOVUPS(Mem{Base: RDX}, in(y))
			if y < n-1 {
				ADDQ(R8, RDX)
			}
		}
		side(func(i int, r VecPhysical) { VMOVUPS(r, half.Offset((n*i+x)*v.bytes)) })
		if x < n-1 {
			ADDQ(R9, R11)
		}
	}
	MOVQ(RDI, RBX)
	Comment("R12: five planes, R14: three planes.")
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R14)
	LEAQ(Mem{Base: R10, Index: R10, Scale: 4}, R12)
	for i := 0; i < 6; i++ {
		for x := 0; x < n; x++ {
			VMOVUPS(half.Offset((n*i+x)*v.bytes), in(x))
		}
		side(func(x int, r VecPhysical) {
			at := []Mem{
				{Base: RBX}, {Base: RBX, Index: R10, Scale: 1}, {Base: RBX, Index: R10, Scale: 2},
				{Base: RBX, Index: R14, Scale: 1}, {Base: RBX, Index: R10, Scale: 4}, {Base: RBX, Index: R12, Scale: 1},
			}[x]
			VMOVUPS(r, at)
		})
		LEAQ(Mem{Base: RBX, Index: R14, Scale: 2}, RBX)
	}
	winogradInputNext(v, loop)
}

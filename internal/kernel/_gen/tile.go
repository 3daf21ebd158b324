package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vector is one instruction set's vector register, of float32 or, if pairs is set, of
// pairs of bfloat16 that are multiplied into sums in float32.
type vector struct {
	suffix string
	bytes  int
	pairs  bool
}

func (v vector) reg(i int) VecPhysical {
	if v.bytes == 64 {
		return []VecPhysical{
			Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
			Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
		}[i]
	}
	return []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}[i]
}

func (v vector) zero(r VecPhysical) {
	if v.bytes == 64 {
		VPXORD(r, r, r)
		return
	}
	VXORPS(r, r, r)
}

// multiplyAdd adds the product of a and b to sum.
func (v vector) multiplyAdd(a, b, sum VecPhysical) {
	if v.pairs {
		evex(prefixF3, 0x52, a, b, sum) // VDPBF16PS
		return
	}
	VFMADD231PS(a, b, sum)
}

// The mandatory prefixes of an instruction, as EVEX has them.
const (
	prefixF3 = 2
	prefixF2 = 3
)

// evex writes an instruction on 512-bit registers of opcode map 0F38 that Go's
// assembler does not know: AVX512-BF16. The operands are in Go's order, the result last.
func evex(prefix, opcode int, b, a, result VecPhysical) {
	number := func(r VecPhysical) int { return int(r.(Physical).PhysicalIndex()) }
	not := func(r VecPhysical, i int) int { return 1 - number(r)>>i&1 }
	vvvv := not(a, 3)<<3 | not(a, 2)<<2 | not(a, 1)<<1 | not(a, 0)
	for _, code := range []int{
		0x62,
		not(result, 3)<<7 | not(b, 4)<<6 | not(b, 3)<<5 | not(result, 4)<<4 | 2,
		vvvv<<3 | 1<<2 | prefix,
		2<<5 | not(a, 4)<<3,
		opcode,
		3<<6 | number(result)&7<<3 | number(b)&7,
	} {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(code)}})
	}
}

// rows is the number of output pixels of a tile. Six rows of two registers are
// the twelve accumulators that hide the latency of two FMA units and still
// leave room for weights and broadcasts among 16 registers.
const rows = 6

// tallRows are those of two tiles at once, which 32 registers have room for where a tile is at most
// two wide: six accumulators do not hide the latency, and a broadcast or a weight loaded
// for more products leaves the load ports time.
const tallRows = 2 * rows

// Byte offsets of the fields of TileArgs; kernel_test.go checks them.
const (
	argIn     = 0
	argW      = 8
	argOut    = 16
	argBias   = 24
	argRes    = 32
	argMask   = 40
	argInOff  = 48
	argOutOff = 56
	argTapOff = 64
	argTaps   = 72
	argCin    = 80
	argFlags  = 88
	argCount  = 96
	argNext   = 104
	argLast   = 112
)

const (
	flagReLU       = 1
	flagAccumulate = 2
)

// fetchLines is how many lines of what is read next are asked for every four channels:
// the widest tile's weights come from the third-level cache, whose own prefetcher stops at
// every page, and four tiles' time has them all at hand.
const fetchLines = 4

// tile writes a tile kernel of rows pixels by n vectors of channels, with a
// loop over tiles: a call costs as much as a small tile. With tallRows pixels it does two of
// TileArgs' tiles at a time, and leaves out the last one of an odd number.
//
// Registers: RAX input pointer of the tap, RSI weights, RDI channels left, the others byte
// offsets of the pixels; taps and tiles left are counted in memory.
func tile(v vector, n, rows int) {
	width := n * v.bytes / 4
	name := fmt.Sprintf("tile%dx%d%s", rows, width, v.suffix)
	TEXT(name, NOSPLIT, "func(a *byte)")
	Doc(fmt.Sprintf("%s is Tile for %d output channels; see TileArgs for the formula.", name, width))
	Pragma("noescape")

	pixel := []GPPhysical{R8, R9, R10, R11, R12, R13, R14, R15, RBX, RCX, RDX, RBP}[:rows]
	acc := func(i, j int) VecPhysical { return v.reg(i*n + j) }
	weight := func(j int) VecPhysical { return v.reg(rows*n + j) }
	spare := func(k int) VecPhysical { return v.reg(rows*n + n + k) }
	row := func(base GPPhysical, i, j int) Mem {
		return Mem{Base: base, Index: pixel[i], Scale: 1, Disp: j * v.bytes}
	}
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	each := func(f func(i, j int)) {
		for i := 0; i < rows; i++ {
			for j := 0; j < n; j++ {
				f(i, j)
			}
		}
	}
	a := NewParamAddr("a", 0)
	local := AllocLocal(40)
	inOff, outOff, count, taps, tapOff := local, local.Offset(8), local.Offset(16), local.Offset(24), local.Offset(32)
	keep := func(field int, to Mem) {
		MOVQ(arg(field), RAX)
		MOVQ(RAX, to)
	}
	offsets := func(table Mem) {
		MOVQ(table, RAX)
		for i := range pixel {
			MOVQ(Mem{Base: RAX, Disp: 8 * i}, pixel[i])
		}
	}
	// base loads a pointer of the arguments, and jumps if it is nil.
	base := func(field int, none string) {
		MOVQ(arg(field), RAX)
		TESTQ(RAX, RAX)
		JZ(LabelRef(none))
	}

	fetch := v.bytes == 64 && n == 4
	next, last := R14, R15
	MOVQ(a, RDI)
	if fetch {
		MOVQ(arg(argNext), next)
		MOVQ(arg(argLast), last)
	}
	keep(argInOff, inOff)
	keep(argOutOff, outOff)
	MOVQ(arg(argCount), RAX)
	if rows == tallRows {
		SHRQ(Imm(1), RAX)
	}
	MOVQ(RAX, count)

	Label("tile")
	Comment("Start from the output itself, from the bias, or from zero.")
	MOVQ(a, RDI)
	MOVQ(arg(argFlags), RAX)
	TESTQ(U32(flagAccumulate), RAX)
	JZ(LabelRef("bias"))
	offsets(outOff)
	MOVQ(arg(argOut), RAX)
	each(func(i, j int) { VMOVUPS(row(RAX, i, j), acc(i, j)) })
	JMP(LabelRef("start"))

	Label("bias")
	base(argBias, "zero")
	for j := 0; j < n; j++ {
		VMOVUPS(Mem{Base: RAX, Disp: j * v.bytes}, acc(0, j))
		for i := 1; i < rows; i++ {
			VMOVAPS(acc(0, j), acc(i, j))
		}
	}
	JMP(LabelRef("start"))

	Label("zero")
	each(func(i, j int) { v.zero(acc(i, j)) })

	Label("start")
	if v.bytes == 64 {
		Comment("Have what the end reads and writes come while the sums are made.")
		offsets(outOff)
		if n == 4 {
			MOVQ(arg(argOut), RAX)
			each(func(i, j int) { PREFETCHT0(row(RAX, i, j)) })
		}
		for _, f := range []int{argRes, argMask} {
			next := fmt.Sprintf("fetched%d", f)
			base(f, next)
			each(func(i, j int) { PREFETCHT0(row(RAX, i, j)) })
			Label(next)
		}
	}
	offsets(inOff)
	MOVQ(arg(argW), RSI)
	keep(argTapOff, tapOff)
	keep(argTaps, taps)

	step := func(k int) {
		for j := 0; j < n; j++ {
			VMOVUPS(Mem{Base: RSI, Disp: k*width*4 + j*v.bytes}, weight(j))
		}
		for i := 0; i < rows; i++ {
			b := spare(i % 2)
			VBROADCASTSS(Mem{Base: RAX, Index: pixel[i], Scale: 1, Disp: 4 * k}, b)
			for j := 0; j < n; j++ {
				v.multiplyAdd(weight(j), b, acc(i, j))
			}
		}
	}
	const unroll = 4

	Label("tap")
	MOVQ(a, RDI)
	MOVQ(tapOff, RAX)
	ADDQ(Imm(8), tapOff)
	MOVQ(Mem{Base: RAX}, RAX)
	ADDQ(arg(argIn), RAX)
	MOVQ(arg(argCin), RDI)
	SUBQ(Imm(unroll), RDI)
	JL(LabelRef("rest"))

	Label("channels")
	for k := 0; k < unroll; k++ {
		step(k)
	}
	if fetch {
		CMPQ(next, last)
		JAE(LabelRef("fetched"))
		for l := 0; l < fetchLines; l++ {
			PREFETCHT1(Mem{Base: next, Disp: 64 * l})
		}
		ADDQ(U32(64*fetchLines), next)
		Label("fetched")
	}
	ADDQ(Imm(4*unroll), RAX)
	ADDQ(U32(uint32(4*unroll*width)), RSI)
	SUBQ(Imm(unroll), RDI)
	JGE(LabelRef("channels"))

	Label("rest")
	ADDQ(Imm(unroll), RDI)
	JZ(LabelRef("next"))
	Label("channel")
	step(0)
	ADDQ(Imm(4), RAX)
	ADDQ(U32(uint32(4*width)), RSI)
	DECQ(RDI)
	JNZ(LabelRef("channel"))

	Label("next")
	DECQ(taps)
	JNZ(LabelRef("tap"))

	Comment("Residual, ReLU, mask and store, all at the output's offsets.")
	MOVQ(a, RDI)
	offsets(outOff)
	base(argRes, "relu")
	each(func(i, j int) { VADDPS(row(RAX, i, j), acc(i, j), acc(i, j)) })

	Label("relu")
	zero := weight(0)
	v.zero(zero)
	MOVQ(arg(argFlags), RAX)
	TESTQ(U32(flagReLU), RAX)
	JZ(LabelRef("mask"))
	// The accumulator comes last: MAXPS returns its last operand when either is
	// NaN, and a NaN must survive.
	each(func(i, j int) { VMAXPS(acc(i, j), zero, acc(i, j)) })

	Label("mask")
	base(argMask, "store")
	const lessThan = 0x11 // ordered, quiet: NaN masks out
	each(func(i, j int) {
		if v.bytes == 64 {
			VCMPPS(Imm(lessThan), row(RAX, i, j), zero, K1)
			VMOVAPS_Z(acc(i, j), K1, acc(i, j))
			return
		}
		VCMPPS(Imm(lessThan), row(RAX, i, j), zero, spare(0))
		VANDPS(spare(0), acc(i, j), acc(i, j))
	})

	Label("store")
	MOVQ(arg(argOut), RAX)
	each(func(i, j int) { VMOVUPS(acc(i, j), row(RAX, i, j)) })
	ADDQ(Imm(uint64(8*rows)), inOff)
	ADDQ(Imm(uint64(8*rows)), outOff)
	DECQ(count)
	JNZ(LabelRef("tile"))
	VZEROUPPER()
	RET()
}

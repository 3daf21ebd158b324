package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of WinogradInput and WinogradOutput;
// winograd_test.go checks them.
const (
	winInIn       = 0
	winInOut      = 8
	winInRow      = 16
	winInPixel    = 24
	winInPlane    = 32
	winInChannels = 40

	winOutIn       = 0
	winOutOut      = 8
	winOutBias     = 16
	winOutRes      = 24
	winOutMask     = 32
	winOutRow      = 40
	winOutPixel    = 48
	winOutPlane    = 56
	winOutChannels = 64
	winOutRows     = 72
	winOutCols     = 80
	winOutFlags    = 88
)

// winogradInput writes the input transform. A row of the result needs two rows
// of the patch, so that four registers hold it between the two directions.
//
// Registers: RSI patch, RDI result, R8 row stride, R9 pixel stride, R10 plane
// stride, RCX channels left.
func winogradInput(v vector) {
	TEXT("winogradInput"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("winogradInput" + v.suffix + " is the input transform of F(2x2,3x3); see WinogradInput for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RAX)
	field := func(disp int, r GPPhysical) { MOVQ(Mem{Base: RAX, Disp: disp}, r) }
	field(winInIn, RSI)
	field(winInOut, RDI)
	field(winInRow, R8)
	field(winInPixel, R9)
	field(winInPlane, R10)
	field(winInChannels, RCX)
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
	ADDQ(U32(uint32(v.bytes)), RSI)
	ADDQ(U32(uint32(v.bytes)), RDI)
	SUBQ(U32(uint32(v.bytes/4)), RCX)
	JG(LabelRef("channels"))
	VZEROUPPER()
	RET()
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
	MOVQ(NewParamAddr("a", 0), RAX)
	field := func(disp int, r GPPhysical) { MOVQ(Mem{Base: RAX, Disp: disp}, r) }
	field(winOutIn, RSI)
	field(winOutOut, RDI)
	field(winOutRow, R8)
	field(winOutPixel, R9)
	field(winOutPlane, R10)
	field(winOutChannels, RCX)
	field(winOutBias, R12)
	field(winOutRes, R13)
	field(winOutMask, R14)
	field(winOutFlags, RBX)
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R11)
	zero := v.reg(15)
	v.zero(zero)

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
			TESTQ(U32(flagAccumulate), RBX)
			JZ(LabelRef(label("res")))
			VADDPS(Mem{Base: RDI, Index: RDX, Scale: 1}, y, y)
			Label(label("res"))
			TESTQ(R13, R13)
			JZ(LabelRef(label("relu")))
			VADDPS(Mem{Base: R13, Index: RDX, Scale: 1}, y, y)
			Label(label("relu"))
			TESTQ(U32(flagReLU), RBX)
			JZ(LabelRef(label("mask")))
			VMAXPS(y, zero, y)
			Label(label("mask"))
			TESTQ(R14, R14)
			JZ(LabelRef(label("store")))
			const lessThan = 0x11
			VCMPPS(Imm(lessThan), Mem{Base: R14, Index: RDX, Scale: 1}, zero, v.reg(9))
			VANDPS(v.reg(9), y, y)
			Label(label("store"))
			VMOVUPS(y, Mem{Base: RDI, Index: RDX, Scale: 1})
			Label(label("stored"))
		}
	}
	Label("next")
	ADDQ(U32(uint32(v.bytes)), RSI)
	ADDQ(U32(uint32(v.bytes)), RDI)
	Comment("Null pointers stay null.")
	for i, p := range []GPPhysical{R13, R14} {
		label := []string{"nores", "nomask"}[i]
		TESTQ(p, p)
		JZ(LabelRef(label))
		ADDQ(U32(uint32(v.bytes)), p)
		Label(label)
	}
	SUBQ(U32(uint32(v.bytes/4)), RCX)
	JG(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

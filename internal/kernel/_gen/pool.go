package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of PoolArgs; pool_test.go checks them.
const (
	poIn       = 0
	poOut      = 8
	poMask     = 16
	poChannels = 24
	poPixels   = 32
)

// pool writes the sum over pixels: two vectors of channels at a time, down all
// pixels.
//
// Registers: RDI arguments, RSI bytes from pixel to pixel, R14 byte offset of the
// channels; RAX In, RBX Mask, RCX pixels left, RDX Out.
func pool(v vector) {
	TEXT("pool"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("pool" + v.suffix + " sums activations over pixels; see PoolArgs for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	at := func(base GPPhysical, j int) Mem { return Mem{Base: base, Disp: j * v.bytes} }
	both := func(f func(j int)) { f(0); f(1) }
	sum := func(j int) VecPhysical { return v.reg(j) }
	in := func(j int) VecPhysical { return v.reg(2 + j) }
	open := func(j int) VecPhysical { return v.reg(4 + j) }
	zero := v.reg(6)
	v.zero(zero)
	MOVQ(arg(poChannels), RSI)
	SHLQ(Imm(2), RSI)
	XORQ(R14, R14)

	Label("channels")
	both(func(j int) { v.zero(sum(j)) })
	MOVQ(arg(poIn), RAX)
	ADDQ(R14, RAX)
	MOVQ(arg(poPixels), RCX)
	MOVQ(arg(poMask), RBX)
	TESTQ(RBX, RBX)
	JNZ(LabelRef("masked"))
	Label("pixel")
	both(func(j int) { VADDPS(at(RAX, j), sum(j), sum(j)) })
	ADDQ(RSI, RAX)
	DECQ(RCX)
	JNZ(LabelRef("pixel"))
	JMP(LabelRef("store"))

	Label("masked")
	ADDQ(R14, RBX)
	Label("pixelMasked")
	both(func(j int) { VMOVUPS(at(RAX, j), in(j)) })
	both(func(j int) { VADDPS(in(j), sum(j), sum(j)) })
	const lessThan = 0x11
	both(func(j int) { VCMPPS(Imm(lessThan), at(RBX, j), zero, open(j)) })
	both(func(j int) { VANDPS(open(j), in(j), in(j)) })
	both(func(j int) { VMOVUPS(in(j), at(RAX, j)) })
	ADDQ(RSI, RAX)
	ADDQ(RSI, RBX)
	DECQ(RCX)
	JNZ(LabelRef("pixelMasked"))

	Label("store")
	MOVQ(arg(poOut), RDX)
	ADDQ(R14, RDX)
	both(func(j int) { VADDPS(at(RDX, j), sum(j), sum(j)) })
	both(func(j int) { VMOVUPS(sum(j), at(RDX, j)) })
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, RSI)
	JL(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

// Byte offsets of the fields of MaxArgs; pool_test.go checks them.
const (
	mxIn       = 0
	mxOut      = 8
	mxRow      = 16
	mxChannels = 24
	mxRows     = 32
	mxPixels   = 40
)

// maximum writes the maximum over a window: two vectors of channels at a time.
//
// Registers: RDI arguments, RSI bytes from pixel to pixel, R14 byte offset of the
// channels; R8 In's row, R9 rows left, RAX In, RCX pixels left, RDX Out.
func maximum(v vector) {
	TEXT("maximum"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("maximum" + v.suffix + " is max pooling of one window; see MaxArgs for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	at := func(base GPPhysical, j int) Mem { return Mem{Base: base, Disp: j * v.bytes} }
	both := func(f func(j int)) { f(0); f(1) }
	most := func(j int) VecPhysical { return v.reg(j) }
	in := func(j int) VecPhysical { return v.reg(2 + j) }
	nan := func(j int) VecPhysical { return v.reg(4 + j) }
	isNaN := func(j int) VecPhysical { return v.reg(6 + j) }
	MOVQ(arg(mxChannels), RSI)
	SHLQ(Imm(2), RSI)
	XORQ(R14, R14)

	Label("channels")
	MOVQ(arg(mxIn), R8)
	ADDQ(R14, R8)
	both(func(j int) { VMOVUPS(at(R8, j), most(j)) })
	both(func(j int) { v.zero(nan(j)) })
	MOVQ(arg(mxRows), R9)
	Label("row")
	MOVQ(R8, RAX)
	MOVQ(arg(mxPixels), RCX)
	Label("pixel")
	both(func(j int) { VMOVUPS(at(RAX, j), in(j)) })
	Comment("MAXPS gives the value that is compared with if either is NaN: those are noted.")
	const unordered = 3
	both(func(j int) { VCMPPS(Imm(unordered), in(j), in(j), isNaN(j)) })
	both(func(j int) { VMAXPS(most(j), in(j), most(j)) })
	both(func(j int) { VORPS(isNaN(j), nan(j), nan(j)) })
	ADDQ(RSI, RAX)
	DECQ(RCX)
	JNZ(LabelRef("pixel"))
	ADDQ(arg(mxRow), R8)
	DECQ(R9)
	JNZ(LabelRef("row"))

	MOVQ(arg(mxOut), RDX)
	ADDQ(R14, RDX)
	both(func(j int) { VORPS(nan(j), most(j), most(j)) })
	both(func(j int) { VMOVUPS(most(j), at(RDX, j)) })
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, RSI)
	JL(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of GramArgs; gram_test.go checks them.
const (
	grIn       = 0
	grPower    = 8
	grOut      = 16
	grChannels = 24
	grPixels   = 32
)

// gramSums writes the row sums of a Gram matrix of powers: pixel by pixel, first the
// power and its sum, then the products with it, two vectors of channels at a time.
//
// Registers: RDI arguments, RSI bytes of a pixel, R14 byte offset of the channels;
// RAX In, RBX Power, RDX Out, RCX pixels left.
func gramSums(v vector) {
	TEXT("gramSums"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("gramSums" + v.suffix + " sums rows of Gram matrices of powers; see GramArgs for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	at := func(base GPPhysical, j int) Mem { return Mem{Base: base, Index: R14, Scale: 1, Disp: j * v.bytes} }
	both := func(f func(j int)) { f(0); f(1) }
	sums := []VecPhysical{Y0, Y1, Y2, Y3} // of four channels each
	power := func(j int) VecPhysical { return v.reg(4 + j) }
	halves := [][]VecPhysical{{X4, X6}, {X5, X7}} // the lower is part of power(j)
	wide := func(j int) VecPhysical { return v.reg(8 + j) }
	MOVQ(arg(grChannels), RSI)
	SHLQ(Imm(2), RSI)
	MOVQ(arg(grIn), RAX)
	MOVQ(arg(grPower), RBX)
	MOVQ(arg(grOut), RDX)
	MOVQ(arg(grPixels), RCX)

	Label("pixel")
	for _, s := range sums {
		v.zero(s)
	}
	XORQ(R14, R14)
	Label("sum")
	both(func(j int) { VMOVUPS(at(RBX, j), power(j)) })
	TESTQ(RAX, RAX)
	JZ(LabelRef("powered"))
	both(func(j int) { VMULPS(at(RAX, j), power(j), power(j)) })
	both(func(j int) { VMOVUPS(power(j), at(RBX, j)) })
	Label("powered")
	both(func(j int) { VEXTRACTF128(Imm(1), power(j), halves[j][1]) })
	both(func(j int) {
		for h, half := range halves[j] {
			VCVTPS2PD(half, wide(2*j+h))
		}
	})
	for i, s := range sums {
		VADDPD(wide(i), s, s)
	}
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, RSI)
	JL(LabelRef("sum"))
	VADDPD(Y1, Y0, Y0)
	VADDPD(Y3, Y2, Y2)
	VADDPD(Y2, Y0, Y0)
	VEXTRACTF128(Imm(1), Y0, X1)
	VADDPD(X1, X0, X0)
	VUNPCKHPD(X0, X0, X1)
	VADDSD(X1, X0, X0)
	VCVTSD2SS(X0, X0, X0)
	VBROADCASTSS(X0, Y0)
	XORQ(R14, R14)
	Label("product")
	both(func(j int) { VMOVUPS(at(RDX, j), power(j)) })
	both(func(j int) { VFMADD231PS(at(RBX, j), Y0, power(j)) })
	both(func(j int) { VMOVUPS(power(j), at(RDX, j)) })
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, RSI)
	JL(LabelRef("product"))
	TESTQ(RAX, RAX)
	JZ(LabelRef("next"))
	ADDQ(RSI, RAX)
	Label("next")
	ADDQ(RSI, RBX)
	DECQ(RCX)
	JNZ(LabelRef("pixel"))
	VZEROUPPER()
	RET()
}

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of PairArgs; pairs_test.go checks them.
const (
	paIn    = 0
	paOut   = 8
	paCount = 16
)

// pairUp writes the rounding of float32 to pairs of bfloat16, 32 values at a time.
//
// Registers: RDI arguments, RAX In, RDX Out, RCX values left.
func pairUp(v vector) {
	TEXT("pairUp"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("pairUp" + v.suffix + " rounds values to bfloat16; see PairArgs.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	MOVQ(Mem{Base: RDI, Disp: paIn}, RAX)
	MOVQ(Mem{Base: RDI, Disp: paOut}, RDX)
	MOVQ(Mem{Base: RDI, Disp: paCount}, RCX)
	low, high, both := Z0, Z1, Z2
	SUBQ(Imm(32), RCX)
	JL(LabelRef("rest"))

	Label("two")
	VMOVUPS(Mem{Base: RAX}, low)
	VMOVUPS(Mem{Base: RAX, Disp: 64}, high)
	evex(prefixF2, 0x72, low, high, both) // VCVTNE2PS2BF16
	VMOVUPS(both, Mem{Base: RDX})
	ADDQ(Imm(128), RAX)
	ADDQ(Imm(64), RDX)
	SUBQ(Imm(32), RCX)
	JGE(LabelRef("two"))

	Label("rest")
	CMPQ(RCX, I32(-16))
	JNE(LabelRef("done"))
	VMOVUPS(Mem{Base: RAX}, low)
	evex(prefixF2, 0x72, low, low, both)
	VMOVUPS(Y2, Mem{Base: RDX})

	Label("done")
	VZEROUPPER()
	RET()
}

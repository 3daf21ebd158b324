package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of DepthwiseArgs; depthwise_test.go checks them.
const (
	dwIn       = 0
	dwWeights  = 8
	dwOut      = 16
	dwBias     = 24
	dwTapOff   = 32
	dwTaps     = 40
	dwChannels = 48
	dwPixels   = 56
	dwInStep   = 64
	dwOutStep  = 72
	dwFlags    = 80
	dwCeiling  = 88

	flagClip = 4
)

// depthwise writes the depthwise convolution: two vectors of channels of four
// pixels at a time, so that weights are loaded once for four.
//
// Registers: RDI arguments, RBX input, R12 output, R8 and R9 one and three input
// steps, R10 and R11 the same of the output, R13 pixels left, R14 byte offset of
// the channels, R15 bytes of all channels; RAX input of the tap, RCX taps left,
// RDX weights, RSI tap table.
func depthwise(v vector) {
	TEXT("depthwise"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("depthwise" + v.suffix + " convolves every channel by itself; see DepthwiseArgs for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	MOVQ(arg(dwInStep), R8)
	LEAQ(Mem{Base: R8, Index: R8, Scale: 2}, R9)
	MOVQ(arg(dwOutStep), R10)
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R11)
	MOVQ(arg(dwChannels), R15)
	SHLQ(Imm(2), R15)
	XORQ(R14, R14)
	zero, ceiling := v.reg(14), v.reg(15)
	v.zero(zero)
	VBROADCASTSS(arg(dwCeiling), ceiling)

	pixel := func(base, step, step3 GPPhysical, p, j int) Mem {
		m := Mem{Base: base, Disp: j * v.bytes}
		switch p {
		case 1:
			m.Index, m.Scale = step, 1
		case 2:
			m.Index, m.Scale = step, 2
		case 3:
			m.Index, m.Scale = step3, 1
		}
		return m
	}
	acc := func(p, j int) VecPhysical { return v.reg(2*p + j) }
	weight := func(j int) VecPhysical { return v.reg(8 + j) }

	// group writes one group of pixels.
	group := func(pixels int) {
		label := func(name string) string { return fmt.Sprintf("%s%d", name, pixels) }
		each := func(f func(p, j int)) {
			for p := 0; p < pixels; p++ {
				for j := 0; j < 2; j++ {
					f(p, j)
				}
			}
		}
		in := func(p, j int) Mem { return pixel(RAX, R8, R9, p, j) }
		out := func(p, j int) Mem { return pixel(R12, R10, R11, p, j) }

		MOVQ(arg(dwFlags), RCX)
		TESTQ(U32(flagAccumulate), RCX)
		JZ(LabelRef(label("bias")))
		each(func(p, j int) { VMOVUPS(out(p, j), acc(p, j)) })
		JMP(LabelRef(label("start")))

		Label(label("bias"))
		MOVQ(arg(dwBias), RAX)
		TESTQ(RAX, RAX)
		JZ(LabelRef(label("zero")))
		ADDQ(R14, RAX)
		each(func(p, j int) { VMOVUPS(Mem{Base: RAX, Disp: j * v.bytes}, acc(p, j)) })
		JMP(LabelRef(label("start")))

		Label(label("zero"))
		each(func(p, j int) { v.zero(acc(p, j)) })

		Label(label("start"))
		MOVQ(arg(dwWeights), RDX)
		ADDQ(R14, RDX)
		MOVQ(arg(dwTapOff), RSI)
		MOVQ(arg(dwTaps), RCX)

		Label(label("tap"))
		MOVQ(Mem{Base: RSI}, RAX)
		ADDQ(RBX, RAX)
		for j := 0; j < 2; j++ {
			VMOVUPS(Mem{Base: RDX, Disp: j * v.bytes}, weight(j))
		}
		each(func(p, j int) { VFMADD231PS(in(p, j), weight(j), acc(p, j)) })
		ADDQ(Imm(8), RSI)
		ADDQ(R15, RDX)
		DECQ(RCX)
		JNZ(LabelRef(label("tap")))

		MOVQ(arg(dwFlags), RCX)
		TESTQ(U32(flagReLU), RCX)
		JZ(LabelRef(label("clip")))
		// The accumulator comes last: MAXPS returns its last operand when either is
		// NaN, and a NaN must survive. So for MINPS.
		each(func(p, j int) { VMAXPS(acc(p, j), zero, acc(p, j)) })
		Label(label("clip"))
		TESTQ(U32(flagClip), RCX)
		JZ(LabelRef(label("store")))
		each(func(p, j int) { VMINPS(acc(p, j), ceiling, acc(p, j)) })
		Label(label("store"))
		each(func(p, j int) { VMOVUPS(acc(p, j), out(p, j)) })
	}

	Label("channels")
	MOVQ(arg(dwIn), RBX)
	ADDQ(R14, RBX)
	MOVQ(arg(dwOut), R12)
	ADDQ(R14, R12)
	MOVQ(arg(dwPixels), R13)

	Label("four")
	CMPQ(R13, Imm(4))
	JL(LabelRef("one"))
	group(4)
	LEAQ(Mem{Base: RBX, Index: R8, Scale: 4}, RBX)
	LEAQ(Mem{Base: R12, Index: R10, Scale: 4}, R12)
	SUBQ(Imm(4), R13)
	JMP(LabelRef("four"))

	Label("one")
	TESTQ(R13, R13)
	JZ(LabelRef("next"))
	group(1)
	ADDQ(R8, RBX)
	ADDQ(R10, R12)
	DECQ(R13)
	JMP(LabelRef("one"))

	Label("next")
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, R15)
	JL(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

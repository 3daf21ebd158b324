package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of LanesArgs and WinogradFilters; layout_test.go checks
// them.
const (
	laIn    = 0
	laOut   = 8
	laScale = 16
	laStep  = 24
	laCount = 32

	wfIn    = 0
	wfOut   = 8
	wfStep  = 16
	wfPlane = 24
)

// lanes writes the transposition, four values of eight lanes at a time. The last four
// may be some that were written before.
//
// Registers: RSI In, RDI Out, R8 step, R9 three steps, RCX Count, RAX scale, RDX the
// first value, RBX its address, R10 that four lanes on, R11 of the result, R12 halves left.
func lanes() {
	TEXT("lanesAVX2", NOSPLIT, "func(a *byte)")
	Doc("lanesAVX2 turns rows of weights into lanes; see LanesArgs for the formula.")
	Pragma("noescape")
	load(map[int]GPPhysical{laIn: RSI, laOut: RDI, laStep: R8, laCount: RCX})
	MOVQ(Mem{Base: RAX, Disp: laScale}, RAX)
	LEAQ(Mem{Base: R8, Index: R8, Scale: 2}, R9)
	MOVQ(U32(2), R12)
	low, high := Y14, Y15
	row := []VecPhysical{Y0, Y1, Y2, Y3}
	rowX := []VecPhysical{X0, X1, X2, X3}
	pair := []VecPhysical{Y4, Y5, Y6, Y7}

	Label("half")
	TESTQ(RAX, RAX)
	JZ(LabelRef("unscaled"))
	VMOVUPD(Mem{Base: RAX}, low)
	VMOVUPD(Mem{Base: RAX, Disp: 32}, high)
	Label("unscaled")
	XORQ(RDX, RDX)

	Label("values")
	Comment("Lanes 0 to 3 in the lower halves, 4 to 7 in the upper ones.")
	LEAQ(Mem{Base: RSI, Index: RDX, Scale: 4}, RBX)
	LEAQ(Mem{Base: RBX, Index: R8, Scale: 4}, R10)
	at := func(base GPPhysical, lane int) Mem {
		switch lane {
		case 0:
			return Mem{Base: base}
		case 3:
			return Mem{Base: base, Index: R9, Scale: 1}
		}
		return Mem{Base: base, Index: R8, Scale: uint8(lane)}
	}
	for l := range row {
		VMOVUPS(at(RBX, l), rowX[l])
		VINSERTF128(Imm(1), at(R10, l), row[l], row[l])
	}
	VUNPCKLPS(row[1], row[0], pair[0])
	VUNPCKHPS(row[1], row[0], pair[1])
	VUNPCKLPS(row[3], row[2], pair[2])
	VUNPCKHPS(row[3], row[2], pair[3])
	VUNPCKLPD(pair[2], pair[0], row[0])
	VUNPCKHPD(pair[2], pair[0], row[1])
	VUNPCKLPD(pair[3], pair[1], row[2])
	VUNPCKHPD(pair[3], pair[1], row[3])
	TESTQ(RAX, RAX)
	JZ(LabelRef("store"))
	for l := range row {
		half := []VecPhysical{X4, X5, X6, X7}[l]
		wide := []VecPhysical{Y8, Y9, Y10, Y11}[l]
		wideX := []VecPhysical{X8, X9, X10, X11}[l]
		VEXTRACTF128(Imm(1), row[l], half)
		VCVTPS2PD(rowX[l], wide)
		VCVTPS2PD(half, pair[l])
		VMULPD(low, wide, wide)
		VMULPD(high, pair[l], pair[l])
		VCVTPD2PSY(wide, wideX)
		VCVTPD2PSY(pair[l], half)
		VINSERTF128(Imm(1), half, wide, row[l])
	}
	Label("store")
	MOVQ(RDX, R11)
	SHLQ(Imm(6), R11)
	ADDQ(RDI, R11)
	for l := range row {
		VMOVUPS(row[l], Mem{Base: R11, Disp: 64 * l})
	}
	ADDQ(Imm(4), RDX)
	CMPQ(RDX, RCX)
	JGE(LabelRef("done"))
	LEAQ(Mem{Base: RCX, Disp: -4}, RBX)
	CMPQ(RDX, RBX)
	CMOVQGT(RBX, RDX)
	JMP(LabelRef("values"))

	Label("done")
	LEAQ(Mem{Base: RSI, Index: R8, Scale: 8}, RSI)
	ADDQ(Imm(32), RDI)
	TESTQ(RAX, RAX)
	JZ(LabelRef("next"))
	ADDQ(Imm(64), RAX)
	Label("next")
	DECQ(R12)
	JNZ(LabelRef("half"))
	VZEROUPPER()
	RET()
}

// doubles are float64 in memory, broadcast when they are used.
func doubles(name string) func(float64) Mem {
	offsets := map[float64]int{}
	data := GLOBL(name, RODATA|NOPTR)
	return func(f float64) Mem {
		at, ok := offsets[f]
		if !ok {
			at = 8 * len(offsets)
			offsets[f] = at
			DATA(at, F64(f))
		}
		return data.Offset(at)
	}
}

// winogradFilters writes the filter transform of F(m x m, 3x3), four lanes at a time:
// columns first, into the stack, then rows. Nothing is fused: the result is that of
// Winograd.Filter.
//
// Registers: RSI In, RDI Out, R8 step, R9 two steps, R10 plane stride, RCX lanes left,
// RBX a row of planes, RDX a plane.
func winogradFilters(m int, constant func(float64) Mem) {
	n := m + 2
	name := map[int]string{2: "winogradFiltersAVX2", 4: "winograd4FiltersAVX2"}[m]
	TEXT(name, 0, "func(a *byte)")
	Doc(fmt.Sprintf("%s is the filter transform of F(%dx%d,3x3); see WinogradFilters.", name, m, m))
	Pragma("noescape")
	half := AllocLocal(3 * n * 32)
	load(map[int]GPPhysical{wfIn: RSI, wfOut: RDI, wfStep: R8, wfPlane: R10})
	MOVQ(U32(4), RCX)
	a, b, c := Y0, Y1, Y2
	var side func(out func(i int, r VecPhysical))
	if m == 2 {
		VBROADCASTSD(constant(0.5), Y15)
		side = func(out func(i int, r VecPhysical)) {
			Comment("a, ((a+b)+c)/2, ((a-b)+c)/2, c")
			out(0, a)
			VADDPD(b, a, Y3)
			VADDPD(c, Y3, Y3)
			VMULPD(Y15, Y3, Y3)
			out(1, Y3)
			VSUBPD(b, a, Y4)
			VADDPD(c, Y4, Y4)
			VMULPD(Y15, Y4, Y4)
			out(2, Y4)
			out(3, c)
		}
	} else {
		const (
			squareA = pointA * pointA
			squareB = pointB * pointB
			n0      = 1 / (squareA * squareB)
			na      = 1 / (2 * squareA * (squareA - squareB))
			nb      = 1 / (2 * squareB * (squareB - squareA))
		)
		for _, r := range []struct {
			value float64
			reg   VecPhysical
		}{
			{n0, Y15}, {squareA, Y14}, {na, Y13}, {pointA * na, Y12},
			{squareB, Y11}, {nb, Y10}, {pointB * nb, Y9},
		} {
			VBROADCASTSD(constant(r.value), r.reg)
		}
		side = func(out func(i int, r VecPhysical)) {
			Comment("a n0")
			VMULPD(Y15, a, Y3)
			out(0, Y3)
			for i, r := range []struct{ square, n, pn VecPhysical }{{Y14, Y13, Y12}, {Y11, Y10, Y9}} {
				Comment("(a + square c) n +- point n b")
				VMULPD(r.square, c, Y4)
				VADDPD(Y4, a, Y4)
				VMULPD(r.n, Y4, Y4)
				VMULPD(r.pn, b, Y5)
				VADDPD(Y5, Y4, Y6)
				out(1+2*i, Y6)
				VSUBPD(Y5, Y4, Y7)
				out(2+2*i, Y7)
			}
			out(5, c)
		}
	}
	t := func(i, x int) Mem { return half.Offset(32 * (3*i + x)) }

	Label("lanes")
	MOVQ(RSI, RDX)
	for x := range 3 {
		LEAQ(Mem{Base: RDX, Index: R8, Scale: 1}, RBX)
		VCVTPS2PD(Mem{Base: RDX}, a)
		LEAQ(Mem{Base: RBX, Index: R8, Scale: 2}, R9)
		VCVTPS2PD(Mem{Base: R9}, b)
		LEAQ(Mem{Base: R9, Index: R8, Scale: 2}, R9)
		VCVTPS2PD(Mem{Base: R9, Index: R8, Scale: 1}, c)
		side(func(i int, r VecPhysical) { VMOVUPD(r, t(i, x)) })
		MOVQ(RBX, RDX)
	}
	MOVQ(RDI, RDX)
	for i := range n {
		VMOVUPD(t(i, 0), a)
		VMOVUPD(t(i, 1), b)
		VMOVUPD(t(i, 2), c)
		side(func(_ int, r VecPhysical) {
			VCVTPD2PSY(r, X8)
			VMOVUPS(X8, Mem{Base: RDX})
			ADDQ(R10, RDX)
		})
	}
	ADDQ(Imm(16), RSI)
	ADDQ(Imm(16), RDI)
	DECQ(RCX)
	JNZ(LabelRef("lanes"))
	VZEROUPPER()
	RET()
}

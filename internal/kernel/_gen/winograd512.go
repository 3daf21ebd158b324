package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Between the two directions of a transform of F(4x4,3x3) are 24 vectors or more.
// AVX-512's 32 registers hold them, where winograd4Input and winograd4Output go by
// the stack: half the loads and stores, of which the transforms consist. The
// arithmetic is theirs, in their order.

// winograd4Input512 writes the input transform of F(4x4,3x3). Rows 1 to 4 of the
// half-transformed patch come from the same four rows and stay in registers 0 to
// 23; rows 0 and 5 follow.
//
// Registers: RSI patch, RDI result, R8 row stride, R9 pixel stride, R10 plane
// stride, RCX channels left, R11 a column, R12 and R13 five and three rows, R14
// and RDX three and five planes, RBX the result's row.
func winograd4Input512(constant func(float32) Mem) {
	v := vector{suffix: "AVX512", bytes: 64}
	TEXT("winograd4Input"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("winograd4Input" + v.suffix + " is the input transform of F(4x4,3x3); see WinogradInput for the formula.")
	Pragma("noescape")
	t := v.reg
	aa, bb, a, b := t(28), t(29), t(30), t(31)
	VBROADCASTSS(constant(pointA*pointA), aa)
	VBROADCASTSS(constant(pointB*pointB), bb)
	VBROADCASTSS(constant(pointA), a)
	VBROADCASTSS(constant(pointB), b)
	loop := winogradInputArgs()
	LEAQ(Mem{Base: R8, Index: R8, Scale: 4}, R12)
	LEAQ(Mem{Base: R8, Index: R8, Scale: 2}, R13)
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R14)
	LEAQ(Mem{Base: R10, Index: R10, Scale: 4}, RDX)
	aabb, sum := constant(pointA*pointA*pointB*pointB), constant(pointA*pointA+pointB*pointB)
	row := func(y int) Mem {
		return []Mem{
			{Base: R11}, {Base: R11, Index: R8, Scale: 1}, {Base: R11, Index: R8, Scale: 2},
			{Base: R11, Index: R13, Scale: 1}, {Base: R11, Index: R8, Scale: 4}, {Base: R11, Index: R12, Scale: 1},
		}[y]
	}
	// store writes a row of the result from the six registers at d, which it spends, with
	// spare ones at 24 to 26.
	store := func(i, d int) {
		at := []Mem{
			{Base: RBX}, {Base: RBX, Index: R10, Scale: 1}, {Base: RBX, Index: R10, Scale: 2},
			{Base: RBX, Index: R14, Scale: 1}, {Base: RBX, Index: R10, Scale: 4}, {Base: RBX, Index: RDX, Scale: 1},
		}
		Comment(fmt.Sprintf("Row %d.", i))
		VMOVAPS(t(d+4), t(24))
		VFNMADD231PS_BCST(sum, t(d+2), t(24))
		VFMADD231PS_BCST(aabb, t(d), t(24))
		VMOVUPS(t(24), at[0])
		VFNMADD231PS_BCST(sum, t(d+3), t(d+5))
		VFMADD231PS_BCST(aabb, t(d+1), t(d+5))
		VMOVUPS(t(d+5), at[5])
		for j, p := range []struct{ square, point VecPhysical }{{bb, a}, {aa, b}} {
			VMOVAPS(t(d+4), t(24))
			VFNMADD231PS(p.square, t(d+2), t(24))
			VMOVAPS(t(d+3), t(25))
			VFNMADD231PS(p.square, t(d+1), t(25))
			VMOVAPS(t(24), t(26))
			VFMADD231PS(p.point, t(25), t(24))
			VFNMADD231PS(p.point, t(25), t(26))
			VMOVUPS(t(24), at[1+2*j])
			VMOVUPS(t(26), at[2+2*j])
		}
	}

	Label("channels")
	MOVQ(RSI, R11)
	Comment("Columns, rows 1 to 4: (d4 - b^2 d2) +- a (d3 - b^2 d1), (d4 - a^2 d2) +- b (d3 - a^2 d1).")
	for x := 0; x < 6; x++ {
		one, two, three, four := t(x), t(6+x), t(12+x), t(18+x)
		VMOVUPS(row(1), t(24))
		VMOVUPS(row(2), t(25))
		VMOVUPS(row(3), t(26))
		VMOVUPS(row(4), t(27))
		VMOVAPS(t(27), one)
		VFNMADD231PS(bb, t(25), one)
		VMOVAPS(t(26), four)
		VFNMADD231PS(bb, t(24), four)
		VMOVAPS(one, two)
		VFMADD231PS(a, four, one)
		VFNMADD231PS(a, four, two)
		VFNMADD231PS(aa, t(25), t(27))
		VFNMADD231PS(aa, t(24), t(26))
		VMOVAPS(t(27), three)
		VFMADD231PS(b, t(26), three)
		VMOVAPS(t(27), four)
		VFNMADD231PS(b, t(26), four)
		if x < 5 {
			ADDQ(R9, R11)
		}
	}
	MOVQ(RDI, RBX)
	for i := 1; i <= 4; i++ {
		LEAQ(Mem{Base: RBX, Index: R14, Scale: 2}, RBX)
		store(i, 6*(i-1))
	}
	Comment("Columns, rows 0 and 5: (ab)^2 d0 - (a^2+b^2) d2 + d4, (ab)^2 d1 - (a^2+b^2) d3 + d5.")
	VBROADCASTSS(aabb, t(12))
	VBROADCASTSS(sum, t(13))
	MOVQ(RSI, R11)
	for x := 0; x < 6; x++ {
		for i := 0; i < 2; i++ {
			r := t(6*i + x)
			VMOVUPS(row(4+i), r)
			VFNMADD231PS(row(2+i), t(13), r)
			VFMADD231PS(row(i), t(12), r)
		}
		if x < 5 {
			ADDQ(R9, R11)
		}
	}
	LEAQ(Mem{Base: RBX, Index: R14, Scale: 2}, RBX)
	store(5, 6)
	MOVQ(RDI, RBX)
	store(0, 0)
	winogradInputNext(v, loop)
}

// winograd4Output512 writes the output transform of F(4x4,3x3) with the epilogue
// of a tile; the half-transformed patch is in registers 0 to 23, by columns.
//
// Registers as in winograd4Output.
func winograd4Output512(constant func(float32) Mem) {
	v := vector{suffix: "AVX512", bytes: 64}
	TEXT("winograd4Output"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("winograd4Output" + v.suffix + " is the output transform of F(4x4,3x3); see WinogradOutput for the formula.")
	Pragma("noescape")
	s := v.reg
	p, r, q, d := s(24), s(25), s(26), s(27)
	a, b, aa, bb := s(28), s(29), s(30), s(31)
	VBROADCASTSS(constant(pointA), a)
	VBROADCASTSS(constant(pointB), b)
	VBROADCASTSS(constant(pointA*pointA), aa)
	VBROADCASTSS(constant(pointB*pointB), bb)
	loop := winogradOutputArgs()
	aaa, bbb := constant(pointA*pointA*pointA), constant(pointB*pointB*pointB)
	// ends makes the four results of a side: first and last hold m0 and m5.
	ends := func(first, second, third, last VecPhysical) {
		VADDPS(p, first, first)
		VADDPS(q, first, first)
		VMULPS(a, r, second)
		VFMADD231PS(b, d, second)
		VMULPS(aa, p, third)
		VFMADD231PS(bb, q, third)
		VFMADD231PS_BCST(aaa, r, last)
		VFMADD231PS_BCST(bbb, d, last)
	}

	Label("channels")
	Comment("R11: six planes.")
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R11)
	ADDQ(R11, R11)
	MOVQ(RSI, RDX)
	for x := 0; x < 6; x++ {
		Comment(fmt.Sprintf("Column %d.", x))
		first, second, third, last := s(4*x), s(4*x+1), s(4*x+2), s(4*x+3)
		MOVQ(RDX, R15)
		VMOVUPS(Mem{Base: R15}, first)
		VMOVUPS(Mem{Base: R15, Index: R11, Scale: 1}, p)
		LEAQ(Mem{Base: R15, Index: R11, Scale: 2}, R15)
		VSUBPS(Mem{Base: R15}, p, r)
		VADDPS(Mem{Base: R15}, p, p)
		VMOVUPS(Mem{Base: R15, Index: R11, Scale: 1}, q)
		LEAQ(Mem{Base: R15, Index: R11, Scale: 2}, R15)
		VSUBPS(Mem{Base: R15}, q, d)
		VADDPS(Mem{Base: R15}, q, q)
		VMOVUPS(Mem{Base: R15, Index: R11, Scale: 1}, last)
		ends(first, second, third, last)
		if x < 5 {
			ADDQ(R10, RDX)
		}
	}
	Comment("R11: the row's offset.")
	XORQ(R11, R11)
	for row := 0; row < 4; row++ {
		rowEnd := fmt.Sprintf("row%d", row)
		if row > 0 {
			CMPQ(Mem{Base: RAX, Disp: winOutRows}, Imm(uint64(row)))
			JLE(LabelRef("done"))
			ADDQ(R8, R11)
		}
		m := func(x int) VecPhysical { return s(4*x + row) }
		VSUBPS(m(2), m(1), r)
		VADDPS(m(2), m(1), p)
		VSUBPS(m(4), m(3), d)
		VADDPS(m(4), m(3), q)
		ends(m(0), m(1), m(2), m(5))
		zero, bias := m(3), m(4)
		v.zero(zero)
		v.zero(bias)
		TESTQ(R12, R12)
		JZ(LabelRef(fmt.Sprintf("unbiased%d", row)))
		VMOVUPS(Mem{Base: R12}, bias)
		Label(fmt.Sprintf("unbiased%d", row))
		MOVQ(R11, RDX)
		for col, y := range []VecPhysical{m(0), m(1), m(2), m(5)} {
			if col > 0 {
				CMPQ(Mem{Base: RAX, Disp: winOutCols}, Imm(uint64(col)))
				JLE(LabelRef(rowEnd))
				ADDQ(R9, RDX)
			}
			VADDPS(bias, y, y)
			winogradPixel(v, y, zero, p, func(what string) string { return fmt.Sprintf("%s%d%d", what, row, col) })
		}
		Label(rowEnd)
	}
	Label("done")
	TESTQ(R12, R12)
	JZ(LabelRef("next"))
	ADDQ(U32(uint32(v.bytes)), R12)
	winogradNext(v, loop)
}

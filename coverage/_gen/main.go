// Command gen writes the assembly of package coverage. Run it from coverage by
// `go generate`.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of slotArgs; slots_test.go checks them.
const (
	argDst    = 0
	argZ      = 8
	argG      = 16
	argGroups = 24
	argCells  = 32
	argKeys   = 40
	argLo     = 48
	argLast   = 52
	argHalf   = 56
	argShift  = 60
	argStride = 64
)

func main() {
	ConstraintExpr("!purego")
	slots("slotsOfProductsAVX2", true)
	slots("slotsOfValuesAVX2", false)
	Generate()
}

// slots writes the kernel for eight arguments at a time: z*g, or z alone.
//
// The two gathers bound its speed, so all else only has to stay out of their way.
func slots(name string, product bool) {
	TEXT(name, NOSPLIT, "func(a *byte)")
	Pragma("noescape")
	a := Load(Param("a"), RDI)
	arg := func(disp int) Mem { return Mem{Base: a, Disp: disp} }
	dst, z, g, groups, cells, keys := R8, R9, R10, R11, R12, R13
	MOVQ(arg(argDst), dst)
	MOVQ(arg(argZ), z)
	if product {
		MOVQ(arg(argG), g)
	}
	MOVQ(arg(argGroups), groups)
	MOVQ(arg(argCells), cells)
	MOVQ(arg(argKeys), keys)

	zero, lo, last, half, pos, step, magnitude, low16, shift := Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, X12
	VPXOR(zero, zero, zero)
	VPBROADCASTD(arg(argLo), lo)
	VPBROADCASTD(arg(argLast), last)
	VPBROADCASTD(arg(argHalf), half)
	VMOVD(arg(argShift), shift)
	Comment("Every lane set, less a bit or 16: the masks.")
	VPCMPEQD(magnitude, magnitude, magnitude)
	VPSRLD(Imm(16), magnitude, low16)
	VPSRLD(Imm(1), magnitude, magnitude)
	Comment("pos = lane*stride + 1")
	VPBROADCASTD(arg(argStride), step)
	lanes := GLOBL(name+"Lanes", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(i))
	}
	VPMULLD(lanes, step, pos)
	VPSLLD(Imm(3), step, step)
	VPCMPEQD(Y0, Y0, Y0)
	VPSUBD(Y0, pos, pos)

	Label("group")
	x, sign, cell, slot, th, mask := Y0, Y1, Y2, Y3, Y13, Y14
	VMOVUPS(Mem{Base: z}, x)
	if product {
		VMULPS(Mem{Base: g}, x, x)
	}
	VPSRAD(Imm(31), x, sign)
	Comment("cell = clamp(magnitude >> shift - lo, 0, last) + half if negative")
	VPAND(magnitude, x, cell)
	VPSRLD(shift, cell, cell)
	VPSUBD(lo, cell, cell)
	VPMAXSD(zero, cell, cell)
	VPMINSD(last, cell, cell)
	VPAND(half, sign, Y15)
	VPADDD(Y15, cell, cell)
	Comment("slot of the cell's smallest argument")
	VPCMPEQD(mask, mask, mask)
	VPGATHERDD(mask, Mem{Base: cells, Index: cell, Scale: 2}, slot)
	VPAND(low16, slot, slot)
	Comment("the cell's threshold, if it has one, else the next")
	VPCMPEQD(mask, mask, mask)
	VPGATHERDD(mask, Mem{Base: keys, Index: slot, Scale: 4}, th)
	Comment("key of the argument")
	VPSRLD(Imm(1), sign, sign)
	VPXOR(sign, x, x)
	Comment("-1 where the threshold is above the key, against the +1 in pos")
	VPCMPGTD(x, th, th)
	VPADDD(pos, slot, slot)
	VPADDD(th, slot, slot)
	VMOVDQU(slot, Mem{Base: dst})
	VPADDD(step, pos, pos)
	ADDQ(Imm(32), z)
	if product {
		ADDQ(Imm(32), g)
	}
	ADDQ(Imm(32), dst)
	DECQ(groups)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

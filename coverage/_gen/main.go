// Command gen writes the assembly of package coverage. Run it from coverage by
// `go generate`.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of binArgs; bins_amd64_test.go checks them.
const (
	argX      = 0
	argY      = 8
	argGroups = 16
	argCells  = 24
	argKeys   = 32
	argLo     = 40
	argLast   = 44
	argHalf   = 48
	argShift  = 52
	argTable  = 56
	argStride = 64
	argAhead  = 72
	argSum    = 80
)

func main() {
	ConstraintExpr("!purego")
	for _, product := range []bool{true, false} {
		bins("count", product, 32)
		bins("slots", product, 0)
		for _, bits := range []int{8, 16, 32} {
			bins(fmt.Sprintf("sum%d", bits), product, bits)
		}
	}
	for _, bits := range []int{0, 8, 16, 32} {
		tally(bits)
	}
	Generate()
}

// Byte offsets of the fields of tallyArgs; bins_amd64_test.go checks them.
const (
	tallySlots  = 0
	tallyRows   = 8
	tallyTable  = 16
	tallyStride = 24
	tallyNext   = 32
	tallySums   = 40
)

// tally writes the kernel that counts slots of eight neurons, whose histograms begin at
// R8 to R15, or with bits above 0 the one that adds up the entries in tables of so many
// bits. Meanwhile it fetches those that come next: what they cost is waiting for memory.
func tally(bits int) {
	name := "tallyAVX2"
	if bits > 0 {
		name = fmt.Sprintf("tallySum%dAVX2", bits)
	}
	TEXT(name, NOSPLIT, "func(a *byte)")
	var sums Mem
	if bits > 0 {
		sums = AllocLocal(8)
	}
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	neurons := []GPPhysical{R8, R9, R10, R11, R12, R13, R14, R15}
	MOVQ(arg(tallyTable), R8)
	for i := 1; i < len(neurons); i++ {
		MOVQ(neurons[i-1], neurons[i])
		ADDQ(arg(tallyStride), neurons[i])
	}
	MOVQ(arg(tallySlots), RSI)
	MOVQ(arg(tallyRows), RCX)
	if bits > 0 {
		MOVQ(arg(tallySums), RAX)
		MOVQ(RAX, sums)
	}
	MOVQ(arg(tallyNext), RDI)
	Label("row")
	PREFETCHT1(Mem{Base: RDI})
	PREFETCHT1(Mem{Base: RDI, Disp: 64})
	ADDQ(U32(128), RDI)
	if bits == 0 {
		slot := []GPPhysical{RAX, RBX, RDX}
		for i, n := range neurons {
			MOVWLZX(Mem{Base: RSI, Disp: 2 * i}, slot[i%3].As32())
			INCL(Mem{Base: n, Index: slot[i%3], Scale: 4})
		}
	} else {
		sum, slot, value := RAX, RBX, RDX
		XORL(EAX, EAX)
		for i, n := range neurons {
			MOVWLZX(Mem{Base: RSI, Disp: 2 * i}, slot.As32())
			switch entry := (Mem{Base: n, Index: slot, Scale: uint8(bits / 8)}); bits {
			case 8:
				MOVBLZX(entry, value.As32())
			case 16:
				MOVWLZX(entry, value.As32())
			default:
				MOVL(entry, value.As32())
			}
			ADDQ(value, sum)
		}
		MOVQ(sums, RBX)
		ADDQ(sum, Mem{Base: RBX})
		ADDQ(Imm(8), sums)
	}
	ADDQ(Imm(16), RSI)
	DECQ(RCX)
	JNZ(LabelRef("row"))
	RET()
}

// bins writes a kernel for eight arguments at a time: x*y, or x alone. Vector
// instructions find cells and keys and leave them on the stack; the rest is
// scalar, as three loads that depend on each other cost less one by one than as
// gathers on the machines this was measured on.
func bins(kind string, product bool, bits int) {
	name := kind + "ValuesAVX2"
	if product {
		name = kind + "ProductsAVX2"
	}
	TEXT(name, NOSPLIT, "func(a *byte)")
	cellOf, keyOf := AllocLocal(32), AllocLocal(32)
	args := NewParamAddr("a", 0)
	MOVQ(args, RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	px, py, groups, cells, keys, table, stride, sum := R8, R9, R10, R11, R12, R13, R14, R15
	MOVQ(arg(argX), px)
	if product {
		MOVQ(arg(argY), py)
	}
	MOVQ(arg(argGroups), groups)
	MOVQ(arg(argCells), cells)
	MOVQ(arg(argKeys), keys)
	MOVQ(arg(argTable), table)
	MOVQ(arg(argStride), stride)
	ahead := RSI
	MOVQ(arg(argAhead), ahead)
	// Slots of a group are written side by side, stride is from group to group.
	counting, slots := kind == "count", kind == "slots"
	summing := !counting && !slots
	if summing {
		XORL(sum.As32(), sum.As32())
	}

	x, sign, cell, zero, lo, last, half, magnitude, signBit := Y0, Y1, Y2, Y4, Y5, Y6, Y7, Y8, Y9
	shift := X10
	VPXOR(zero, zero, zero)
	VPBROADCASTD(arg(argLo), lo)
	VPBROADCASTD(arg(argLast), last)
	VPBROADCASTD(arg(argHalf), half)
	VMOVD(arg(argShift), shift)
	VPCMPEQD(signBit, signBit, signBit)
	VPSRLD(Imm(1), signBit, magnitude)
	VPSLLD(Imm(31), signBit, signBit)

	Label("group")
	VMOVUPS(Mem{Base: px}, x)
	if product {
		VMULPS(Mem{Base: py}, x, x)
	}
	PREFETCHT0(Mem{Base: px, Index: ahead, Scale: 1})
	if product {
		PREFETCHT0(Mem{Base: py, Index: ahead, Scale: 1})
	}
	VPSRAD(Imm(31), x, sign)
	Comment("cell = clamp(magnitude >> shift - lo, 0, last) + (half if negative)")
	VPAND(magnitude, x, cell)
	VPSRLD(shift, cell, cell)
	VPSUBD(lo, cell, cell)
	VPMAXSD(zero, cell, cell)
	VPMINSD(last, cell, cell)
	VPAND(half, sign, Y3)
	VPADDD(Y3, cell, cell)
	VMOVDQU(cell, cellOf)
	Comment("key = bits ^ (sign | sign bit), ordered as an unsigned number")
	VPOR(signBit, sign, sign)
	VPXOR(sign, x, x)
	VMOVDQU(x, keyOf)
	for i := range 8 {
		if i == 0 {
			Comment("slot = cells[cell]; slot++ unless key < keys[slot]")
		}
		MOVL(cellOf.Offset(4*i), EAX)
		MOVWLZX(Mem{Base: cells, Index: RAX, Scale: 2}, EBX)
		MOVL(keyOf.Offset(4*i), ECX)
		CMPL(ECX, Mem{Base: keys, Index: RBX, Scale: 4})
		SBBL(I8(-1), EBX)
		if slots {
			MOVW(BX, Mem{Base: table, Disp: 2 * i})
			continue
		}
		switch entry := (Mem{Base: table, Index: RBX, Scale: uint8(bits / 8)}); {
		case counting:
			INCL(entry)
		case bits == 8:
			MOVBLZX(entry, EDX)
		case bits == 16:
			MOVWLZX(entry, EDX)
		default:
			MOVL(entry, EDX)
		}
		if summing {
			ADDQ(RDX, sum)
		}
		ADDQ(stride, table)
	}
	if slots {
		ADDQ(stride, table)
	}
	ADDQ(Imm(32), px)
	if product {
		ADDQ(Imm(32), py)
	}
	DECQ(groups)
	JNZ(LabelRef("group"))
	if summing {
		MOVQ(sum, arg(argSum))
	}
	VZEROUPPER()
	RET()
}

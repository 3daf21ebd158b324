package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of ProductArgs; product_test.go checks them.
const (
	productIn       = 0
	productWeights  = 8
	productOut      = 16
	productInPlane  = 24
	productOutPlane = 32
	productBlock    = 40
	productDepth    = 48
	productGroups   = 56
	productPanels   = 64
	productPlanes   = 72
	productRest     = 80
)

// restRows are the rows that a product's kernel can do after its groups.
const restRows = 4

// productLines is how many lines of weights are asked for every four channels, as tile does: a block has
// few rows, so that three groups' time must do.
const productLines = 6

// product writes a kernel for the matrix products of planes, of rows by n vectors of channels at
// a time. All that it reads lies in a row, so that what tile looks up is an immediate here.
//
// Registers: RAX and RSI the input's and the weights' next 16 channels, RDI how many times 16 channels are
// left; R8 and R9 the rows' input and output, RCX how many times rows are left; R12 the panel's
// weights, R15 its output, RDX panels left; R13 and R14 the plane's input and output, RBX planes
// left; R10 and R11 one and three blocks; RBP the weights that are asked for.
func product(v vector, n, rows int) {
	width := n * v.bytes / 4
	name := fmt.Sprintf("product%dx%d%s", rows, width, v.suffix)
	TEXT(name, NOSPLIT, "func(a *byte)")
	Doc(fmt.Sprintf("%s is Product for %d output channels; see ProductArgs for the formula.", name, width))
	Pragma("noescape")
	const lanes = 16
	fetch := v.bytes == 64 && n == 4
	acc := func(i, j int) VecPhysical { return v.reg(i*n + j) }
	weight := func(j int) VecPhysical { return v.reg(rows*n + j) }
	spare := func(k int) VecPhysical { return v.reg(rows*n + n + k) }
	out := func(i, j int) Mem {
		at := j * v.bytes
		m := []Mem{
			{Base: R9}, {Base: R9, Index: R10, Scale: 1}, {Base: R9, Index: R10, Scale: 2}, {Base: R9, Index: R11, Scale: 1},
		}[at/(4*lanes)]
		m.Disp = 4*lanes*i + at%(4*lanes)
		return m
	}
	load(map[int]GPPhysical{
		productIn: R13, productWeights: R12, productOut: R14, productBlock: R10, productPlanes: RBX,
	})
	LEAQ(Mem{Base: R10, Index: R10, Scale: 2}, R11)
	var size, last, end Mem // of a panel's weights; of what may be asked for; of all weights
	if fetch {
		local := AllocLocal(24)
		size, last, end = local, local.Offset(8), local.Offset(16)
		MOVQ(Mem{Base: RAX, Disp: productDepth}, RDI)
		IMUL3Q(U32(uint32(4*lanes*width)), RDI, RDI)
		MOVQ(RDI, size)
		IMULQ(Mem{Base: RAX, Disp: productPanels}, RDI)
		IMULQ(RBX, RDI)
		ADDQ(R12, RDI)
		MOVQ(RDI, end)
		MOVQ(R12, RBP)
	}

	// sums writes the products of so many rows, at R8, to R9; RSI is then behind the panel's weights.
	sums := func(rows int, name string) {
		MOVQ(R8, RAX)
		MOVQ(R12, RSI)
		MOVQ(NewParamAddr("a", 0), RDI)
		MOVQ(Mem{Base: RDI, Disp: productDepth}, RDI)
		for i := 0; i < rows; i++ {
			for j := 0; j < n; j++ {
				v.zero(acc(i, j))
			}
		}
		Label("channels" + name)
		for k := 0; k < lanes; k++ {
			for j := 0; j < n; j++ {
				VMOVUPS(Mem{Base: RSI, Disp: k*width*4 + j*v.bytes}, weight(j))
			}
			for i := 0; i < rows; i++ {
				b := spare(i % 2)
				VBROADCASTSS(Mem{Base: RAX, Disp: 4 * (lanes*i + k)}, b)
				for j := 0; j < n; j++ {
					v.multiplyAdd(weight(j), b, acc(i, j))
				}
			}
			if fetch && k%4 == 3 {
				fetched := fmt.Sprintf("fetched%s%d", name, k)
				CMPQ(RBP, last)
				JCC(LabelRef(fetched))
				for l := 0; l < productLines; l++ {
					PREFETCHT1(Mem{Base: RBP, Disp: 64 * l})
				}
				ADDQ(U32(64*productLines), RBP)
				Label(fetched)
			}
		}
		ADDQ(R10, RAX)
		ADDQ(U32(uint32(4*lanes*width)), RSI)
		DECQ(RDI)
		JNZ(LabelRef("channels" + name))
		for i := 0; i < rows; i++ {
			for j := 0; j < n; j++ {
				VMOVUPS(acc(i, j), out(i, j))
			}
		}
	}

	Label("plane")
	MOVQ(R14, R15)
	MOVQ(NewParamAddr("a", 0), RDI)
	MOVQ(Mem{Base: RDI, Disp: productPanels}, RDX)
	Label("panel")
	if fetch {
		Comment("From the next panel on, or where it has come to, to the end of the panel after that.")
		MOVQ(R12, RDI)
		ADDQ(size, RDI)
		CMPQ(RBP, RDI)
		CMOVQCS(RDI, RBP)
		ADDQ(size, RDI)
		CMPQ(RDI, end)
		CMOVQHI(end, RDI)
		MOVQ(RDI, last)
	}
	MOVQ(R13, R8)
	MOVQ(R15, R9)
	MOVQ(NewParamAddr("a", 0), RDI)
	MOVQ(Mem{Base: RDI, Disp: productGroups}, RCX)
	TESTQ(RCX, RCX)
	JZ(LabelRef("rest"))
	Label("rows")
	sums(rows, "")
	ADDQ(U32(uint32(4*lanes*rows)), R8)
	ADDQ(U32(uint32(4*lanes*rows)), R9)
	DECQ(RCX)
	JNZ(LabelRef("rows"))

	Label("rest")
	MOVQ(NewParamAddr("a", 0), RDI)
	CMPQ(Mem{Base: RDI, Disp: productRest}, Imm(0))
	JE(LabelRef("next"))
	sums(restRows, "rest")
	Label("next")
	MOVQ(RSI, R12)
	LEAQ(Mem{Base: R15, Index: R10, Scale: uint8(width / lanes)}, R15)
	DECQ(RDX)
	JNZ(LabelRef("panel"))
	MOVQ(NewParamAddr("a", 0), RDI)
	ADDQ(Mem{Base: RDI, Disp: productInPlane}, R13)
	ADDQ(Mem{Base: RDI, Disp: productOutPlane}, R14)
	DECQ(RBX)
	JNZ(LabelRef("plane"))
	VZEROUPPER()
	RET()
}

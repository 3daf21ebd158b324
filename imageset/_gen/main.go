// Command gen writes the assembly of package imageset. Run it from imageset by
// `go generate`.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!purego")
	inverseDCT()
	ycbcr()
	horizontal()
	vertical()
	Generate()
}

// all is a vector of one value in memory, eight times 32 bits.
func all(name string, value int32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, I32(value))
	}
	return m
}

func y(i int) VecPhysical {
	return []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}[i]
}

func x(i int) VecPhysical { return y(i).AsX().(VecPhysical) }

// dct holds the constants of the inverse transform; their names are those of
// jpeg_idct.go.
type dct struct {
	fix0298, fix0390, fix0541, fix0765, fix1175, fix1501, fix1847, fix1961, fix2053, fix3072, minus0899, minus2562 Mem
}

// inverseDCT transforms a block: down the columns in 32 bits, eight at once, then the
// same along the rows of the transposed block.
//
// Registers: RSI block, RDI out, RDX stride, RCX 3*stride.
func inverseDCT() {
	c := dct{
		all("fix0298", 2446), all("fix0390", 3196), all("fix0541", 4433), all("fix0765", 6270),
		all("fix1175", 9633), all("fix1501", 12299), all("fix1847", 15137), all("fix1961", 16069),
		all("fix2053", 16819), all("fix3072", 25172), all("minus0899", -7373), all("minus2562", -20995),
	}
	round11, round18 := all("round11", 1<<10), all("round18", 1<<17)
	level := GLOBL("level", RODATA|NOPTR)
	for i := range 16 {
		DATA(2*i, I16(128))
	}
	TEXT("idctAVX2", NOSPLIT, "func(b *[64]int16, out *uint8, stride int)")
	Doc("idctAVX2 is idct for a block of which more than the first row may not be zero.")
	Pragma("noescape")
	Load(Param("b"), RSI)
	Load(Param("out"), RDI)
	Load(Param("stride"), RDX)
	for i := range 8 {
		VPMOVSXWD(Mem{Base: RSI, Disp: 16 * i}, y(i))
	}
	c.pass(11, round11)
	for i, t := range []int{12, 13, 14, 15} {
		VPMOVSXWD(x(t), y(i))
		VEXTRACTI128(Imm(1), y(t), x(t))
		VPMOVSXWD(x(t), y(4+i))
	}
	c.pass(18, round18)
	for _, t := range []int{12, 13, 14, 15} {
		VPADDW(level, y(t), y(t))
	}
	Comment("Rows 0, 1 | 4, 5 and 2, 3 | 6, 7.")
	VPACKUSWB(Y13, Y12, Y0)
	VPACKUSWB(Y15, Y14, Y1)
	LEAQ(Mem{Base: RDX, Index: RDX, Scale: 2}, RCX)
	store := func(low, high Mem, v VecPhysical) {
		VMOVQ(v, low)
		VPEXTRQ(Imm(1), v, high)
	}
	row := func(i int) Mem {
		return []Mem{{Base: RDI}, {Base: RDI, Index: RDX, Scale: 1}, {Base: RDI, Index: RDX, Scale: 2}, {Base: RDI, Index: RCX, Scale: 1}}[i]
	}
	store(row(0), row(1), X0)
	store(row(2), row(3), X1)
	LEAQ(Mem{Base: RDI, Index: RDX, Scale: 4}, RDI)
	VEXTRACTI128(Imm(1), Y0, X0)
	VEXTRACTI128(Imm(1), Y1, X1)
	store(row(0), row(1), X0)
	store(row(2), row(3), X1)
	VZEROUPPER()
	RET()
}

// pass transforms eight columns, whose values are in Y0 to Y7, shifts the results right,
// saturates them to 16 bits and transposes them: rows 0 | 4 to Y12, 1 | 5 to Y13, 2 | 6
// to Y14 and 3 | 7 to Y15.
func (c dct) pass(shift uint8, round Mem) {
	Comment("Even part: 0 + 4 and 0 - 4 in 16 bits; t10 to t13 in Y4, Y6, Y0, Y8.")
	VPADDD(Y6, Y2, Y8)
	VPMULLD(c.fix0541, Y8, Y8)
	VPMULLD(c.fix1847, Y6, Y9)
	VPSUBD(Y9, Y8, Y9)
	VPMULLD(c.fix0765, Y2, Y2)
	VPADDD(Y8, Y2, Y2)
	VPADDD(Y4, Y0, Y8)
	VPSUBD(Y4, Y0, Y0)
	for _, v := range []VecPhysical{Y8, Y0} {
		VPSLLD(Imm(16), v, v)
		VPSRAD(Imm(3), v, v)
		VPADDD(round, v, v)
	}
	VPADDD(Y2, Y8, Y4)
	VPSUBD(Y2, Y8, Y8)
	VPADDD(Y9, Y0, Y6)
	VPSUBD(Y9, Y0, Y0)
	Comment("Odd part: 7 + 3 and 5 + 1 in 16 bits; t0 to t3 in Y7, Y5, Y3, Y1.")
	VPADDD(Y3, Y7, Y2)
	VPADDD(Y1, Y5, Y9)
	for _, v := range []VecPhysical{Y2, Y9} {
		VPSLLD(Imm(16), v, v)
		VPSRAD(Imm(16), v, v)
	}
	VPADDD(Y9, Y2, Y10)
	VPMULLD(c.fix1175, Y10, Y10)
	VPMULLD(c.fix1961, Y2, Y2)
	VPSUBD(Y2, Y10, Y2)
	VPMULLD(c.fix0390, Y9, Y9)
	VPSUBD(Y9, Y10, Y9)
	VPADDD(Y1, Y7, Y10)
	VPMULLD(c.minus0899, Y10, Y10)
	VPADDD(Y3, Y5, Y11)
	VPMULLD(c.minus2562, Y11, Y11)
	for _, t := range []struct {
		v, a, b VecPhysical
		fix     Mem
	}{{Y7, Y10, Y2, c.fix0298}, {Y5, Y11, Y9, c.fix2053}, {Y3, Y11, Y2, c.fix3072}, {Y1, Y10, Y9, c.fix1501}} {
		VPMULLD(t.fix, t.v, t.v)
		VPADDD(t.a, t.v, t.v)
		VPADDD(t.b, t.v, t.v)
	}
	Comment("Rows 0 to 7 in Y2, Y9, Y10, Y11, Y8, Y0, Y6, Y4.")
	for _, r := range [][3]VecPhysical{{Y4, Y1, Y2}, {Y6, Y3, Y9}, {Y0, Y5, Y10}, {Y8, Y7, Y11}} {
		VPADDD(r[1], r[0], r[2])
		VPSUBD(r[1], r[0], r[0])
	}
	for _, v := range []VecPhysical{Y2, Y9, Y10, Y11, Y8, Y0, Y6, Y4} {
		VPSRAD(Imm(uint64(shift)), v, v)
	}
	VPACKSSDW(Y8, Y2, Y2)
	VPACKSSDW(Y0, Y9, Y9)
	VPACKSSDW(Y6, Y10, Y10)
	VPACKSSDW(Y4, Y11, Y11)
	Comment("Transpose.")
	VPUNPCKLWD(Y9, Y2, Y0)
	VPUNPCKHWD(Y9, Y2, Y1)
	VPUNPCKLWD(Y11, Y10, Y2)
	VPUNPCKHWD(Y11, Y10, Y3)
	VPUNPCKLDQ(Y2, Y0, Y4)
	VPUNPCKHDQ(Y2, Y0, Y5)
	VPUNPCKLDQ(Y3, Y1, Y6)
	VPUNPCKHDQ(Y3, Y1, Y7)
	VPUNPCKLQDQ(Y6, Y4, Y12)
	VPUNPCKHQDQ(Y6, Y4, Y13)
	VPUNPCKLQDQ(Y7, Y5, Y14)
	VPUNPCKHQDQ(Y7, Y5, Y15)
}

// ycbcr converts eight pixels at a time, in 32 bits.
//
// Registers: RDI out, RSI, RDX, RCX y, cb and cr, RBX pixels left; Y13 to Y15 zero, 255
// and 128.
func ycbcr() {
	red, green1, green2, blue := all("red", 91881), all("green1", 22554), all("green2", 46802), all("blue", 116130)
	half, byteMost, middle := all("half", 1<<15), all("byteMost", 255), all("middle", 128)
	rgb := GLOBL("rgb", RODATA|NOPTR)
	for i := range 2 {
		for j, from := range []uint8{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 255, 255, 255, 255} {
			DATA(16*i+j, U8(from))
		}
	}
	TEXT("ycbcrAVX2", NOSPLIT, "func(out, y, cb, cr *uint8, n int)")
	Doc("ycbcrAVX2 is ycbcrRow for n pixels, a multiple of 8. It spoils the four bytes behind out.")
	Pragma("noescape")
	Load(Param("out"), RDI)
	Load(Param("y"), RSI)
	Load(Param("cb"), RDX)
	Load(Param("cr"), RCX)
	Load(Param("n"), RBX)
	VPXOR(Y13, Y13, Y13)
	VMOVDQU(byteMost, Y14)
	VMOVDQU(middle, Y15)
	Label("pixels")
	VPMOVZXBD(Mem{Base: RSI}, Y0)
	VPMOVZXBD(Mem{Base: RDX}, Y1)
	VPMOVZXBD(Mem{Base: RCX}, Y2)
	VPSUBD(Y15, Y1, Y1)
	VPSUBD(Y15, Y2, Y2)
	VPMULLD(red, Y2, Y3)
	VPADDD(half, Y3, Y3)
	VPMULLD(blue, Y1, Y5)
	VPADDD(half, Y5, Y5)
	VPMULLD(green1, Y1, Y1)
	VPMULLD(green2, Y2, Y2)
	VMOVDQU(half, Y4)
	VPSUBD(Y1, Y4, Y4)
	VPSUBD(Y2, Y4, Y4)
	for _, v := range []VecPhysical{Y3, Y4, Y5} {
		VPSRAD(Imm(16), v, v)
		VPADDD(Y0, v, v)
		VPMAXSD(Y13, v, v)
		VPMINSD(Y14, v, v)
	}
	VPSLLD(Imm(8), Y4, Y4)
	VPSLLD(Imm(16), Y5, Y5)
	VPOR(Y4, Y3, Y3)
	VPOR(Y5, Y3, Y3)
	VPSHUFB(rgb, Y3, Y3)
	VMOVDQU(X3, Mem{Base: RDI})
	VEXTRACTI128(Imm(1), Y3, X3)
	VMOVDQU(X3, Mem{Base: RDI, Disp: 12})
	ADDQ(Imm(24), RDI)
	ADDQ(Imm(8), RSI)
	ADDQ(Imm(8), RDX)
	ADDQ(Imm(8), RCX)
	SUBQ(Imm(8), RBX)
	JNZ(LabelRef("pixels"))
	VZEROUPPER()
	RET()
}

// horizontal resamples four rows at a time, pixel by pixel: a vector holds the channels of
// two rows' pixel, and one byte more of each.
//
// Registers: RDI out, RSI out's stride, R8 to R11 the source's rows, RBX taps: first, RCX
// count and RDX weight of a pixel, R12 bytes from pixel to pixel of weight, R13 pixels
// left.
func horizontal() {
	round := GLOBL("round22", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, I32(1<<21))
	}
	TEXT("horizontalAVX2", NOSPLIT, "func(out *uint8, stride int, in *uint8, inStride int, first, count *int, weight *int32, width, n int)")
	Doc("horizontalAVX2 makes n pixels of four rows. It reads the byte behind a row's last pixel.")
	Pragma("noescape")
	Load(Param("out"), RDI)
	Load(Param("stride"), RSI)
	Load(Param("in"), R8)
	Load(Param("inStride"), RAX)
	LEAQ(Mem{Base: R8, Index: RAX, Scale: 1}, R9)
	LEAQ(Mem{Base: R8, Index: RAX, Scale: 2}, R10)
	LEAQ(Mem{Base: R9, Index: RAX, Scale: 2}, R11)
	Load(Param("first"), RBX)
	Load(Param("count"), RCX)
	Load(Param("weight"), RDX)
	Load(Param("width"), R12)
	SHLQ(Imm(2), R12)
	Load(Param("n"), R13)
	VMOVDQU(round, Y15)
	Label("pixel")
	VMOVDQA(Y15, Y0)
	VMOVDQA(Y15, Y1)
	Comment("RAX: the pixel's place in the source, R14: the tap, R15: taps.")
	MOVQ(Mem{Base: RBX}, RAX)
	LEAQ(Mem{Base: RAX, Index: RAX, Scale: 2}, RAX)
	MOVQ(Mem{Base: RCX}, R15)
	XORQ(R14, R14)
	Label("tap")
	VPBROADCASTD(Mem{Base: RDX, Index: R14, Scale: 4}, Y2)
	for i, rows := range [][2]GPPhysical{{R8, R9}, {R10, R11}} {
		VMOVD(Mem{Base: rows[0], Index: RAX, Scale: 1}, x(3+i))
		VPINSRD(Imm(1), Mem{Base: rows[1], Index: RAX, Scale: 1}, x(3+i), x(3+i))
		VPMOVZXBD(x(3+i), y(3+i))
		VPMULLD(Y2, y(3+i), y(3+i))
		VPADDD(y(3+i), y(i), y(i))
	}
	ADDQ(Imm(3), RAX)
	INCQ(R14)
	CMPQ(R14, R15)
	JL(LabelRef("tap"))
	VPSRAD(Imm(22), Y0, Y0)
	VPSRAD(Imm(22), Y1, Y1)
	Comment("Rows 0, 2 | 1, 3.")
	VPACKUSDW(Y1, Y0, Y0)
	VPACKUSWB(Y0, Y0, Y0)
	VMOVQ(X0, RAX)
	VEXTRACTI128(Imm(1), Y0, X0)
	VMOVQ(X0, R14)
	LEAQ(Mem{Base: RDI, Index: RSI, Scale: 2}, R15)
	put := func(v GPPhysical, low, high Mem) {
		MOVW(v.As16(), low)
		SHRQ(Imm(16), v)
		MOVB(v.As8(), high)
	}
	put(RAX, Mem{Base: RDI}, Mem{Base: RDI, Disp: 2})
	SHRQ(Imm(16), RAX)
	put(RAX, Mem{Base: R15}, Mem{Base: R15, Disp: 2})
	put(R14, Mem{Base: RDI, Index: RSI, Scale: 1}, Mem{Base: RDI, Index: RSI, Scale: 1, Disp: 2})
	SHRQ(Imm(16), R14)
	put(R14, Mem{Base: R15, Index: RSI, Scale: 1}, Mem{Base: R15, Index: RSI, Scale: 1, Disp: 2})
	ADDQ(Imm(3), RDI)
	ADDQ(Imm(8), RBX)
	ADDQ(Imm(8), RCX)
	ADDQ(R12, RDX)
	DECQ(R13)
	JNZ(LabelRef("pixel"))
	VZEROUPPER()
	RET()
}

// vertical resamples a row of bytes, sixteen at a time.
//
// Registers: RDI out, RSI in, RDX stride, RCX weights, RBX taps, R8 bytes, R9 the place;
// R10 the tap's row, R11 the tap.
func vertical() {
	round := NewDataAddr(NewStaticSymbol("round22"), 0)
	TEXT("verticalAVX2", NOSPLIT, "func(out, in *uint8, stride int, weights *int32, taps, n int)")
	Doc("verticalAVX2 makes n bytes, at least 16, of rows stride bytes apart.")
	Pragma("noescape")
	Load(Param("out"), RDI)
	Load(Param("in"), RSI)
	Load(Param("stride"), RDX)
	Load(Param("weights"), RCX)
	Load(Param("taps"), RBX)
	Load(Param("n"), R8)
	VMOVDQU(round, Y15)
	XORQ(R9, R9)
	Label("bytes")
	VMOVDQA(Y15, Y0)
	VMOVDQA(Y15, Y1)
	LEAQ(Mem{Base: RSI, Index: R9, Scale: 1}, R10)
	XORQ(R11, R11)
	Label("row")
	VPBROADCASTD(Mem{Base: RCX, Index: R11, Scale: 4}, Y2)
	for i := range 2 {
		VPMOVZXBD(Mem{Base: R10, Disp: 8 * i}, y(3+i))
		VPMULLD(Y2, y(3+i), y(3+i))
		VPADDD(y(3+i), y(i), y(i))
	}
	ADDQ(RDX, R10)
	INCQ(R11)
	CMPQ(R11, RBX)
	JL(LabelRef("row"))
	VPSRAD(Imm(22), Y0, Y0)
	VPSRAD(Imm(22), Y1, Y1)
	VPACKUSDW(Y1, Y0, Y0)
	VPERMQ(Imm(0xd8), Y0, Y0)
	VEXTRACTI128(Imm(1), Y0, X1)
	VPACKUSWB(X1, X0, X0)
	VMOVDQU(X0, Mem{Base: RDI, Index: R9, Scale: 1})
	ADDQ(Imm(16), R9)
	Comment("The last sixteen bytes may be some that were made already.")
	LEAQ(Mem{Base: R9, Disp: 16}, R10)
	CMPQ(R10, R8)
	JLE(LabelRef("bytes"))
	CMPQ(R9, R8)
	JGE(LabelRef("done"))
	LEAQ(Mem{Base: R8, Disp: -16}, R9)
	JMP(LabelRef("bytes"))
	Label("done")
	VZEROUPPER()
	RET()
}

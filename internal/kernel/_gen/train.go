package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of OuterArgs, CombineArgs and MomentsArgs;
// train_test.go checks them.
const (
	ouIn       = 0
	ouGrad     = 8
	ouOut      = 16
	ouInOff    = 24
	ouRunIn    = 32
	ouRunGrad  = 40
	ouRuns     = 48
	ouPixels   = 56
	ouInStep   = 64
	ouGradStep = 72
	ouCount    = 80
	ouFlags    = 88

	coU        = 0
	coV        = 8
	coOut      = 16
	coMask     = 24
	coA        = 32
	coB        = 40
	coD        = 48
	coChannels = 56
	coPixels   = 64
	coStep     = 72
	coFlags    = 80

	moU        = 0
	moV        = 8
	moS        = 16
	moT        = 24
	moK        = 32
	moL        = 40
	moChannels = 48
	moPixels   = 56
	moUStep    = 64
	moVStep    = 72
)

// outer writes a kernel that sums outer products of rows values by n vectors.
//
// Registers: RAX input, RBX gradient, RSI and RDX their steps, RCX pixels left,
// R8-R13 byte offsets of the six rows, R15 runs left, RDI arguments.
func outer(v vector, n int) {
	width := n * v.bytes / 4
	name := fmt.Sprintf("outer%dx%d%s", rows, width, v.suffix)
	TEXT(name, NOSPLIT, "func(a *byte)")
	Doc(fmt.Sprintf("%s is Outer for %d output channels; see OuterArgs for the formula.", name, width))
	Pragma("noescape")

	row := []GPPhysical{R8, R9, R10, R11, R12, R13}
	acc := func(i, j int) VecPhysical { return v.reg(i*n + j) }
	grad := func(j int) VecPhysical { return v.reg(rows*n + j) }
	spare := func(k int) VecPhysical { return v.reg(rows*n + n + k) }
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	each := func(f func(i, j int)) {
		for i := 0; i < rows; i++ {
			for j := 0; j < n; j++ {
				f(i, j)
			}
		}
	}
	a := NewParamAddr("a", 0)
	local := AllocLocal(40)
	inOff, out, count, runIn, runGrad := local, local.Offset(8), local.Offset(16), local.Offset(24), local.Offset(32)
	MOVQ(a, RDI)
	for _, c := range []struct {
		from int
		to   Mem
	}{{ouInOff, inOff}, {ouOut, out}, {ouCount, count}} {
		MOVQ(arg(c.from), RAX)
		MOVQ(RAX, c.to)
	}
	MOVQ(arg(ouInStep), RSI)
	MOVQ(arg(ouGradStep), RDX)

	Label("tile")
	each(func(i, j int) { v.zero(acc(i, j)) })
	MOVQ(inOff, RAX)
	for i := range row {
		MOVQ(Mem{Base: RAX, Disp: 8 * i}, row[i])
	}
	MOVQ(arg(ouRuns), R15)
	MOVQ(arg(ouRunIn), RAX)
	MOVQ(RAX, runIn)
	MOVQ(arg(ouRunGrad), RAX)
	MOVQ(RAX, runGrad)

	Label("run")
	MOVQ(runIn, RCX)
	MOVQ(Mem{Base: RCX}, RAX)
	ADDQ(arg(ouIn), RAX)
	ADDQ(Imm(8), runIn)
	MOVQ(runGrad, RCX)
	MOVQ(Mem{Base: RCX}, RBX)
	ADDQ(arg(ouGrad), RBX)
	ADDQ(Imm(8), runGrad)
	MOVQ(arg(ouPixels), RCX)

	Label("pixel")
	for j := 0; j < n; j++ {
		VMOVUPS(Mem{Base: RBX, Disp: j * v.bytes}, grad(j))
	}
	for i := 0; i < rows; i++ {
		b := spare(i % 2)
		VBROADCASTSS(Mem{Base: RAX, Index: row[i], Scale: 1}, b)
		for j := 0; j < n; j++ {
			VFMADD231PS(grad(j), b, acc(i, j))
		}
	}
	ADDQ(RSI, RAX)
	ADDQ(RDX, RBX)
	DECQ(RCX)
	JNZ(LabelRef("pixel"))
	DECQ(R15)
	JNZ(LabelRef("run"))

	MOVQ(out, RBX)
	at := func(i, j int) Mem { return Mem{Base: RBX, Disp: i*width*4 + j*v.bytes} }
	MOVQ(arg(ouFlags), RCX)
	TESTQ(U32(flagAccumulate), RCX)
	JZ(LabelRef("store"))
	each(func(i, j int) { VADDPS(at(i, j), acc(i, j), acc(i, j)) })
	Label("store")
	each(func(i, j int) { VMOVUPS(acc(i, j), at(i, j)) })
	ADDQ(U32(uint32(rows*width*4)), out)
	ADDQ(Imm(8*rows), inOff)
	DECQ(count)
	JNZ(LabelRef("tile"))
	VZEROUPPER()
	RET()
}

// combine writes the weighted sum: two vectors of channels at a time, down all
// pixels.
//
// Registers: RDI arguments, R14 byte offset of the channels, R15 bytes of all
// channels, RSI step; RAX U, RBX V, RDX Out, R8 Mask, RCX pixels left, R9 flags.
func combine(v vector) {
	TEXT("combine"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("combine" + v.suffix + " is a weighted sum of activations; see CombineArgs for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	MOVQ(arg(coStep), RSI)
	MOVQ(arg(coFlags), R9)
	MOVQ(arg(coChannels), R15)
	SHLQ(Imm(2), R15)
	XORQ(R14, R14)
	acc := func(j int) VecPhysical { return v.reg(j) }
	ca := func(j int) VecPhysical { return v.reg(2 + j) }
	cb := func(j int) VecPhysical { return v.reg(4 + j) }
	cd := func(j int) VecPhysical { return v.reg(6 + j) }
	zero, spare := v.reg(8), v.reg(9)
	v.zero(zero)
	both := func(f func(j int)) { f(0); f(1) }
	at := func(base GPPhysical, j int) Mem { return Mem{Base: base, Disp: j * v.bytes} }

	Label("channels")
	for _, c := range []struct {
		field int
		to    GPPhysical
	}{{coU, RAX}, {coOut, RDX}} {
		MOVQ(arg(c.field), c.to)
		ADDQ(R14, c.to)
	}
	for _, c := range []struct {
		field int
		to    GPPhysical
		label string
	}{{coV, RBX, "noV"}, {coMask, R8, "noMask"}} {
		MOVQ(arg(c.field), c.to)
		TESTQ(c.to, c.to)
		JZ(LabelRef(c.label))
		ADDQ(R14, c.to)
		if c.field == coV {
			MOVQ(arg(coB), RCX)
			ADDQ(R14, RCX)
			both(func(j int) { VMOVUPS(at(RCX, j), cb(j)) })
		}
		Label(c.label)
	}
	MOVQ(arg(coA), RCX)
	ADDQ(R14, RCX)
	both(func(j int) { VMOVUPS(at(RCX, j), ca(j)) })
	MOVQ(arg(coD), RCX)
	ADDQ(R14, RCX)
	both(func(j int) { VMOVUPS(at(RCX, j), cd(j)) })
	MOVQ(arg(coPixels), RCX)

	Label("pixel")
	both(func(j int) { VMOVUPS(at(RAX, j), acc(j)) })
	both(func(j int) { VFMADD213PS(cd(j), ca(j), acc(j)) })
	ADDQ(RSI, RAX)
	TESTQ(RBX, RBX)
	JZ(LabelRef("mask"))
	both(func(j int) { VFMADD231PS(at(RBX, j), cb(j), acc(j)) })
	ADDQ(RSI, RBX)
	Label("mask")
	TESTQ(R8, R8)
	JZ(LabelRef("accumulate"))
	const lessThan = 0x11 // ordered, quiet: NaN masks out
	both(func(j int) {
		VCMPPS(Imm(lessThan), at(R8, j), zero, spare)
		VANDPS(spare, acc(j), acc(j))
	})
	ADDQ(RSI, R8)
	Label("accumulate")
	TESTQ(U32(flagAccumulate), R9)
	JZ(LabelRef("relu"))
	both(func(j int) { VADDPS(at(RDX, j), acc(j), acc(j)) })
	Label("relu")
	TESTQ(U32(flagReLU), R9)
	JZ(LabelRef("store"))
	// The accumulator comes last, so that a NaN survives.
	both(func(j int) { VMAXPS(acc(j), zero, acc(j)) })
	Label("store")
	both(func(j int) { VMOVUPS(acc(j), at(RDX, j)) })
	ADDQ(RSI, RDX)
	DECQ(RCX)
	JNZ(LabelRef("pixel"))
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, R15)
	JL(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

// momentSums writes the sums over pixels: two vectors of channels at a time.
func momentSums(v vector) {
	TEXT("moments"+v.suffix, NOSPLIT, "func(a *byte)")
	Doc("moments" + v.suffix + " sums over pixels; see MomentsArgs for the formula.")
	Pragma("noescape")
	MOVQ(NewParamAddr("a", 0), RDI)
	arg := func(disp int) Mem { return Mem{Base: RDI, Disp: disp} }
	MOVQ(arg(moUStep), RSI)
	MOVQ(arg(moVStep), RDX)
	MOVQ(arg(moChannels), R15)
	SHLQ(Imm(2), R15)
	XORQ(R14, R14)
	s := func(j int) VecPhysical { return v.reg(j) }
	t := func(j int) VecPhysical { return v.reg(2 + j) }
	k := func(j int) VecPhysical { return v.reg(4 + j) }
	l := func(j int) VecPhysical { return v.reg(6 + j) }
	x := func(j int) VecPhysical { return v.reg(8 + j) }
	y := func(j int) VecPhysical { return v.reg(10 + j) }
	both := func(f func(j int)) { f(0); f(1) }
	at := func(base GPPhysical, j int) Mem { return Mem{Base: base, Disp: j * v.bytes} }
	vectors := func(field int, f func(m Mem, j int)) {
		MOVQ(arg(field), RCX)
		ADDQ(R14, RCX)
		both(func(j int) { f(at(RCX, j), j) })
	}

	Label("channels")
	MOVQ(arg(moU), RAX)
	ADDQ(R14, RAX)
	MOVQ(arg(moV), RBX)
	ADDQ(R14, RBX)
	vectors(moS, func(m Mem, j int) { VMOVUPS(m, s(j)) })
	vectors(moT, func(m Mem, j int) { VMOVUPS(m, t(j)) })
	vectors(moK, func(m Mem, j int) { VMOVUPS(m, k(j)) })
	vectors(moL, func(m Mem, j int) { VMOVUPS(m, l(j)) })
	MOVQ(arg(moPixels), RCX)

	Label("pixel")
	both(func(j int) { VMOVUPS(at(RAX, j), x(j)) })
	both(func(j int) { VMOVUPS(at(RBX, j), y(j)) })
	both(func(j int) { VSUBPS(k(j), x(j), x(j)) })
	both(func(j int) { VSUBPS(l(j), y(j), y(j)) })
	both(func(j int) { VADDPS(x(j), s(j), s(j)) })
	both(func(j int) { VFMADD231PS(x(j), y(j), t(j)) })
	ADDQ(RSI, RAX)
	ADDQ(RDX, RBX)
	DECQ(RCX)
	JNZ(LabelRef("pixel"))
	vectors(moS, func(m Mem, j int) { VMOVUPS(s(j), m) })
	vectors(moT, func(m Mem, j int) { VMOVUPS(t(j), m) })
	ADDQ(U32(uint32(2*v.bytes)), R14)
	CMPQ(R14, R15)
	JL(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Byte offsets of the fields of the arguments of Transformer's kernels;
// transformer_test.go checks them.
const (
	geluIn       = 0
	geluOut      = 8
	geluRows     = 16
	geluChannels = 24
	geluStep     = 32

	softX    = 0
	softGrad = 8
	softRows = 16
	softCols = 24

	lnIn       = 0
	lnOut      = 8
	lnWeight   = 16
	lnBias     = 24
	lnGrad     = 32
	lnRes      = 40
	lnRows     = 48
	lnChannels = 56
	lnStep     = 64
	lnEps      = 72

	trIn      = 0
	trInOff   = 8
	trOut     = 16
	trCols    = 24
	trOutStep = 32
	trScale   = 40
)

// simd is an instruction set that computes 64 bytes at a time, in two registers for AVX2
// or in one for AVX-512. What is added up is added up in the same order by both.
type simd struct {
	suffix string
	bytes  int // of a register
}

func (w simd) wide() bool { return w.bytes == 64 }

func (w simd) reg() VecVirtual {
	if w.wide() {
		return ZMM()
	}
	return YMM()
}

// regs are the registers of 64 bytes, and at is where in memory the i-th of them lies.
func (w simd) regs() []VecVirtual {
	r := make([]VecVirtual, 64/w.bytes)
	for i := range r {
		r[i] = w.reg()
	}
	return r
}

func (w simd) at(base, index GPVirtual, i int) Mem {
	return Mem{Base: base, Index: index, Scale: 1, Disp: w.bytes * i}
}

// ones sets all bits of r.
func (w simd) ones(r VecVirtual) {
	if w.wide() {
		VPTERNLOGD(Imm(0xff), r, r, r)
		return
	}
	VPCMPEQD(r, r, r)
}

func (w simd) round(x, to VecVirtual) {
	const nearest = 0x08
	if w.wide() {
		VRNDSCALEPS(Imm(nearest), x, to)
		return
	}
	VROUNDPS(Imm(nearest), x, to)
}

// transformer writes the kernels of Transformer but for the transposition.
func transformer(w simd) {
	c := w.constants()
	w.gelu("gelu", "is Transformer.GELU.", c, func(x, phi, density []VecVirtual, out func(i int) Mem) {
		for i := range x {
			VMULPS(x[i], phi[i], phi[i])
			VMOVUPS(phi[i], out(i))
		}
	})
	w.gelu("geluBack", "is Transformer.GELUBack.", c, func(x, phi, density []VecVirtual, out func(i int) Mem) {
		for i := range x {
			VMULPS(x[i], density[i], density[i])
			VFMADD231PS(c(0.3989422804), density[i], phi[i])
			VMULPS(out(i), phi[i], phi[i])
			VMOVUPS(phi[i], out(i))
		}
	})
	w.softmax(c)
	w.softmaxBack()
	w.layerNorm()
	w.layerNormBack()
}

// constants returns a function that places a float32 as often as a register holds it in
// read-only memory.
func (w simd) constants() func(f float32) Mem {
	offsets := map[float32]int{}
	data := GLOBL("transformer", RODATA|NOPTR)
	return func(f float32) Mem {
		at, ok := offsets[f]
		if !ok {
			at = w.bytes * len(offsets)
			offsets[f] = at
			for i := 0; i < w.bytes/4; i++ {
				DATA(at+4*i, U32(math.Float32bits(f))) // F32 would write 1 as an integer
			}
		}
		return data.Offset(at)
	}
}

// arguments returns a function that loads a field.
func arguments() func(disp int) GPVirtual {
	a := Load(Param("a"), GP64())
	return func(disp int) GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: a, Disp: disp}, r)
		return r
	}
}

func start(name, doc string) {
	TEXT(name, NOSPLIT, "func(a *byte)")
	Doc(name + " " + doc)
	Pragma("noescape")
}

// loop writes body for a counter from 0 to limit by step; limit is a multiple of
// step and more than 0.
func loop(label string, counter, limit GPVirtual, step int, body func()) {
	XORQ(counter, counter)
	Label(label)
	body()
	ADDQ(Imm(uint64(step)), counter)
	CMPQ(counter, limit)
	JL(LabelRef(label))
}

// exponent replaces each of x by exp(x), x being 0 or less; see the portable
// version.
func (w simd) exponent(c func(float32) Mem, x []VecVirtual) {
	n, p := w.regs(), w.regs()
	each := func(f func(i int)) {
		for i := range x {
			f(i)
		}
	}
	// Not a number is neither less nor not.
	const lessThan, notLess = 0x11, 0x15
	var below []VecVirtual
	above := K()
	if w.wide() {
		VCMPPS(Imm(notLess), c(-87.33654), x[0], above)
	} else {
		below = w.regs()
		each(func(i int) { VCMPPS(Imm(lessThan), c(-87.33654), x[i], below[i]) })
	}
	each(func(i int) { VMULPS(c(1.44269504), x[i], n[i]) })
	each(func(i int) { w.round(n[i], n[i]) })
	each(func(i int) { VFNMADD231PS(c(0.693359375), n[i], x[i]) })
	each(func(i int) { VFNMADD231PS(c(-2.12194440e-4), n[i], x[i]) })
	each(func(i int) { VMOVUPS(c(1.9875691500e-4), p[i]) })
	for _, k := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		each(func(i int) { VFMADD213PS(c(k), x[i], p[i]) })
	}
	each(func(i int) { VMULPS(x[i], p[i], p[i]) })
	each(func(i int) { VFMADD213PS(x[i], x[i], p[i]) })
	each(func(i int) { VADDPS(c(1), p[i], p[i]) })
	each(func(i int) { VCVTPS2DQ(n[i], n[i]) })
	each(func(i int) { VPSLLD(Imm(23), n[i], n[i]) })
	each(func(i int) { VPADDD(n[i], p[i], p[i]) })
	if w.wide() {
		VMOVAPS_Z(p[0], above, x[0])
		return
	}
	each(func(i int) { VANDNPS(p[i], below[i], x[i]) })
}

// gelu writes a kernel that goes through pairs of vectors with Phi(x) and
// exp(-x*x/2) and ends with finish; see the portable version.
func (w simd) gelu(name, doc string, c func(float32) Mem, finish func(x, phi, density []VecVirtual, out func(i int) Mem)) {
	start(name+w.suffix, doc)
	arg := arguments()
	in, out, rows, channels, step := arg(geluIn), arg(geluOut), arg(geluRows), arg(geluChannels), arg(geluStep)
	SHLQ(Imm(2), channels)
	at := GP64()
	sign := w.reg()
	w.ones(sign)
	VPSLLD(Imm(31), sign, sign)
	Label("row")
	loop("channels", at, channels, 64, func() {
		x, r, t, p, density := w.regs(), w.regs(), w.regs(), w.regs(), w.regs()
		each := func(f func(i int)) {
			for i := range x {
				f(i)
			}
		}
		each(func(i int) { VMOVUPS(w.at(in, at, i), x[i]) })
		each(func(i int) { VMULPS(x[i], x[i], density[i]) })
		each(func(i int) { VMULPS(c(-0.5), density[i], density[i]) })
		w.exponent(c, density)
		each(func(i int) { VANDNPS(x[i], sign, r[i]) })
		each(func(i int) { VADDPS(c(3.5), r[i], r[i]) })
		each(func(i int) { VMOVUPS(c(1), t[i]) })
		each(func(i int) { VDIVPS(r[i], t[i], r[i]) })
		each(func(i int) { VFNMADD231PS(c(7), r[i], t[i]) })
		each(func(i int) { VMOVUPS(c(0.00011273703421466053), p[i]) })
		for _, k := range []float32{
			0.0004256608954165131, -0.0004946537083014846, -0.0031777978874742985, 0.00649240892380476,
			0.01740691065788269, -0.11605289578437805, 0.31542500853538513, -0.5655617713928223, 0.7444160580635071,
		} {
			each(func(i int) { VFMADD213PS(c(k), t[i], p[i]) })
		}
		each(func(i int) { VMULPS(r[i], p[i], p[i]) })
		each(func(i int) { VMULPS(density[i], p[i], p[i]) })
		each(func(i int) { VMOVUPS(c(1), t[i]) })
		each(func(i int) { VSUBPS(p[i], t[i], t[i]) })
		if w.wide() {
			negative := K()
			VPMOVD2M(x[0], negative)
			VBLENDMPS(p[0], t[0], negative, p[0])
		} else {
			each(func(i int) { VBLENDVPS(x[i], p[i], t[i], p[i]) })
		}
		finish(x, p, density, func(i int) Mem { return w.at(out, at, i) })
	})
	ADDQ(step, in)
	ADDQ(step, out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// across reduces the lanes of 64 bytes to one value in all lanes of v[0].
func (w simd) across(v []VecVirtual, op func(a, b, dst Op)) {
	low, high := v[0], YMM().(VecVirtual)
	if w.wide() {
		low = v[0].AsY().(VecVirtual)
		VEXTRACTF64X4(Imm(1), v[0], high)
	} else {
		high = v[1]
	}
	op(high, low, low)
	VPERM2F128(Imm(1), low, low, high)
	op(high, low, low)
	VPERMILPS(Imm(0x4e), low, high)
	op(high, low, low)
	VPERMILPS(Imm(0xb1), low, high)
	op(high, low, low)
	if w.wide() {
		VBROADCASTSS(v[0].AsX(), v[0])
	}
}

func zero(v ...VecVirtual) {
	for _, r := range v {
		VXORPS(r, r, r)
	}
}

func (w simd) softmax(c func(float32) Mem) {
	start("softmax"+w.suffix, "is Transformer.Softmax.")
	arg := arguments()
	x, rows, cols := arg(softX), arg(softRows), arg(softCols)
	SHLQ(Imm(2), cols)
	at := GP64()
	m := func(i int) Mem { return w.at(x, at, i) }

	Label("row")
	top, sum := w.regs(), w.regs()
	for i := range top {
		VMOVUPS(Mem{Base: x, Disp: w.bytes * i}, top[i])
	}
	loop("top", at, cols, 64, func() {
		for i := range top {
			VMAXPS(m(i), top[i], top[i])
		}
	})
	w.across(top, func(a, b, dst Op) { VMAXPS(a, b, dst) })
	zero(sum...)
	loop("exponents", at, cols, 64, func() {
		e := w.regs()
		for i := range e {
			VMOVUPS(m(i), e[i])
		}
		for i := range e {
			VSUBPS(top[0], e[i], e[i])
		}
		w.exponent(c, e)
		for i := range e {
			VMOVUPS(e[i], m(i))
			VADDPS(e[i], sum[i], sum[i])
		}
	})
	w.across(sum, func(a, b, dst Op) { VADDPS(a, b, dst) })
	one := w.reg()
	VMOVUPS(c(1), one)
	VDIVPS(sum[0], one, sum[0])
	loop("share", at, cols, 64, func() {
		e := w.regs()
		for i := range e {
			VMULPS(m(i), sum[0], e[i])
			VMOVUPS(e[i], m(i))
		}
	})
	ADDQ(cols, x)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func (w simd) softmaxBack() {
	start("softmaxBack"+w.suffix, "is Transformer.SoftmaxBack.")
	arg := arguments()
	x, grad, rows, cols := arg(softX), arg(softGrad), arg(softRows), arg(softCols)
	SHLQ(Imm(2), cols)
	at := GP64()
	xs := func(i int) Mem { return w.at(x, at, i) }
	grads := func(i int) Mem { return w.at(grad, at, i) }

	Label("row")
	sum := w.regs()
	zero(sum...)
	loop("sum", at, cols, 64, func() {
		v := w.regs()
		for i := range v {
			VMOVUPS(xs(i), v[i])
			VFMADD231PS(grads(i), v[i], sum[i])
		}
	})
	w.across(sum, func(a, b, dst Op) { VADDPS(a, b, dst) })
	loop("difference", at, cols, 64, func() {
		v := w.regs()
		for i := range v {
			VMOVUPS(grads(i), v[i])
			VSUBPS(sum[0], v[i], v[i])
			VMULPS(xs(i), v[i], v[i])
			VMOVUPS(v[i], grads(i))
		}
	})
	ADDQ(cols, x)
	ADDQ(cols, grad)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// moments is the row's mean and the reciprocal of its deviation, in all lanes.
// bytes is the row's length, count its number of channels in all lanes.
func (w simd) moments(x, at, bytes GPVirtual, count, eps VecVirtual) (mean, inverse VecVirtual) {
	m := func(i int) Mem { return w.at(x, at, i) }
	sum, square := w.regs(), w.regs()
	zero(sum...)
	loop("mean", at, bytes, 64, func() {
		for i := range sum {
			VADDPS(m(i), sum[i], sum[i])
		}
	})
	w.across(sum, func(a, b, dst Op) { VADDPS(a, b, dst) })
	VDIVPS(count, sum[0], sum[0])
	zero(square...)
	loop("variance", at, bytes, 64, func() {
		d := w.regs()
		for i := range d {
			VMOVUPS(m(i), d[i])
			VSUBPS(sum[0], d[i], d[i])
			VFMADD231PS(d[i], d[i], square[i])
		}
	})
	w.across(square, func(a, b, dst Op) { VADDPS(a, b, dst) })
	VDIVPS(count, square[0], square[0])
	VADDPS(eps, square[0], square[0])
	VSQRTPS(square[0], square[0])
	one := w.reg()
	w.ones(one)
	VPSRLD(Imm(25), one, one)
	VPSLLD(Imm(23), one, one) // 0x3f800000
	VDIVPS(square[0], one, square[0])
	return sum[0], square[0]
}

// rowArguments are what both directions of layer norm begin with.
func (w simd) rowArguments(arg func(int) GPVirtual) (rows, step, bytes GPVirtual, count, eps VecVirtual) {
	count, eps = w.reg(), w.reg()
	rows, step, bytes = arg(lnRows), arg(lnStep), arg(lnChannels)
	x := XMM()
	VXORPS(x, x, x)
	VCVTSI2SSQ(bytes, x, x)
	VBROADCASTSS(x, count)
	SHLQ(Imm(2), bytes)
	return rows, step, bytes, count, eps
}

func (w simd) layerNorm() {
	start("layerNorm"+w.suffix, "is the forward pass of LayerNormArgs.")
	arg := arguments()
	in, out, weight, bias := arg(lnIn), arg(lnOut), arg(lnWeight), arg(lnBias)
	rows, step, bytes, count, eps := w.rowArguments(arg)
	a := Load(Param("a"), GP64())
	VBROADCASTSS(Mem{Base: a, Disp: lnEps}, eps)
	at := GP64()
	m := func(base GPVirtual, i int) Mem { return w.at(base, at, i) }

	Label("row")
	mean, inverse := w.moments(in, at, bytes, count, eps)
	loop("write", at, bytes, 64, func() {
		d, b := w.regs(), w.regs()
		for i := range d {
			VMOVUPS(m(in, i), d[i])
			VMOVUPS(m(bias, i), b[i])
			VSUBPS(mean, d[i], d[i])
			VMULPS(inverse, d[i], d[i])
			VFMADD231PS(m(weight, i), d[i], b[i])
			VMOVUPS(b[i], m(out, i))
		}
	})
	ADDQ(step, in)
	ADDQ(step, out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func (w simd) layerNormBack() {
	start("layerNormBack"+w.suffix, "is the gradient of LayerNormArgs.")
	arg := arguments()
	in, out, weight, grad, res := arg(lnIn), arg(lnOut), arg(lnWeight), arg(lnGrad), arg(lnRes)
	rows, step, bytes, count, eps := w.rowArguments(arg)
	a := Load(Param("a"), GP64())
	VBROADCASTSS(Mem{Base: a, Disp: lnEps}, eps)
	at := GP64()
	m := func(base GPVirtual, i int) Mem { return w.at(base, at, i) }

	Label("row")
	mean, inverse := w.moments(in, at, bytes, count, eps)
	sum, product := w.regs(), w.regs()
	zero(sum...)
	zero(product...)
	loop("sums", at, bytes, 64, func() {
		d, x := w.regs(), w.regs()
		for i := range d {
			VMOVUPS(m(grad, i), d[i])
			VMOVUPS(m(in, i), x[i])
			VMULPS(m(weight, i), d[i], d[i])
			VSUBPS(mean, x[i], x[i])
			VADDPS(d[i], sum[i], sum[i])
			VFMADD231PS(x[i], d[i], product[i])
		}
	})
	add := func(a, b, dst Op) { VADDPS(a, b, dst) }
	w.across(sum, add)
	w.across(product, add)
	first, second := sum[0], product[0]
	VDIVPS(count, first, first)
	VDIVPS(count, second, second)
	VMULPS(inverse, second, second)
	VMULPS(inverse, second, second)
	write := func(label string, add bool) {
		loop(label, at, bytes, 64, func() {
			d, x := w.regs(), w.regs()
			for i := range d {
				VMOVUPS(m(grad, i), d[i])
				VMOVUPS(m(in, i), x[i])
				VMULPS(m(weight, i), d[i], d[i])
				VSUBPS(mean, x[i], x[i])
				VSUBPS(first, d[i], d[i])
				VFNMADD231PS(second, x[i], d[i])
				VMULPS(inverse, d[i], d[i])
				if add {
					VADDPS(m(res, i), d[i], d[i])
				}
				VMOVUPS(d[i], m(out, i))
			}
		})
	}
	TESTQ(res, res)
	JZ(LabelRef("alone"))
	write("add", true)
	ADDQ(step, res)
	JMP(LabelRef("next"))
	Label("alone")
	write("write", false)
	Label("next")
	ADDQ(step, in)
	ADDQ(step, out)
	ADDQ(step, grad)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// transpose goes through blocks of eight rows by eight columns.
func transpose() {
	ymms := func() []VecVirtual { return []VecVirtual{YMM(), YMM(), YMM(), YMM()} }
	start("transposeAVX2", "is Transformer.Transpose for Cols that are a multiple of 8.")
	a := Load(Param("a"), GP64())
	table, out, cols := GP64(), GP64(), GP64()
	scale := YMM()
	VBROADCASTSS(Mem{Base: a, Disp: trScale}, scale)
	MOVQ(Mem{Base: a, Disp: trInOff}, table)
	for half := 0; half < 2; half++ {
		suffix := []string{"First", "Second"}[half]
		step := GP64()
		MOVQ(Mem{Base: a, Disp: trOutStep}, step)
		MOVQ(Mem{Base: a, Disp: trCols}, cols)
		MOVQ(Mem{Base: a, Disp: trOut}, out)
		if half == 1 {
			ADDQ(Imm(32), out)
		}
		row := make([]GPVirtual, 8)
		for i := range row {
			row[i] = GP64()
			MOVQ(Mem{Base: table, Disp: 8 * (8*half + i)}, row[i])
			ADDQ(Mem{Base: a, Disp: trIn}, row[i])
		}
		Label("block" + suffix)
		for j := 0; j < 2; j++ {
			v := ymms()
			for i := range v {
				VBROADCASTF128(Mem{Base: row[i], Disp: 16 * j}, v[i])
				VINSERTF128(Imm(1), Mem{Base: row[i+4], Disp: 16 * j}, v[i], v[i])
			}
			t := ymms()
			VUNPCKLPS(v[1], v[0], t[0])
			VUNPCKHPS(v[1], v[0], t[1])
			VUNPCKLPS(v[3], v[2], t[2])
			VUNPCKHPS(v[3], v[2], t[3])
			VUNPCKLPD(t[2], t[0], v[0])
			VUNPCKHPD(t[2], t[0], v[1])
			VUNPCKLPD(t[3], t[1], v[2])
			VUNPCKHPD(t[3], t[1], v[3])
			for i := range v {
				VMULPS(scale, v[i], v[i])
				VMOVUPS(v[i], Mem{Base: out})
				ADDQ(step, out)
			}
		}
		for i := range row {
			ADDQ(Imm(32), row[i])
		}
		SUBQ(Imm(8), cols)
		JNZ(LabelRef("block" + suffix))
	}
	VZEROUPPER()
	RET()
}

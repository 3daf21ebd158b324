package kernel

import (
	"math"
	"unsafe"
)

// Transformer is the kernels that vision transformers need beside the tile.
// Their steps and offsets are in bytes; Channels and Cols of GELU and softmax are
// multiples of Lanes. NaN stays NaN. Sums run in an order that depends on the
// length alone, but differs among instruction sets.
type Transformer struct {
	// GELU is Out = In*Phi(In) with the normal distribution's Phi, GELUBack is
	// Out *= Phi(In) + In*phi(In).
	GELU, GELUBack func(*GELUArgs)
	// Softmax replaces each row of X by its softmax, SoftmaxBack each row of Grad by
	// X * (Grad - sum(X*Grad)).
	Softmax, SoftmaxBack func(*SoftmaxArgs)
	// LayerNorm and LayerNormBack are described at LayerNormArgs.
	LayerNorm, LayerNormBack func(*LayerNormArgs)
	Transpose                func(*TransposeArgs)
}

// GELUArgs are Rows runs of Channels values, one every Step bytes; Out may be In.
type GELUArgs struct {
	In, Out              *float32
	Rows, Channels, Step int64
}

// SoftmaxArgs are Rows consecutive rows of Cols values.
type SoftmaxArgs struct {
	X, Grad    *float32
	Rows, Cols int64
}

// LayerNormArgs are the arguments of layer norm and its gradient, for each of Rows
// rows of Channels values, one every Step bytes. With mean and variance those of
// In's row, inv = 1/sqrt(variance+Eps), n = (In-mean)*inv and d = Grad*Weight:
//
//	forward:   Out = n*Weight + Bias
//	gradient:  Out = Res + inv*(d - mean(d) - n*mean(d*n))   // 0 if Res is nil
//
// Res may be Out.
type LayerNormArgs struct {
	In, Out, Weight, Bias *float32
	Grad, Res             *float32
	Rows, Channels, Step  int64
	Eps                   float32
}

// TransposeArgs are Lanes rows of Cols values that become columns:
//
//	for c := range Cols { for i := range Lanes {
//		Out[c*OutStep+i] = In[InOff[i]+c] * Scale
//	}}
type TransposeArgs struct {
	In            *float32
	InOff         *[Lanes]int64
	Out           *float32
	Cols, OutStep int64
	Scale         float32
}

// Transformer returns the set's kernels for vision transformers.
func (s *Set) Transformer() *Transformer { return s.transformer }

var portableTransformer = Transformer{
	GELU: geluRows, GELUBack: geluBackRows,
	Softmax: softmax, SoftmaxBack: softmaxBack,
	LayerNorm: layerNorm, LayerNormBack: layerNormBack,
	Transpose: transpose,
}

// span is n floats from byteOffset behind p.
func span(p *float32, byteOffset, n int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), byteOffset)), n)
}

// exponent is exp(x) for x of 0 or less: 2^n times a polynomial of the rest, as
// in Moshier's Cephes library, to one unit in the last place. Below the least normal number it is 0.
func exponent(x float32) float32 {
	if x < leastExponent {
		return 0
	}
	if x != x {
		return x
	}
	n := int32(x*log2e - 0.5)
	r := x - float32(n)*ln2High
	r -= float32(n) * ln2Low
	p := float32(exp5)
	p = p*r + exp4
	p = p*r + exp3
	p = p*r + exp2
	p = p*r + exp1
	p = p*r + exp0
	p = p*r*r + r + 1
	return p * math.Float32frombits(uint32(n+127)<<23)
}

// The assembly's generator has the same constants.
const (
	leastExponent = -87.33654
	log2e         = 1.44269504
	ln2High       = 0.693359375
	ln2Low        = -2.12194440e-4

	exp0 = 5.0000001201e-1
	exp1 = 1.6666665459e-1
	exp2 = 4.1665795894e-2
	exp3 = 8.3334519073e-3
	exp4 = 1.3981999507e-3
	exp5 = 1.9875691500e-4
)

// tail are the coefficients of (Phi(-u)*exp(u*u/2)) * (u+tailMiddle) as a
// polynomial of (u-tailMiddle)/(u+tailMiddle), from the constant term on: a fit
// over u >= 0 of least relative error, 7e-9.
var tail = [...]float32{
	0.7444160580635071, -0.5655617713928223, 0.31542500853538513, -0.11605289578437805, 0.01740691065788269,
	0.00649240892380476, -0.0031777978874742985, -0.0004946537083014846, 0.0004256608954165131, 0.00011273703421466053,
}

const tailMiddle = 3.5

// normal returns Phi(x) and exp(-x*x/2).
func normal(x float32) (phi, density float32) {
	u := x
	if u < 0 {
		u = -u
	}
	density = exponent(-0.5 * x * x)
	r := 1 / (u + tailMiddle)
	t := 1 - 2*tailMiddle*r
	p := tail[len(tail)-1]
	for i := len(tail) - 2; i >= 0; i-- {
		p = p*t + tail[i]
	}
	phi = p * r * density
	if x > 0 {
		phi = 1 - phi
	}
	return phi, density
}

func geluRows(a *GELUArgs) {
	for row := range a.Rows {
		out := span(a.Out, row*a.Step, a.Channels)
		for i, x := range span(a.In, row*a.Step, a.Channels) {
			phi, _ := normal(x)
			out[i] = x * phi
		}
	}
}

// inverseRoot is 1/sqrt(2*pi).
const inverseRoot = 0.3989422804

func geluBackRows(a *GELUArgs) {
	for row := range a.Rows {
		out := span(a.Out, row*a.Step, a.Channels)
		for i, x := range span(a.In, row*a.Step, a.Channels) {
			phi, density := normal(x)
			out[i] *= phi + x*density*inverseRoot
		}
	}
}

func softmax(a *SoftmaxArgs) {
	for i := range a.Rows {
		x := span(a.X, 4*i*a.Cols, a.Cols)
		top := float32(math.Inf(-1))
		for _, v := range x {
			top = max(top, v)
		}
		sum := float32(0)
		for j, v := range x {
			e := exponent(v - top)
			x[j] = e
			sum += e
		}
		share := 1 / sum
		for j := range x {
			x[j] *= share
		}
	}
}

func softmaxBack(a *SoftmaxArgs) {
	for i := range a.Rows {
		x, grad := span(a.X, 4*i*a.Cols, a.Cols), span(a.Grad, 4*i*a.Cols, a.Cols)
		sum := float32(0)
		for j, v := range x {
			sum += v * grad[j]
		}
		for j, v := range x {
			grad[j] = v * (grad[j] - sum)
		}
	}
}

// moments returns the mean of x and the reciprocal of its deviation.
func moments(x []float32, eps float32) (mean, inverse float32) {
	sum := float64(0)
	for _, v := range x {
		sum += float64(v)
	}
	m := sum / float64(len(x))
	square := float64(0)
	for _, v := range x {
		d := float64(v) - m
		square += d * d
	}
	return float32(m), float32(1 / math.Sqrt(square/float64(len(x))+float64(eps)))
}

func layerNorm(a *LayerNormArgs) {
	weight, bias := span(a.Weight, 0, a.Channels), span(a.Bias, 0, a.Channels)
	for i := range a.Rows {
		x, out := span(a.In, i*a.Step, a.Channels), span(a.Out, i*a.Step, a.Channels)
		mean, inverse := moments(x, a.Eps)
		for c, v := range x {
			out[c] = (v-mean)*inverse*weight[c] + bias[c]
		}
	}
}

func layerNormBack(a *LayerNormArgs) {
	weight := span(a.Weight, 0, a.Channels)
	for i := range a.Rows {
		x, grad, out := span(a.In, i*a.Step, a.Channels), span(a.Grad, i*a.Step, a.Channels), span(a.Out, i*a.Step, a.Channels)
		mean, inverse := moments(x, a.Eps)
		sum, product := float64(0), float64(0)
		for c, v := range grad {
			d := v * weight[c]
			sum += float64(d)
			product += float64(d * (x[c] - mean))
		}
		first := float32(sum / float64(len(x)))
		second := float32(product/float64(len(x))) * inverse * inverse
		var res []float32
		if a.Res != nil {
			res = span(a.Res, i*a.Step, a.Channels)
		}
		for c, v := range grad {
			g := (v*weight[c] - first - (x[c]-mean)*second) * inverse
			if res != nil {
				g += res[c]
			}
			out[c] = g
		}
	}
}

func transpose(a *TransposeArgs) {
	out := span(a.Out, 0, (a.Cols-1)*a.OutStep/4+Lanes)
	for i, off := range a.InOff {
		o := i
		for _, v := range span(a.In, off, a.Cols) {
			out[o] = v * a.Scale
			o += int(a.OutStep / 4)
		}
	}
}

package coverage

import (
	"fmt"
	"math"
	"strings"
)

// StateFunc is the function that makes a neuron's state of its pooled
// activation z (the reference's o) and the pooled KL gradient g (its g_kl).
type StateFunc int

// The state functions of the reference, in its notation.
const (
	SigmoidOG StateFunc = iota // sigmoid(o*g_kl), the paper's and the default
	O                          // o
	G                          // g_kl
	OG                         // o*g_kl
	SigmoidO                   // sigmoid(o)
	SigmoidG                   // sigmoid(g_kl)
	TanhOG                     // tanh(o*g_kl)
)

var stateFuncNames = [...]string{
	SigmoidOG: "sigmoid(o*g_kl)",
	O:         "o",
	G:         "g_kl",
	OG:        "o*g_kl",
	SigmoidO:  "sigmoid(o)",
	SigmoidG:  "sigmoid(g_kl)",
	TanhOG:    "tanh(o*g_kl)",
}

// String returns the reference's name of the function.
func (f StateFunc) String() string {
	if !f.valid() {
		return fmt.Sprintf("StateFunc(%d)", int(f))
	}
	return stateFuncNames[f]
}

// ParseStateFunc finds a function by the name String gives it. The error for
// an unknown name lists the known ones.
func ParseStateFunc(name string) (StateFunc, error) {
	for f, n := range stateFuncNames {
		if n == name {
			return StateFunc(f), nil
		}
	}
	return 0, fmt.Errorf("coverage: unknown state function %q; known: %s", name, strings.Join(stateFuncNames[:], ", "))
}

// MarshalText writes the name, so that settings in JSON or YAML are readable.
func (f StateFunc) MarshalText() ([]byte, error) {
	if !f.valid() {
		return nil, fmt.Errorf("coverage: no state function has number %d", int(f))
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (f *StateFunc) UnmarshalText(text []byte) error {
	p, err := ParseStateFunc(string(text))
	if err != nil {
		return err
	}
	*f = p
	return nil
}

// UsesActivation tells whether the function reads z.
func (f StateFunc) UsesActivation() bool { return f != G && f != SigmoidG }

// UsesGradient tells whether the function reads g. Those that do not need only
// a forward pass.
func (f StateFunc) UsesGradient() bool { return f != O && f != SigmoidO }

func (f StateFunc) valid() bool { return f >= 0 && int(f) < len(stateFuncNames) }

// State returns the state of one neuron in the reference's float32 arithmetic:
//
//	o*g_kl    x = float32(z*g), the argument of sigmoid and tanh too
//	sigmoid   1 / (1 + exp(-alpha*x)), every step rounded to float32
//	tanh      tanh(x*alpha), the argument rounded to float32
//
// exp follows PyTorch's kernel bit for bit; tanh is rounded once from float64
// and so within one unit in the last place of PyTorch's. An argument that the
// function does not use may be anything. NaN stays NaN.
func (f StateFunc) State(alpha float64, z, g float32) float32 {
	return f.ofArgument(float32(alpha), f.argument(z, g))
}

// argument reduces z and g to the one value that the state rises with.
func (f StateFunc) argument(z, g float32) float32 {
	switch {
	case !f.UsesGradient():
		return z
	case !f.UsesActivation():
		return g
	}
	return float32(z * g)
}

func (f StateFunc) ofArgument(alpha, x float32) float32 {
	switch f {
	case SigmoidOG, SigmoidO, SigmoidG:
		return 1 / float32(1+exp32(float32(-alpha*x)))
	case TanhOG:
		return float32(math.Tanh(float64(float32(x * alpha))))
	}
	return x
}

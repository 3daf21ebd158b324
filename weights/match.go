package weights

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Spec is what a network wants of one tensor.
type Spec struct {
	Name  string
	Shape []int
}

// Match compares s with all that a network wants. The error lists every tensor
// that is missing, unexpected, of another shape, or holds NaN or an infinity;
// of a long list the first ten. A batch norm's num_batches_tracked may be there
// unasked, as it says nothing about the network.
func (s *StateDict) Match(want []Spec) error {
	var missing, shapes, values []string
	var read []check
	wanted := make(map[string]bool, len(want))
	for _, w := range want {
		wanted[w.Name] = true
		t, ok := s.tensors[w.Name]
		if !ok {
			missing = append(missing, w.Name)
			continue
		}
		if !slices.Equal(t.Shape, w.Shape) {
			shapes = append(shapes, fmt.Sprintf("%s is %s, want %s", w.Name, dims(t.Shape), dims(w.Shape)))
			continue
		}
		if n, ok := elements(t.Shape); !ok || n != int64(len(t.Data)) {
			shapes = append(shapes, fmt.Sprintf("%s is %s but holds %d values", w.Name, dims(t.Shape), len(t.Data)))
			continue
		}
		read = append(read, check{name: w.Name, data: t.Data})
	}
	each(len(read), func() func(int) {
		return func(i int) { read[i].bad = notFinite(read[i].data) }
	})
	for _, c := range read {
		if c.bad != "" {
			values = append(values, c.name+" "+c.bad)
		}
	}
	var unexpected []string
	for _, name := range s.names {
		if !wanted[name] && name != "num_batches_tracked" && !strings.HasSuffix(name, ".num_batches_tracked") {
			unexpected = append(unexpected, name)
		}
	}
	var parts []string
	for _, p := range []struct {
		what string
		list []string
	}{
		{"missing", missing}, {"unexpected", unexpected}, {"of the wrong shape", shapes}, {"not finite", values},
	} {
		if len(p.list) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s: %s", len(p.list), p.what, abbreviate(p.list)))
		}
	}
	if parts == nil {
		return nil
	}
	return fmt.Errorf("weights: %s: tensors do not fit the network: %s", s.source, strings.Join(parts, "; "))
}

// check is a tensor whose values are looked at, and what is wrong with them.
type check struct {
	name string
	data []float32
	bad  string
}

// notFinite describes the first value that is NaN or infinite, and the number of
// such values; "" when there is none.
func notFinite(data []float32) string {
	// The exponent of NaN and infinities is all ones: one more carries into the sign's
	// place.
	const one, rest = 1 << 23, 1<<31 - 1
	first, count := 0, 0
	const block = 1 << 10
	for at := 0; at < len(data); at += block {
		part := data[at:min(at+block, len(data))]
		carry := uint32(0)
		for _, v := range part {
			carry |= math.Float32bits(v)&rest + one
		}
		if carry <= rest {
			continue
		}
		for i, v := range part {
			if math.Float32bits(v)&rest+one > rest {
				if count == 0 {
					first = at + i
				}
				count++
			}
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("(%d of %d values, first %v at %d)", count, len(data), data[first], first)
}

func abbreviate(list []string) string {
	const most = 10
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s, ... and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

func dims(shape []int) string {
	if len(shape) == 0 {
		return "a scalar"
	}
	var b strings.Builder
	for i, d := range shape {
		if i > 0 {
			b.WriteByte('x')
		}
		fmt.Fprint(&b, d)
	}
	return b.String()
}

package kernel

import "unsafe"

// LanesArgs are the arguments of turning rows of weights into lanes, of which a tile
// reads whole vectors. For n in Count and l in Lanes:
//
//	Out[n*Lanes+l] = float32(float64(In[l*Step+n]) * Scale[l])
//
// or as it is if Scale is nil. Step is in bytes, Count at least 4.
type LanesArgs struct {
	In, Out *float32
	Scale   *[Lanes]float64
	Step    int64
	Count   int64
}

// Lanes returns the set's kernel for LanesArgs.
func (s *Set) Lanes() func(*LanesArgs) {
	if s == portable {
		return lanes
	}
	return machineLanes
}

// WinogradFilters are the arguments of the transform of Lanes filters at once: what
// [Winograd.Filter] makes of each. Value t of them lies Step bytes behind value t-1; the
// results of one plane lie Plane bytes behind those of the plane before.
type WinogradFilters struct {
	In, Out     *float32
	Step, Plane int64
}

func lanes(a *LanesArgs) {
	out := unsafe.Slice(a.Out, a.Count*Lanes)
	for l := range int64(Lanes) {
		in := at(a.In, l*a.Step, a.Count)
		if a.Scale == nil {
			for n, v := range in {
				out[int64(n)*Lanes+l] = v
			}
			continue
		}
		scale := a.Scale[l]
		for n, v := range in {
			out[int64(n)*Lanes+l] = float32(float64(v) * scale)
		}
	}
}

func winogradFilters(w Winograd, a *WinogradFilters) {
	var u [36 * Lanes]float32
	for l := range Lanes {
		var g [9]float32
		for t := range g {
			g[t] = at(a.In, int64(t)*a.Step, Lanes)[l]
		}
		w.Filter(&g, u[l:], Lanes)
	}
	for p := range w.Planes() {
		copy(at(a.Out, int64(p)*a.Plane, Lanes), u[p*Lanes:])
	}
}

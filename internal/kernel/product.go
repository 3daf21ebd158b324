package kernel

import (
	"fmt"
	"unsafe"
)

// ProductArgs are the arguments of the matrix products between the transforms of
// [Winograd], of rows of channels by the filters of Panels times Width output channels, for
// each of Planes planes:
//
//	for r := range Groups*Rows + Rest { for j := range Panels*Width {
//		acc := 0
//		for c := range 16*Depth {
//			acc += In[p*InPlane + c/16*Block + 16*r + c%16] * Weights[((p*Panels+j/Width)*16*Depth+c)*Width + j%Width]
//		}
//		Out[p*OutPlane + j/16*Block + 16*r + j%16] = acc
//	}}
//
// InPlane, OutPlane and Block are in bytes. That 16 channels of a row lie beside those of
// the next lets a kernel read and write without a look at a table, one cache line after the
// other. The sum runs in the order written, as that of TileArgs does.
type ProductArgs struct {
	In, Weights, Out  *float32
	InPlane, OutPlane int64
	Block             int64
	Depth             int64 // input channels, in 16s
	Groups            int64 // rows, in Rows
	Panels, Planes    int64
	Rest              int64 // rows behind those: none or as many as the product's
}

// Product is a kernel for ProductArgs.
type Product struct {
	// Width is how many output channels a panel has, Rows how many rows a group, Rest how many
	// there may be besides.
	Width, Rows, Rest int
	Run               func(*ProductArgs)
}

// Product returns the product of the widest panels that divide the number of channels, a
// multiple of Lanes.
func (s *Set) Product(channels int) Product {
	for _, p := range s.products {
		if channels%p.Width == 0 {
			return p
		}
	}
	panic(fmt.Sprintf("kernel: %d channels are not a multiple of %d", channels, Lanes))
}

// Round returns how a number of rows is rounded up to groups and perhaps a rest.
func (p Product) Round(rows int) (groups, rest int) {
	groups, left := rows/p.Rows, rows%p.Rows
	switch {
	case left == 0:
	case left <= p.Rest:
		rest = p.Rest
	default:
		groups++
	}
	return groups, rest
}

// portableRest is the rows of a block of addTap.
const portableRest = 3

// productPortable is the formula of ProductArgs in portable Go, in the blocks of oneTile.
func productPortable(a *ProductArgs) {
	depth := 4 * Lanes * Lanes * a.Depth // of a panel's weights, in bytes
	for p := range a.Planes {
		for panel := range a.Panels {
			weights := unsafe.Add(unsafe.Pointer(a.Weights), (p*a.Panels+panel)*depth)
			for row := int64(0); row < a.Groups*Rows+a.Rest; row += portableRest {
				in := p*a.InPlane + 4*Lanes*row
				out := unsafe.Add(unsafe.Pointer(a.Out), p*a.OutPlane+panel*a.Block+4*Lanes*row)
				sums := (*[3 * Lanes]float32)(out)
				for j := 0; j < Lanes; j += 2 {
					var block [6]float32
					for d := range a.Depth {
						x := vectorAt(a.In, in+d*a.Block)
						y := vectorAt(a.In, in+d*a.Block+4*Lanes)
						z := vectorAt(a.In, in+d*a.Block+8*Lanes)
						w := unsafe.Add(weights, 4*Lanes*Lanes*d+4*int64(j))
						addTap(&block, x[:], y[:], z[:], (*float32)(w))
					}
					sums[j], sums[j+1] = block[0], block[1]
					sums[Lanes+j], sums[Lanes+j+1] = block[2], block[3]
					sums[2*Lanes+j], sums[2*Lanes+j+1] = block[4], block[5]
				}
			}
		}
	}
}

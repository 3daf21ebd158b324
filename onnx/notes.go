package onnx

import "nac/nn"

// notes are what the importer remembers of nodes, to make one operation of
// several when it comes to the last.
type notes struct {
	selections map[*nn.Node]selection // of channels
	multiples  map[*nn.Node]multiple
	erfs       map[*nn.Node]*nn.Node // erf(x/sqrt 2), by x
	gates      map[*nn.Node]multiple // factor * (1 + erf(x/sqrt 2))
	norms      map[*nn.Node]norm     // layer norms written in steps
	strings    map[*nn.Node]tokens   // pixels in a row
	tables     map[*nn.Node]tokens   // pixels with constants
	linears    map[*nn.Node]linear

	// bypassed are nodes that something was made of not through them but through what
	// they were made of: gradients do not reach them all.
	bypassed map[*nn.Node]bool
	// private are nodes that no value of the model stood for as they were made.
	private map[*nn.Node]bool
}

func newNotes() notes {
	return notes{
		selections: map[*nn.Node]selection{}, multiples: map[*nn.Node]multiple{}, erfs: map[*nn.Node]*nn.Node{},
		gates: map[*nn.Node]multiple{}, norms: map[*nn.Node]norm{}, strings: map[*nn.Node]tokens{}, tables: map[*nn.Node]tokens{},
		linears: map[*nn.Node]linear{}, bypassed: map[*nn.Node]bool{},
		private: map[*nn.Node]bool{},
	}
}

type selection struct {
	node  *nn.Node
	index []int
}

// multiple is a factor times a node.
type multiple struct {
	node   *nn.Node
	factor float64
}

type norm struct {
	of           *nn.Node
	weight, bias []float32
	eps          float64
}

// tokens are the operands of nn.Graph.Pixels.
type tokens struct {
	of    *nn.Node
	index []int
	table []float32
}

// linear is a linear layer on a 1x1 activation, which may become the head.
type linear struct {
	in           *nn.Node
	weight, bias []float32
}

package states

import "nac/coverage"

// Filler adds what is missing of a set as it comes from a loader, which leaves out
// images that it cannot read.
type Filler struct {
	w       *Writer
	missing []int
	skipped func() []error
	next    int // index in missing
	skips   int
}

// Filler returns one for the images at Missing, to be called once, before the first
// is added. skipped returns why images were left out so far, in order.
func (w *Writer) Filler(skipped func() []error) *Filler {
	return &Filler{w: w, missing: w.Missing(), skipped: skipped}
}

// Add takes in what the network yielded for the images at index in Missing, rising:
// those between were left out. Of b positions and predictions are not read.
func (f *Filler) Add(index []int, b *Batch) error {
	for from := 0; from < b.N; {
		if err := f.skip(index[from]); err != nil {
			return err
		}
		to := from + 1
		for to < b.N && index[to] == index[to-1]+1 {
			to++
		}
		piece := &Batch{N: to - from}
		rows := func(v []float32) []float32 {
			width := len(v) / b.N
			return v[from*width : to*width]
		}
		piece.Logits, piece.Feature = rows(b.Logits), rows(b.Feature)
		for _, s := range b.States {
			piece.States = append(piece.States, coverage.States{Layer: s.Layer, Z: rows(s.Z), G: rows(s.G)})
		}
		classes := len(piece.Logits) / piece.N
		for i := range piece.N {
			piece.Predictions = append(piece.Predictions, largest(piece.Logits[i*classes:(i+1)*classes]))
			piece.Positions = append(piece.Positions, f.missing[index[from+i]])
		}
		if err := f.w.Add(piece); err != nil {
			return err
		}
		from = to
		f.next = index[to-1] + 1
	}
	return nil
}

// End says that no more images come: the others were left out.
func (f *Filler) End() error { return f.skip(len(f.missing)) }

// skip accounts for the images that were left out before the one at index to.
func (f *Filler) skip(to int) error {
	reasons := f.skipped()
	for ; f.next < to; f.next++ {
		reason := "it could not be read"
		if f.skips < len(reasons) {
			reason = reasons[f.skips].Error()
		}
		f.skips++
		if err := f.w.Skip(f.missing[f.next], reason); err != nil {
			return err
		}
	}
	return nil
}

// largest returns the first of the largest values.
func largest(v []float32) (at int) {
	for i, x := range v {
		if x > v[at] {
			at = i
		}
	}
	return at
}

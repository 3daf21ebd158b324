package search

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"nac/coverage"
	"nac/states"
)

// repeated is a Set of any length made of the same block of states over and over, so
// that a benchmark measures the search and not the making of numbers.
type repeated struct {
	n     int
	block states.Batch
}

func newRepeated(r *rand.Rand, n, rows, channels int, layers []string) *repeated {
	s := &repeated{n: n, block: states.Batch{N: rows}}
	for _, l := range layers {
		st := coverage.States{Layer: l, Z: make([]float32, rows*channels), G: make([]float32, rows*channels)}
		for i := range st.Z {
			st.Z[i], st.G[i] = r.Float32(), 0.02*float32(r.NormFloat64())
		}
		s.block.States = append(s.block.States, st)
	}
	return s
}

func (s *repeated) Images() int { return s.n }

func (s *repeated) Read(_ context.Context, _ states.Want, f func(*states.Batch) error) error {
	for from := 0; from < s.n; from += s.block.N {
		b := s.block
		if b.N = min(b.N, s.n-from); b.N < s.block.N {
			b.States = nil
			for _, l := range s.block.States {
				width := len(l.Z) / s.block.N
				b.States = append(b.States, coverage.States{Layer: l.Layer, Z: l.Z[:b.N*width], G: l.G[:b.N*width]})
			}
		}
		if err := f(&b); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkImageNetSized is a search as large as ImageNet's with ViT: 50,000 training
// images, 4 layers of 2,048 neurons, 5,000 images each of ID and OOD validation and of
// the sanity check, and the 576 combinations of ResNet-50's sweep.
//
//	go test ./search -run '^$' -bench ImageNetSized -benchtime 1x
func BenchmarkImageNetSized(b *testing.B) {
	space, err := Lookup("imagenet-resnet50")
	if err != nil {
		b.Fatal(err)
	}
	const channels = 2048
	of := map[string]int{}
	for _, l := range space.LayerNames() {
		of[l] = channels
	}
	r := rand.New(rand.NewPCG(1, 1))
	set := func(n int) Set { return newRepeated(r, n, 512, channels, space.LayerNames()) }
	data := Sets{Train: set(50_000), Val: set(5_000), ValOOD: set(5_000), SubTrain: set(5_000)}
	var table *Table
	b.Run("score", func(b *testing.B) {
		for b.Loop() {
			if table, err = Score(b.Context(), space, data, of, ScoreOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(65_000*float64(b.N)/b.Elapsed().Seconds(), "images/s")
		b.ReportMetric(peakMemory(), "peak-MB")
	})
	b.Run("search", func(b *testing.B) {
		n := 0
		for b.Loop() {
			found, err := table.Search(b.Context(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			n += len(found.Outcomes)
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "combinations/s")
	})
}

// peakMemory is the largest resident size of the process, 0 where that is not known.
func peakMemory() float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	kb, err := strconv.ParseFloat(strings.Fields(after + " 0")[0], 64)
	if err != nil {
		return 0
	}
	return kb / 1e3
}

package main

import (
	"bytes"
	"math"
	"testing"

	"nac/coverage"
	"nac/shard"
)

var layers = []coverage.LayerSettings{{Layer: "a", M: 20, O: 3, Alpha: 2}, {Layer: "b", M: 50, O: 10, Alpha: 0.5}}

var neurons = map[string]int{"a": 6, "b": 3}

// add counts images first to last of a toy network whose states are a function of the
// image's number.
func add(t *testing.T, c *coverage.Coverage, first, last int) {
	t.Helper()
	for i := first; i < last; i++ {
		var states []coverage.States
		for k, l := range layers {
			s := coverage.States{Layer: l.Layer}
			for n := range neurons[l.Layer] {
				s.Z = append(s.Z, float32(math.Sin(float64(1+i*(n+2)*(k+1)))))
				s.G = append(s.G, float32(math.Cos(float64(3+i+7*n))))
			}
			states = append(states, s)
		}
		if err := c.Add(states, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func encoded(t *testing.T, c *coverage.Coverage) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := c.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func empty(t *testing.T) *coverage.Coverage {
	t.Helper()
	c, err := coverage.New(layers, neurons)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A thousand workers, some of them slow, that die and do work twice, end in the counts of
// one process, to the byte.
func TestThousandWorkersCountExactly(t *testing.T) {
	const images = 12_011
	whole := empty(t)
	add(t, whole, 0, images)
	want := encoded(t, whole)
	for _, c := range []cluster{
		{workers: 1000, perImage: 1},
		{workers: 1000, perImage: 1, start: 5, slow: 0.05, factor: 10, fail: 0.1, again: true, seed: 1},
		{workers: 1000, perImage: 1, start: 5, slow: 0.3, factor: 4, fail: 0.4, again: true, seed: 2},
		{workers: 1000, perImage: 1, slow: 0.05, factor: 10, fail: 0.1, seed: 3},
	} {
		for _, shards := range []int{1000, 3000} {
			o, err := c.run(images, shards, func(s shard.Shard) ([]byte, error) {
				part := empty(t)
				first, last := s.Range(images)
				add(t, part, first, last)
				return encoded(t, part), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			sum := empty(t)
			for i := range o.results {
				data := o.results[(i*7+3)%shards] // in another order than they were made
				part, err := coverage.Decode("shard", bytes.NewReader(data), int64(len(data)))
				if err != nil {
					t.Fatal(err)
				}
				if err := sum.Merge(part); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(encoded(t, sum), want) {
				t.Errorf("%+v: other counts than those of one process", c)
			}
			if (c.fail > 0) != (o.failed > 0) || (c.again && c.slow > 0) != (o.duplicates > 0) || o.attempts < shards+o.failed+o.duplicates {
				t.Errorf("%+v: %d attempts, %d failed, %d duplicates", c, o.attempts, o.failed, o.duplicates)
			}
			t.Logf("%d shards: %.0f s, the least possible %.0f; %d attempts, %d failed, %d duplicates", shards, o.seconds, float64(images)/1000, o.attempts, o.failed, o.duplicates)
		}
	}
}

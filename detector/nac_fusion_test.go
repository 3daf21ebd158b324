package detector

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"nac/coverage"
)

// Parts that need further passes of the network: the sum of their scores, standardised
// by those of the images held out, which none of these parts is fitted on.
func TestFusionOfPasses(t *testing.T) {
	r := toy{rand.New(rand.NewPCG(31, 32))}
	train, val, id := r.batch(300, true), r.batch(40, true), r.batch(30, true)
	keys := []string{"ebo", "odin", "rankfeat"}
	s := toySettings()
	s.Fusion = keys
	d, err := New(fusionKey, s)
	if err != nil {
		t.Fatal(err)
	}
	fitOn(t, d, r.network(), train, val, 64)
	got := scores(t, d, id)

	held := newSample(1000, 0.2)
	var rows []int
	for i := range train.N {
		if _, take := held.next(); take {
			rows = append(rows, i)
		}
	}
	want := make([]float64, id.N)
	for _, key := range keys {
		part := fitted(t, key, train, val, 64)
		all := scores(t, part, train)
		var of []float64
		for _, i := range rows {
			of = append(of, all[i])
		}
		mean, std, err := spreadOf(of)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range scores(t, part, id) {
			want[i] += (v - mean) / std
		}
	}
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-9*(1+math.Abs(want[i])) {
			t.Fatalf("score %d is %v, want %v", i, got[i], want[i])
		}
	}

	s.Fusion = []string{"ebo", "mds_ensemble"}
	if d, err = New(fusionKey, s); err != nil {
		t.Fatal(err)
	}
	if err := d.Begin(r.network()); err == nil || !strings.Contains(err.Error(), "mds_ensemble cannot be a part") {
		t.Errorf("a part whose passes depend on fitting: %v", err)
	}
}

// A file from before mds_layers became a part scores as the program that wrote it did.
func TestFusionOfOldFile(t *testing.T) {
	key, d, err := Load("testdata/fusion_of_four.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if key != fusionKey || !slices.Equal(d.Settings().Fusion, []string{"nac_auto", "vim", "ebo", "rmds"}) {
		t.Fatalf("it is %s of %q", key, d.Settings().Fusion)
	}
	raw, err := os.ReadFile("testdata/fusion_of_four.json")
	if err != nil {
		t.Fatal(err)
	}
	var sets []struct {
		Logits, Feature, Pool, Early []float32
		Score                        []float64
	}
	if err := json.Unmarshal(raw, &sets); err != nil {
		t.Fatal(err)
	}
	for _, s := range sets {
		in := &Inputs{N: len(s.Score), Logits: s.Logits, Feature: s.Feature,
			States: []coverage.States{{Layer: toyLayer, Z: s.Pool}, {Layer: toyEarly, Z: s.Early}}}
		for i, got := range scores(t, d, in) {
			if math.Abs(got-s.Score[i]) > 1e-9*(1+math.Abs(s.Score[i])) {
				t.Errorf("score %d is %v, was %v", i, got, s.Score[i])
			}
		}
	}
}

package main

import (
	"maps"
	"strings"
	"testing"
)

func TestSet(t *testing.T) {
	for _, c := range []struct {
		yaml string
		args []string
		want map[string]float64
	}{
		{"", nil, nil},
		{"", []string{"--set", "knn.K=100"}, map[string]float64{"knn.K": 100}},
		{"", []string{"--set", "knn.K=100, ash.percentile = 82.5", "--set", "odin.noise=1e-3"}, map[string]float64{"knn.K": 100, "ash.percentile": 82.5, "odin.noise": 0.001}},
		{"params: {knn.K: 7, vim.dim: 3}\n", []string{"--set", "knn.K=9"}, map[string]float64{"knn.K": 9, "vim.dim": 3}},
	} {
		s, err := parseSettings(t, c.yaml, c.args...)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(s.Params, c.want) {
			t.Errorf("%v: %v, want %v", c.args, s.Params, c.want)
		}
	}
	for _, c := range []struct{ set, says string }{
		{"knn.K", "want DETECTOR.NAME=NUMBER"},
		{"K=3", "want DETECTOR.NAME"},
		{"kn.K=3", `there is no "kn"; one of `},
		{"knn.k=3", `--set: knn: there is no "k"; one of K`},
		{"msp.t=3", "msp has no settings of this kind"},
		{"knn.K=many", `"many" is not a number`},
		{"knn.K=", "is not a number"},
		{"knn.K=1e999", "is not a number that fits"},
		{"knn.K=NaN", "K is NaN; it must be 1 to "},
		{"knn.K=0", "K is 0; it must be 1 to "},
		{"knn.K=2.5", "whole number"},
		{"knn.K=2,knn.K=3", "knn.K is there twice"},
	} {
		if _, err := parseSettings(t, "", "--set", c.set); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("--set %s: %v, want an error saying %q", c.set, err, c.says)
		}
	}
	if _, err := parseSettings(t, "params: {knn.k: 3}\n"); err == nil || !strings.Contains(err.Error(), `settings.yaml: knn: there is no "k"`) {
		t.Errorf("a file with an unknown setting: %v", err)
	}
}

func TestSetOfDetectorsThatAreNotRun(t *testing.T) {
	var s setFlag
	params := map[string]float64{"vim.dim": 3}
	for _, c := range []struct {
		detectors, fusion []string
		says              string
	}{
		{[]string{"msp", "vim"}, nil, ""},
		{[]string{"nac_fusion"}, nil, ""},
		{[]string{"nac_fusion"}, []string{"nac", "knn"}, "vim.dim is set, but vim is not among the detectors"},
		{[]string{"msp"}, []string{"vim"}, "vim is not among the detectors"},
	} {
		err := s.used(params, c.detectors, c.fusion)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v %v: %v, want %q", c.detectors, c.fusion, err, c.says)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"nac/coverage"
	"nac/detector"
)

func parseSettings(t *testing.T, yaml string, args ...string) (detector.Settings, error) {
	t.Helper()
	var s settingsFlags
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.add(f)
	if yaml != "" {
		path := filepath.Join(t.TempDir(), "settings.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--settings", path)
	}
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	b, err := lookupBenchmark("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	return s.settings(b)
}

func TestSettings(t *testing.T) {
	// The NAC reference's for CIFAR-10.
	published := []coverage.LayerSettings{
		{Layer: "avgpool", M: 50, O: 50, Alpha: 100},
		{Layer: "layer3", M: 500, O: 100, Alpha: 1000},
		{Layer: "layer2", M: 50, O: 5, Alpha: 0.001},
		{Layer: "layer1", M: 500, O: 100, Alpha: 0.001},
	}
	for _, c := range []struct {
		name, yaml string
		args       []string
		want       detector.Settings
	}{
		{"published", "", nil, detector.Settings{Layers: published}},
		{"some layers", "", []string{"--layers", "layer3,avgpool"},
			detector.Settings{Layers: []coverage.LayerSettings{published[1], published[0]}}},
		{"a layer without published settings", "", []string{"--layers", "conv1"},
			detector.Settings{Layers: []coverage.LayerSettings{{Layer: "conv1", M: 50, O: 50, Alpha: 100}}}},
		{"for all layers", "", []string{"--layers", "avgpool,layer2", "--M", "60", "--O", "7", "--alpha", "2.5", "--state", "tanh(o*g_kl)"},
			detector.Settings{Layers: []coverage.LayerSettings{
				{Layer: "avgpool", M: 60, O: 7, Alpha: 2.5, Func: coverage.TanhOG}, {Layer: "layer2", M: 60, O: 7, Alpha: 2.5, Func: coverage.TanhOG}}}},
		{"for all, then for one", "", []string{"--layers", "avgpool,layer2", "--M", "60,layer2=80"},
			detector.Settings{Layers: []coverage.LayerSettings{
				{Layer: "avgpool", M: 60, O: 50, Alpha: 100}, {Layer: "layer2", M: 80, O: 5, Alpha: 0.001}}}},
		{"a file names the layers", "layers:\n- {layer: layer1, alpha: 3}\n- {layer: avgpool, M: 20, O: 2, func: o}\ntemperature: 2\n", nil,
			detector.Settings{Temperature: 2, Layers: []coverage.LayerSettings{
				{Layer: "layer1", M: 500, O: 100, Alpha: 3}, {Layer: "avgpool", M: 20, O: 2, Alpha: 100, Func: coverage.O}}}},
		{"flags go over the file", "layers:\n- {layer: avgpool, M: 20, O: 2}\ntemperature: 2\n", []string{"--O", "9", "--temperature", "3"},
			detector.Settings{Temperature: 3, Layers: []coverage.LayerSettings{{Layer: "avgpool", M: 20, O: 9, Alpha: 100}}}},
		{"the help's example", strings.ReplaceAll("\n"+settingsExample, "\n  ", "\n"), nil,
			detector.Settings{Temperature: 1, Layers: published[:2], Params: map[string]float64{"knn.K": 100}}},
		{"parts of a fusion", "", []string{"--layers", "avgpool", "--fusion", "nac,knn"},
			detector.Settings{Layers: published[:1], Fusion: []string{"nac", "knn"}}},
		{"an empty file", "# nothing\n", nil, detector.Settings{Layers: published}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseSettings(t, c.yaml, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestWrongSettingsFiles(t *testing.T) {
	for _, c := range []struct{ yaml, says string }{
		{"layer: avgpool\n", "layer"},
		{"layers:\n- {layer: avgpool, m: 50}\n", "field m"},
		{"layers:\n- {layer: avgpool, M: many}\n", "many"},
		{"layers:\n- {layer: avgpool, func: cosine}\n", "cosine"},
		{"layers:\n- {M: 50}\n", "no name"},
		{"layers:\n- {layer: avgpool}\n- {layer: avgpool}\n", "twice"},
		{"layers:\n- {layer: avgpool, O: 0}\n", "O = 0"},
		{"temperature: 0\n", "temperature"},
		{"\x00\x01\x02", "settings.yaml"},
		{strings.Repeat("#", 1<<20+1), "1 MiB"},
	} {
		if _, err := parseSettings(t, c.yaml); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: %v, want an error about %q", c.yaml, err, c.says)
		}
	}
	if _, err := parseSettings(t, "layers:\n- {layer: layer1}\n", "--layers", "avgpool"); err == nil || !strings.Contains(err.Error(), "layer1") {
		t.Errorf("a file with a layer that is not read: %v", err)
	}
}

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"nac/coverage"
	"nac/imageset"
	"nac/openood"
	"nac/quickstart"
	"nac/weights"
)

// fashion is the embedded benchmark. The settings of NAC follow a rule that reads
// ID training images alone: alpha is the reciprocal of the standard deviation of
// z*g over them, O is 3 % of their number; see bench/quickstart.
var fashion = openood.Benchmark{
	Name:   quickstart.Benchmark,
	Preset: "cifar10", // for its size; mean and std are replaced
	Train:  []string{"main_train_fashion"}, SubTrain: "sub_train_fashion",
	TrainImages: 1000,
	Val:         "val_fashion", Test: "test_fashion", ValOOD: "val_heldout",
	Near:    []openood.Set{{Name: "bag", List: "test_bag"}, {Name: "ankle_boot", List: "test_ankle_boot"}},
	Far:     []openood.Set{{Name: "mnist", List: "test_mnist"}},
	Layers:  fashionLayers,
	Recipes: []openood.Recipe{{Arch: quickstart.Arch, Layers: fashionLayers, Tuned: true}},
}

var fashionLayers = []coverage.LayerSettings{
	{Layer: "avgpool", M: 50, O: 30, Alpha: 3.090460546469974},
	{Layer: "layer3", M: 50, O: 30, Alpha: 0.048288446102766135},
	{Layer: "layer2", M: 50, O: 30, Alpha: 0.006951198030830241},
	{Layer: "layer1", M: 50, O: 30, Alpha: 0.0019111637218909865},
}

// benchmarks are OpenOOD's and the embedded one.
func benchmarks() []openood.Benchmark { return append(openood.Benchmarks(), fashion) }

func benchmarkNames() []string {
	var names []string
	for _, b := range benchmarks() {
		names = append(names, b.Name)
	}
	return names
}

func lookupBenchmark(name string) (openood.Benchmark, error) {
	for _, b := range benchmarks() {
		if b.Name == name {
			return b, nil
		}
	}
	return openood.Benchmark{}, oneOf("benchmark", name, benchmarkNames())
}

// transformOf returns a benchmark's transform, with the mean and std of its ID
// images.
func transformOf(b openood.Benchmark) (imageset.Transform, error) {
	t, err := imageset.Preset(b.Preset)
	if b.Name == quickstart.Benchmark {
		for c := range 3 {
			t.Mean[c], t.Std[c] = quickstart.Mean, quickstart.Std
		}
	}
	return t, err
}

// embeddedCheckpoint reads the quickstart's weights.
func embeddedCheckpoint(files fs.FS) (*weights.StateDict, error) {
	data, err := fs.ReadFile(files, quickstart.Checkpoint)
	if err != nil {
		return nil, err
	}
	return weights.Decode(quickstart.Checkpoint, bytes.NewReader(data), int64(len(data)))
}

// recipeNames lists for which benchmarks and architectures NAC's settings were
// published.
func recipeNames() string {
	var names []string
	for _, b := range openood.Benchmarks() {
		for _, r := range b.Recipes {
			if r.Tuned {
				names = append(names, b.Name+" --arch "+r.Arch)
			}
		}
	}
	return strings.Join(names, "\n  ")
}

// archName takes the spelling of the NAC reference's scripts: vit-b-16, swin-t.
func archName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// withCSID has the benchmark read covariate-shifted ID sets: none, all, or those
// named.
func withCSID(b *openood.Benchmark, sets string) error {
	if sets == "" {
		return nil
	}
	if len(b.CSID) == 0 {
		return usagef("--fsood: benchmark %s has no covariate-shifted ID sets", b.Name)
	}
	b.FullSpectrum = true
	if sets == "all" {
		return nil
	}
	var known []string
	for _, s := range b.CSID {
		known = append(known, s.Name)
	}
	named := strings.Split(sets, ",")
	for _, n := range named {
		if err := oneOf("--fsood", n, known); err != nil {
			return err
		}
	}
	b.CSID = slices.DeleteFunc(slices.Clone(b.CSID), func(s openood.Set) bool { return !slices.Contains(named, s.Name) })
	return nil
}

// notes say what one should know of NAC's figures.
func notes(b openood.Benchmark, flags *jobFlags, tuned bool) (notes []string) {
	if !slices.Contains(flags.detectors, "nac") {
		return nil
	}
	if !tuned && !flags.aps && flags.settingsFlags.untouched() && len(b.Recipes) > 0 {
		notes = append(notes, fmt.Sprintf("nac's settings were not made for this benchmark and network: they are those for %s. Search for better ones.", b.Recipes[0].Arch))
	}
	if b.Name != quickstart.Benchmark {
		notes = append(notes, "NAC is known to be weak on near-OOD: on OpenOOD's leaderboard its near-OOD AUROC is 75.90 on CIFAR-100 and 74.43 on ImageNet-1k, below plain MSP.")
	}
	return notes
}

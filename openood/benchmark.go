// Package openood runs OOD benchmarks as OpenOOD v1.5 defines them (Zhang et al.,
// "OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution Detection", 2023): it
// fits detectors on ID training images, scores the near-OOD and far-OOD sets
// against the ID test set, and makes tables and files of the result.
//
// A benchmark is data, not code: see Benchmarks. One pass over each set of images
// serves all detectors.
package openood

import (
	"fmt"
	"slices"
	"strings"

	"nac/coverage"
)

// Benchmark names the lists of a benchmark and its defaults. Lists are files
// benchmark_imglist/<Name>/<list>.txt.
type Benchmark struct {
	Name string
	// Preset is the transform's name in package imageset; its mean and std are
	// those of the ID set.
	Preset string
	// Train are the ID training images that detectors are fitted on: the first of
	// these lists that exists. SubTrain are training images that are not fitted on.
	Train    []string
	SubTrain string
	// TrainImages is how many of the training images are used by default.
	TrainImages int
	Val, Test   string
	// ValOOD is for choosing settings.
	ValOOD    string
	Near, Far []Set
	// Layers are NAC's published settings, the default layers first.
	Layers []coverage.LayerSettings
}

// Set is an OOD set: its name in tables and its list. Root is the folder of
// its images if it is not the benchmark's.
type Set struct{ Name, List, Root string }

func cifar(name, other string, layers []coverage.LayerSettings) Benchmark {
	return Benchmark{
		Name: name, Preset: name,
		Train: []string{"main_train_" + name, "train_" + name}, SubTrain: "sub_train_" + name,
		TrainImages: 1000,
		Val:         "val_" + name, Test: "test_" + name, ValOOD: "val_tin",
		Near: []Set{{Name: other, List: "test_" + other}, {Name: "tin", List: "test_tin"}},
		Far: []Set{
			{Name: "mnist", List: "test_mnist"}, {Name: "svhn", List: "test_svhn"},
			{Name: "texture", List: "test_texture"}, {Name: "places365", List: "test_places365"},
		},
		Layers: layers,
	}
}

// Benchmarks returns the benchmarks that are known by name.
func Benchmarks() []Benchmark {
	return []Benchmark{
		// The settings of the NAC reference for ResNet-18.
		cifar("cifar10", "cifar100", []coverage.LayerSettings{
			{Layer: "avgpool", M: 50, O: 50, Alpha: 100},
			{Layer: "layer3", M: 500, O: 100, Alpha: 1000},
			{Layer: "layer2", M: 50, O: 5, Alpha: 0.001},
			{Layer: "layer1", M: 500, O: 100, Alpha: 0.001},
		}),
		cifar("cifar100", "cifar10", []coverage.LayerSettings{
			{Layer: "avgpool", M: 50, O: 50, Alpha: 50},
			{Layer: "layer3", M: 1000, O: 500, Alpha: 10},
			{Layer: "layer2", M: 50, O: 500, Alpha: 1},
			{Layer: "layer1", M: 50, O: 5, Alpha: 0.005},
		}),
	}
}

// Lookup returns the benchmark of that name. The error for an unknown one lists
// those there are.
func Lookup(name string) (Benchmark, error) {
	var names []string
	for _, b := range Benchmarks() {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Benchmark{}, fmt.Errorf("openood: no benchmark %q; there are %s", name, strings.Join(names, ", "))
}

// LayerSettings returns NAC's settings for the named layers: the benchmark's own
// where it has them, else M=50, O=50, alpha=100.
func (b Benchmark) LayerSettings(layers []string) []coverage.LayerSettings {
	var s []coverage.LayerSettings
	for _, l := range layers {
		i := slices.IndexFunc(b.Layers, func(s coverage.LayerSettings) bool { return s.Layer == l })
		if i >= 0 {
			s = append(s, b.Layers[i])
			continue
		}
		s = append(s, coverage.LayerSettings{Layer: l, M: 50, O: 50, Alpha: 100})
	}
	return s
}

// LayerNames returns the names of the benchmark's default layers.
func (b Benchmark) LayerNames() []string {
	names := make([]string, len(b.Layers))
	for i, l := range b.Layers {
		names[i] = l.Layer
	}
	return names
}

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
	// Root is the folder of the images; empty means images_classic.
	Root string
	// Lists is the folder, beside that of Name, of lists that are not there.
	Lists string
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
	// CSID are covariate-shifted ID sets: the ID classes under other conditions.
	// They are read if FullSpectrum is set, and then also counted as ID.
	CSID         []Set
	FullSpectrum bool
	// Layers are NAC's settings, the default layers first.
	Layers []coverage.LayerSettings
	// Recipes are NAC's settings by architecture, the default one first; see For.
	Recipes []Recipe
	// Images is how many images OpenOOD's lists have, as far as that is known.
	Images map[string]int
}

// Recipe is how a benchmark is run with one architecture.
type Recipe struct {
	Arch string // of package arch
	// Preset and TrainImages are the benchmark's if they are empty.
	Preset      string
	TrainImages int
	// Layers are NAC's settings. Tuned tells whether they were found for this
	// benchmark and architecture; others are borrowed.
	Layers []coverage.LayerSettings
	Tuned  bool
}

// Set is an OOD or covariate-shifted ID set: its name in tables and its list.
// Root is the folder of its images if it is not the benchmark's. AsIs tells that
// its images are neither resized nor cropped.
type Set struct {
	Name, List, Root string
	AsIs             bool
}

// For returns the benchmark with the defaults for an architecture: those of its
// recipe, else, but for the transform, of the first one; tuned tells whether
// NAC's settings were found for it.
func (b Benchmark) For(arch string) (with Benchmark, tuned bool) {
	if len(b.Recipes) == 0 {
		return b, false
	}
	r := b.Recipes[0]
	i := slices.IndexFunc(b.Recipes, func(r Recipe) bool { return r.Arch == arch })
	if i >= 0 {
		r = b.Recipes[i]
		tuned = r.Tuned
		if r.Preset != "" {
			b.Preset = r.Preset
		}
	}
	if r.TrainImages > 0 {
		b.TrainImages = r.TrainImages
	}
	b.Layers = r.Layers
	return b, tuned
}

// ForSearch returns the benchmark with only those sets that a parameter search
// reads: Open then leaves Data.Test, Near and Far empty.
func (b Benchmark) ForSearch() Benchmark {
	b.Test, b.Near, b.Far, b.CSID, b.FullSpectrum = "", nil, nil, nil, false
	return b
}

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
		CSID:    []Set{{Name: name + "c", List: "test_" + name + "c"}},
		Layers:  layers,
		Recipes: []Recipe{{Arch: "resnet18_32x32", Layers: layers, Tuned: true}},
		Images: map[string]int{
			"train_" + name: 50000, "val_" + name: 1000, "test_" + name: 9000,
			"test_mnist": 70000, "test_svhn": 26032, "test_texture": 5640,
		},
	}
}

// imageNet is a benchmark of large images. The corrupted images of csID sets
// whose name ends in "_c" are made at the network's size.
func imageNet(name, suffix string, csid []string, recipes []Recipe) Benchmark {
	b := Benchmark{
		Name: name, Preset: name, Root: "images_largescale", Lists: "imagenet",
		Train: []string{"main_train_" + name, "train_" + name}, SubTrain: "sub_train_" + name,
		TrainImages: 1000,
		Val:         "val_" + name, Test: "test_" + name, ValOOD: "val_openimage_o",
		Near: []Set{{Name: "ssb_hard", List: "test_ssb_hard"}, {Name: "ninco", List: "test_ninco"}},
		Far: []Set{
			{Name: "inaturalist", List: "test_inaturalist"},
			{Name: "textures", List: "test_textures", Root: "images_classic"},
			{Name: "openimage_o", List: "test_openimage_o"},
		},
		Layers:  recipes[0].Layers,
		Recipes: recipes,
		Images: map[string]int{
			"test_ssb_hard": 49000, "test_ninco": 5879,
			"test_inaturalist": 10000, "test_textures": 5160, "test_openimage_o": 15869,
		},
	}
	for _, kind := range csid {
		b.CSID = append(b.CSID, Set{Name: "imagenet_" + kind, List: "test_imagenet" + suffix + "_" + kind, AsIs: kind == "c"})
	}
	return b
}

// Benchmarks returns the benchmarks that are known by name: the four of OpenOOD
// v1.5. Settings of NAC are those of its reference.
func Benchmarks() []Benchmark {
	cifar10 := cifar("cifar10", "cifar100", []coverage.LayerSettings{
		{Layer: "avgpool", M: 50, O: 50, Alpha: 100},
		{Layer: "layer3", M: 500, O: 100, Alpha: 1000},
		{Layer: "layer2", M: 50, O: 5, Alpha: 0.001},
		{Layer: "layer1", M: 500, O: 100, Alpha: 0.001},
	})
	cifar10.Images["test_cifar100"], cifar10.Images["val_tin"] = 9000, 1000
	cifar10.Images["test_tin"], cifar10.Images["test_places365"] = 7793, 35195
	cifar100 := cifar("cifar100", "cifar10", []coverage.LayerSettings{
		{Layer: "avgpool", M: 50, O: 50, Alpha: 50},
		{Layer: "layer3", M: 1000, O: 500, Alpha: 10},
		{Layer: "layer2", M: 50, O: 500, Alpha: 1},
		{Layer: "layer1", M: 50, O: 5, Alpha: 0.005},
	})
	cifar100.Images["test_cifar10"], cifar100.Images["val_tin"] = 10000, 972
	cifar100.Images["test_tin"], cifar100.Images["test_places365"] = 6526, 33773

	resnet50 := []coverage.LayerSettings{
		{Layer: "avgpool", M: 50, O: 10, Alpha: 3000},
		{Layer: "layer3", M: 50, O: 500, Alpha: 300},
		{Layer: "layer2", M: 500, O: 50, Alpha: 0.01},
		{Layer: "layer1", M: 1000, O: 5000, Alpha: 1},
	}
	// The reference has none for ImageNet-200 and for Swin-T. ResNet-50's are taken
	// for the former; for the latter those of ViT's layers by depth.
	imagenet200 := imageNet("imagenet200", "200", []string{"v2", "c", "r"},
		[]Recipe{{Arch: "resnet18_224x224", Layers: resnet50}})
	imagenet := imageNet("imagenet", "", []string{"v2", "c", "r", "es"}, []Recipe{
		{Arch: "resnet50", Preset: "resnet50_v1", Layers: resnet50, Tuned: true},
		{Arch: "vit_b_16", Preset: "vit_b_16_v1", TrainImages: 50000, Tuned: true, Layers: []coverage.LayerSettings{
			{Layer: "layer_norm", M: 50, O: 500, Alpha: 100},
			{Layer: "layer_11", M: 500, O: 50, Alpha: 1},
			{Layer: "layer_10", M: 500, O: 10, Alpha: 10},
			{Layer: "layer_9", M: 1000, O: 10, Alpha: 1},
		}},
		{Arch: "swin_t", Preset: "swin_t_v1", TrainImages: 50000, Layers: []coverage.LayerSettings{
			{Layer: "avgpool", M: 50, O: 500, Alpha: 100},
			{Layer: "layer_7", M: 500, O: 50, Alpha: 1},
			{Layer: "layer_5", M: 500, O: 10, Alpha: 10},
			{Layer: "layer_3", M: 1000, O: 10, Alpha: 1},
		}},
	})
	imagenet.Images["test_imagenet"], imagenet.Images["val_imagenet"] = 45000, 5000
	imagenet200.Images["test_imagenet200"], imagenet200.Images["val_imagenet200"] = 9000, 1000
	return []Benchmark{cifar10, cifar100, imagenet200, imagenet}
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

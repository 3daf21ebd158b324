package search

import (
	"fmt"
	"strings"
)

// Builtin returns the sweeps of the NAC reference.
func Builtin() []Space {
	layer := func(name string, o, m []int, alpha ...float64) LayerSpace {
		return LayerSpace{Layer: name, O: o, M: m, Alpha: alpha}
	}
	values := func(v ...int) []int { return v }
	return []Space{
		{"cifar10", []LayerSpace{
			layer("avgpool", values(10, 50), values(50), 100),
			layer("layer3", values(100), values(50, 500), 1000, 5000),
			layer("layer2", values(5, 10), values(50), 0.001),
			layer("layer1", values(5, 10, 50, 100), values(50, 500), 0.001, 0.005),
		}},
		{"cifar100", []LayerSpace{
			layer("avgpool", values(50), values(50, 500), 1, 50),
			layer("layer3", values(500), values(50, 500, 1000), 10, 50, 100),
			layer("layer2", values(100, 500), values(50, 500), 1),
			layer("layer1", values(5, 50), values(50), 0.005),
		}},
		{"imagenet-resnet50", []LayerSpace{
			layer("avgpool", values(10, 50, 500), values(50, 500), 3000),
			layer("layer3", values(100, 500), values(50, 500), 50, 100, 300),
			layer("layer2", values(50, 500), values(500), 0.01),
			layer("layer1", values(5000), values(500, 1000), 0.1, 1),
		}},
		{"imagenet-vit-b-16", []LayerSpace{
			layer("layer_norm", values(500), values(50, 500), 100),
			layer("layer_11", values(50, 500), values(50, 500), 1, 10),
			layer("layer_10", values(10, 50), values(50, 500), 10),
			layer("layer_9", values(10, 50), values(500, 1000), 1),
		}},
	}
}

// BuiltinNames lists the names that Lookup knows.
func BuiltinNames() []string {
	var names []string
	for _, s := range Builtin() {
		names = append(names, s.Name)
	}
	return names
}

// Lookup returns the built-in space of that name. The error for an unknown one
// lists those there are.
func Lookup(name string) (Space, error) {
	for _, s := range Builtin() {
		if s.Name == name {
			return s, nil
		}
	}
	return Space{}, fmt.Errorf("search: no space %q; there are %s", name, strings.Join(BuiltinNames(), ", "))
}

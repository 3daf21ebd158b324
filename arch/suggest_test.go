package arch

import (
	"slices"
	"testing"
)

func TestSuggested(t *testing.T) {
	for name, want := range map[string][]string{
		"resnet20":     {"avgpool", "layer3", "layer2", "layer1"},
		"resnet50":     {"avgpool", "layer3", "layer2", "layer1"},
		"mobilenet_v2": {"avgpool", "features.17", "features.13", "features.6"},
		"vit_b_16":     {"layer_norm", "layer_11", "layer_10", "layer_9"},
		"swin_t":       {"avgpool", "layer_7", "layer_5", "layer_3"},
	} {
		m, err := Load(name, made(t, name, 10, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Suggested(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestNetworkMistakes(t *testing.T) {
	m, err := Load("lenet", made(t, "lenet", 10, 1))
	if err != nil {
		t.Fatal(err)
	}
	good := Network{
		Name: "own", Graph: m.graph, Input: m.nodes[len(m.nodes)-1], Logits: m.logits, Feature: m.feature, Head: m.Head(),
		Layers: []NamedNode{{"first", m.nodes[len(m.nodes)-1]}, {"last", m.feature}},
	}
	own, err := good.Model()
	if err != nil {
		t.Fatal(err)
	}
	if len(own.Layers) != 2 || own.Layers[0].Name != "last" || own.Classes != 10 || own.Features != 84 {
		t.Errorf("a model with %v, %d classes and a feature of %d", own.Layers, own.Classes, own.Features)
	}
	for what, spoil := range map[string]func(n *Network){
		"no graph":        func(n *Network) { n.Graph = nil },
		"no feature":      func(n *Network) { n.Feature = nil },
		"wide logits":     func(n *Network) { n.Logits = n.Input },
		"foreign head":    func(n *Network) { n.Head.Weight = n.Head.Weight[1:] },
		"a name twice":    func(n *Network) { n.Layers[1].Name = "first" },
		"a layer of none": func(n *Network) { n.Layers[0].Node = nil },
	} {
		n := good
		n.Layers = slices.Clone(good.Layers)
		spoil(&n)
		if _, err := n.Model(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

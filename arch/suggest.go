package arch

import "slices"

// suggestedLayers is how many layers Suggested names beside the feature.
const suggestedLayers = 3

// Suggested returns layers to begin with: the penultimate feature and the last
// layer of each of the deepest image sizes, deepest first. A layer of which the
// feature is the mean over space says nearly the same, and is left out if there
// are sizes enough without it. Tokens have one size all through: of them the last
// layers are named. For ResNets and vision transformers these are the layers that
// the paper's settings for ImageNet choose from.
func (m *Model) Suggested() []string {
	var names []string
	var sizes [][2]int
	pooled, at := "", 0 // the layer whose mean the feature is, and its place in names
	for i, l := range m.Layers {
		if i+1 < len(m.nodes) && m.nodes[i+1] == m.nodes[i] {
			continue // a name of what has an earlier one
		}
		size := [2]int{l.Height, l.Width}
		tokens := l.Height == 1 && l.Width > 1
		switch in := m.InputSize; {
		case m.nodes[i] == m.feature && m.feature != m.logits && len(sizes) == 0:
			names = append(names, l.Name)
		case l.Height*l.Width == 1, slices.Contains(sizes, size) && !tokens, in == [3]int{l.Channels, l.Height, l.Width}:
		case m.feature.Averages(m.nodes[i]):
			pooled, at = l.Name, len(names)
		default:
			sizes = append(sizes, size)
			names = append(names, l.Name)
		}
		if len(sizes) == suggestedLayers {
			return names
		}
	}
	if pooled != "" {
		names = slices.Insert(names, at, pooled)
	}
	return names
}

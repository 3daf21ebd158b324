package arch

// suggestedSizes is how many image sizes Suggested looks at, from the deepest.
const suggestedSizes = 3

// Suggested returns layers to begin with: the penultimate feature and the last
// layer of each of the deepest image sizes, deepest first. For a ResNet those
// are the pooled feature and the outputs of its last three stages, which is what
// the paper's settings choose from.
func (m *Model) Suggested() []string {
	var names []string
	var sizes [][2]int
	for i, l := range m.Layers {
		if i+1 < len(m.nodes) && m.nodes[i+1] == m.nodes[i] {
			continue // a name of what has an earlier one
		}
		if l.Height*l.Width == 1 {
			if len(names) == 0 && m.nodes[i] == m.feature && m.feature != m.logits {
				names = append(names, l.Name)
			}
			continue
		}
		size := [2]int{l.Height, l.Width}
		if len(sizes) > 0 && sizes[len(sizes)-1] == size {
			continue
		}
		if in := m.InputSize; len(sizes) == suggestedSizes || in == [3]int{l.Channels, l.Height, l.Width} {
			break
		}
		sizes = append(sizes, size)
		names = append(names, l.Name)
	}
	return names
}

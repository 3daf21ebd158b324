package weights

import (
	"fmt"
	"strings"
)

// stateKeys are the names under which training scripts put the weights, the most
// telling first.
var stateKeys = []string{
	"state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
	"ema_state_dict", "state_dict_ema", "model_ema", "ema",
}

// notWeights are parts of the names of what a trainer keeps beside the network.
var notWeights = []string{"optim", "sched", "scaler"}

// prefixes that wrappers put before every name.
var prefixes = []string{"module.", "_orig_mod.", "model."}

// choose finds the state dict in what a pickle holds, by the rules Open states, and
// returns its tensors under their own names.
func choose(root any) ([]namedTensor, error) {
	m, ok := root.(*mapping)
	if !ok {
		return nil, fmt.Errorf("the file holds %s, not a mapping of names to tensors", describe(root))
	}
	list := find(m, make(map[*mapping]bool))
	if list == nil {
		return nil, fmt.Errorf("no mapping of names to tensors among the entries %s", abbreviate(m.keys()))
	}
	return unwrap(list)
}

// find returns nil when neither m nor anything inside it holds tensors. seen
// ends cycles and keeps shared mappings from being searched twice.
func find(m *mapping, seen map[*mapping]bool) []namedTensor {
	const deepest = 100
	if seen[m] || len(seen) > deepest*deepest {
		return nil
	}
	seen[m] = true
	values, keys := m.byName()
	if _, ok := values["param_groups"]; ok {
		return nil
	}
	for _, k := range stateKeys {
		if inner, ok := values[k].(*mapping); ok {
			if list := find(inner, seen); list != nil {
				return list
			}
		}
	}
	var list []namedTensor
	for _, k := range keys {
		if t, ok := values[k].(*tensor); ok {
			list = append(list, namedTensor{k, t})
		}
	}
	if list != nil {
		return list
	}
	for _, k := range keys {
		inner, ok := values[k].(*mapping)
		if !ok || training(k) {
			continue
		}
		if list := find(inner, seen); list != nil {
			return list
		}
	}
	return nil
}

func training(key string) bool {
	key = strings.ToLower(key)
	for _, word := range notWeights {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}

// byName returns the entries whose keys are strings, as a Python dict would hold
// them: in the order of first setting, with the value last set.
func (m *mapping) byName() (values map[string]any, keys []string) {
	values = make(map[string]any, len(m.pairs))
	for _, p := range m.pairs {
		k, ok := p.key.(string)
		if !ok {
			continue
		}
		if _, ok := values[k]; !ok {
			keys = append(keys, k)
		}
		values[k] = p.value
	}
	return values, keys
}

// keys describes the keys for an error.
func (m *mapping) keys() []string {
	list := []string{}
	for _, p := range m.pairs {
		if k, ok := p.key.(string); ok {
			list = append(list, quote(k))
		} else {
			list = append(list, describe(p.key))
		}
	}
	return list
}

// unwrap removes what wrappers add: AveragedModel's counter, then prefixes that
// every name carries.
func unwrap(list []namedTensor) ([]namedTensor, error) {
	out := make([]namedTensor, 0, len(list))
	for _, nt := range list {
		if nt.name != "n_averaged" {
			out = append(out, nt)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no tensors but a counter")
	}
	for {
		p := common(out)
		if p == "" {
			return out, nil
		}
		for i := range out {
			out[i].name = out[i].name[len(p):]
		}
	}
}

// common returns the first of prefixes that every name carries, with more behind it.
func common(list []namedTensor) string {
	for _, p := range prefixes {
		all := true
		for _, nt := range list {
			if !strings.HasPrefix(nt.name, p) || len(nt.name) == len(p) {
				all = false
				break
			}
		}
		if all {
			return p
		}
	}
	return ""
}

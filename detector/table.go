package detector

import (
	"fmt"
	"strings"

	"nac/coverage"
)

// Settings are the settings of all detectors; each reads its own.
type Settings struct {
	// Layers are nac's, one entry a layer. There is no default: it depends on
	// the network, see package openood's benchmarks.
	Layers []coverage.LayerSettings `json:"layers,omitempty"`
	// Temperature is ebo's; 0 means 1.
	Temperature float64 `json:"temperature,omitempty"`
	// Params are those of the other methods, by key and name, as "knn.k"; see
	// Method.Params. Absent ones have their defaults.
	Params map[string]float64 `json:"params,omitempty"`
}

// Method is an entry of the table of detectors.
type Method struct {
	Key   string // as given on the command line
	About string // what it does, in a few words
	Paper string // first author, venue and year
	make  func(Settings) (Detector, error)
	// Params are its settings in Settings.Params.
	Params []Param
}

// methods is the table, in the order in which it is shown.
var methods = []Method{
	{"nac", "neuron activation coverage (NAC-UE)", "Liu, ICLR 2024", newNAC, nil},
	{"msp", "maximum softmax probability", "Hendrycks, ICLR 2017", newMSP, nil},
	{"mls", "maximum logit", "Hendrycks, ICML 2022", newMLS, nil},
	{"ebo", "energy: log-sum-exp of the logits", "Liu, NeurIPS 2020", newEBO, nil},
	{"temp_scaling", "maximum softmax probability at a fitted temperature", "Guo, ICML 2017", newTempScaling, tempScalingParams},
	{"knn", "distance to the K-th nearest training image", "Sun, ICML 2022", newKNN, knnParams},
	{"mds", "Mahalanobis distance from the nearest class", "Lee, NeurIPS 2018", newMDS, nil},
	{"rmds", "the same relative to the distance from all classes", "Ren, 2021", newRMDS, nil},
	{"vim", "energy less the feature's residual as a further logit", "Wang, CVPR 2022", newVIM, vimParams},
	{"residual", "the feature's part outside of the principal subspace", "Wang, CVPR 2022", newResidual, residualParams},
	{"react", "energy of clipped features", "Sun, NeurIPS 2021", newReAct, reactParams},
	{"dice", "energy through the weights that matter most", "Sun, ECCV 2022", newDICE, diceParams},
	{"ash", "energy of the largest features made equal (ASH-B)", "Djurisic, ICLR 2023", newASH("ash", 'b'), ashParams},
	{"ash_s", "energy of the largest features scaled (ASH-S)", "Djurisic, ICLR 2023", newASH("ash_s", 's'), ashParams},
	{"ash_p", "energy of the largest features (ASH-P)", "Djurisic, ICLR 2023", newASH("ash_p", 'p'), ashParams},
	{"klm", "divergence from the nearest class's mean probabilities", "Hendrycks, ICML 2022", newKLM, nil},
	{"she", "inner product with the predicted class's mean feature", "Zhang, ICLR 2023", newSHE, nil},
	{"gen", "generalised entropy of the probabilities", "Liu, CVPR 2023", newGEN, genParams},
	{"gradnorm", "size of the last layer's gradient", "Huang, NeurIPS 2021", newGradNorm, nil},
	{"openmax", "probability of an unknown class", "Bendale, CVPR 2016", newOpenMax, openMaxParams},
}

// Methods returns the table of detectors.
func Methods() []Method { return append([]Method(nil), methods...) }

// Keys returns the keys of all detectors.
func Keys() []string {
	keys := make([]string, len(methods))
	for i, m := range methods {
		keys[i] = m.Key
	}
	return keys
}

// New returns the detector of that key, not fitted yet. The error for an unknown
// key lists those there are.
func New(key string, s Settings) (Detector, error) {
	for _, m := range methods {
		if m.Key == key {
			return m.make(s)
		}
	}
	return nil, fmt.Errorf("detector: no detector %q; there are %s", key, strings.Join(Keys(), ", "))
}

package dg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"nac/internal/mt19937"
)

// HParams are hyperparameters under DomainBed's names. Those that an algorithm does
// not have are zero.
type HParams struct {
	LR            float64 `json:"lr"`
	BatchSize     int     `json:"batch_size"` // images of each domain in a step
	WeightDecay   float64 `json:"weight_decay"`
	Dropout       float64 `json:"resnet_dropout"`
	ClassBalanced bool    `json:"class_balanced"` // draw classes evenly
	Optimizer     string  `json:"optimizer"`      // sgd, adam or adamw
	FreezeBN      bool    `json:"freeze_bn"`      // batch norms keep their statistics

	MixupAlpha  float64 `json:"mixup_alpha,omitempty"`
	MMDGamma    float64 `json:"mmd_gamma,omitempty"`
	IRMLambda   float64 `json:"irm_lambda,omitempty"`
	IRMAnneal   int     `json:"irm_penalty_anneal_iters,omitempty"`
	VRExLambda  float64 `json:"vrex_lambda,omitempty"`
	VRExAnneal  int     `json:"vrex_penalty_anneal_iters,omitempty"`
	GroupDROEta float64 `json:"groupdro_eta,omitempty"`
	SagWAdv     float64 `json:"sag_w_adv,omitempty"`

	// Of DANN: g is the network, which has no other lr and weight_decay, d the
	// discriminator.
	LRG            float64 `json:"lr_g,omitempty"`
	LRD            float64 `json:"lr_d,omitempty"`
	WeightDecayG   float64 `json:"weight_decay_g,omitempty"`
	WeightDecayD   float64 `json:"weight_decay_d,omitempty"`
	Lambda         float64 `json:"lambda,omitempty"`
	DStepsPerGStep int     `json:"d_steps_per_g_step,omitempty"`
	Beta1          float64 `json:"beta1,omitempty"`
	MLPWidth       int     `json:"mlp_width,omitempty"`
	MLPDepth       int     `json:"mlp_depth,omitempty"`
	MLPDropout     float64 `json:"mlp_dropout,omitempty"`
}

// DefaultHParams are those of the reference: of its registry, and for ERM those that
// its param_config sets for the data set.
func DefaultHParams(algorithm string, b Benchmark) HParams {
	h, _ := registry(algorithm, b, mt19937.New(0))
	if algorithm == "ERM" {
		if t, ok := tuned[b.Name]; ok {
			h.LR, h.Dropout, h.WeightDecay = t[0], t[1], t[2]
		}
	}
	return h
}

// tuned are learning rate, dropout and weight decay of the reference's ERM.
var tuned = map[string][3]float64{
	"PACS":           {1e-5, 0.1, 1e-4},
	"VLCS":           {1e-5, 0.1, 1e-4},
	"OfficeHome":     {1e-5, 0.5, 1e-6},
	"TerraIncognita": {3e-5, 0, 1e-4},
	"DomainNet":      {3e-5, 0.5, 1e-6},
}

// RandomHParams draws hyperparameters by a seed: the same ones as the reference's
// random_hparams.
func RandomHParams(algorithm string, b Benchmark, seed uint32) HParams {
	_, h := registry(algorithm, b, mt19937.New(seed))
	return h
}

// registry returns defaults and random values, drawn in the reference's order.
func registry(algorithm string, b Benchmark, m *mt19937.Source) (h, random HParams) {
	uniform := func(low, high float64) float64 { return low + (high-low)*m.Float64() }
	tenTo := func(low, high float64) float64 { return math.Pow(10, uniform(low, high)) }
	twoTo := func(low, high float64) int { return int(math.Pow(2, uniform(low, high))) }

	h = HParams{Optimizer: "adam", FreezeBN: true}
	random = h
	random.Dropout = []float64{0, 0.1, 0.5}[m.UpTo(2)]
	if b.Small() {
		h.LR, random.LR = 1e-3, tenTo(-4.5, -2.5)
		h.BatchSize, random.BatchSize = 64, twoTo(3, 9)
	} else {
		h.LR, random.LR = 5e-5, tenTo(-5, -3.5)
		largest := 5.5
		if b.Name == "DomainNet" {
			largest = 5
		}
		h.BatchSize, random.BatchSize = 32, twoTo(3, largest)
		random.WeightDecay = tenTo(-6, -2)
	}
	switch algorithm {
	case "Mixup":
		h.MixupAlpha, random.MixupAlpha = 0.2, tenTo(-1, -1)
	case "MMD", "CORAL":
		h.MMDGamma, random.MMDGamma = 1, tenTo(-1, 1)
	case "IRM":
		h.IRMLambda, random.IRMLambda = 100, tenTo(-1, 5)
		h.IRMAnneal, random.IRMAnneal = 500, int(tenTo(0, 4))
	case "VREx":
		h.VRExLambda, random.VRExLambda = 10, tenTo(-1, 5)
		h.VRExAnneal, random.VRExAnneal = 500, int(tenTo(0, 4))
	case "GroupDRO":
		h.GroupDROEta, random.GroupDROEta = 1e-2, tenTo(-3, -1)
	case "SagNet":
		h.SagWAdv, random.SagWAdv = 0.1, tenTo(-2, 1)
	case "DANN":
		if b.Small() {
			h.LRG, random.LRG = 1e-3, tenTo(-4.5, -2.5)
			h.LRD, random.LRD = 1e-3, tenTo(-4.5, -2.5)
		} else {
			h.LRG, random.LRG = 5e-5, tenTo(-5, -3.5)
			h.LRD, random.LRD = 5e-5, tenTo(-5, -3.5)
			random.WeightDecayG = tenTo(-6, -2)
		}
		h.Lambda, random.Lambda = 1, tenTo(-2, 2)
		random.WeightDecayD = tenTo(-6, -2)
		h.DStepsPerGStep, random.DStepsPerGStep = 1, twoTo(0, 3)
		_ = tenTo(-2, 1) // grad_penalty; see dann
		h.Beta1, random.Beta1 = 0.5, []float64{0, 0.5}[m.UpTo(1)]
		h.MLPWidth, random.MLPWidth = 256, twoTo(6, 10)
		h.MLPDepth, random.MLPDepth = 3, []int{3, 4, 5}[m.UpTo(2)]
		random.MLPDropout = []float64{0, 0.1, 0.5}[m.UpTo(2)]
	}
	return h, random
}

// Set changes hyperparameters by name, of values as JSON or YAML has them.
func (h *HParams) Set(values map[string]any) error {
	text, err := json.Marshal(values)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(h); err != nil {
		return fmt.Errorf("hyperparameters: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return h.Validate()
}

// SetText sets one from NAME=VALUE.
func (h *HParams) SetText(assignment string) error {
	name, text, ok := strings.Cut(assignment, "=")
	if !ok {
		return fmt.Errorf("%q is not NAME=VALUE", assignment)
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("%q: %w", assignment, err)
	}
	return h.Set(map[string]any{strings.TrimSpace(name): value})
}

// ReadYAML sets hyperparameters from a file: of "name: value" lines, or of sections
// as the reference's, ALGORITHM_DATASET_params, of which only the fitting one counts.
func (h *HParams) ReadYAML(path, algorithm string, b Benchmark) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var all map[string]any
	if err := yaml.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	values, section := map[string]any{}, fmt.Sprintf("%s_%s_params", algorithm, b.Name)
	for name, v := range all {
		inner, ok := v.(map[string]any)
		switch {
		case !ok:
			values[name] = v
		case name == section:
			for k, v := range inner {
				values[k] = v
			}
		}
	}
	if err := h.Set(values); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// maxBatch bounds the images of a domain in a step.
const maxBatch = 4096

func badHParam(name string, value any, want string) error {
	return fmt.Errorf("hyperparameters: %s is %v; it must be %s", name, value, want)
}

// finite tells whether a weight or rate is a number of 0 or above.
func finite(x float64) bool { return x >= 0 && !math.IsInf(x, 0) }

// Validate says what is wrong with the hyperparameters.
func (h HParams) Validate() error {
	switch {
	case !(h.LR > 0) || math.IsInf(h.LR, 0):
		return badHParam("lr", h.LR, "above 0")
	case h.BatchSize < 1 || h.BatchSize > maxBatch:
		return badHParam("batch_size", h.BatchSize, fmt.Sprintf("1 to %d", maxBatch))
	case !finite(h.WeightDecay):
		return badHParam("weight_decay", h.WeightDecay, "0 or above")
	case !(h.Dropout >= 0 && h.Dropout < 1):
		return badHParam("resnet_dropout", h.Dropout, "0 to below 1")
	case !finite(h.MixupAlpha) || !finite(h.MMDGamma) || !finite(h.IRMLambda) || !finite(h.VRExLambda) || !finite(h.GroupDROEta) || !finite(h.SagWAdv):
		return badHParam("a weight of the algorithm", "not a number of 0 or above", "one")
	case h.IRMAnneal < 0 || h.VRExAnneal < 0:
		return badHParam("penalty_anneal_iters", min(h.IRMAnneal, h.VRExAnneal), "0 or above")
	}
	_, err := optimizerSettings(h.Optimizer, h.WeightDecay)
	return err
}

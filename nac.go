// Package nac tells, for an image classifier of one's own, whether an image is of
// the kind that it was trained for (in-distribution, ID) or not (out-of-distribution,
// OOD). It is the door to the other packages: open a model, fit a detector on ID
// images, save it, and ask it about images.
//
//	model, err := nac.Open("model.onnx", "")
//	detector, err := nac.Fit(ctx, model, images, nac.FitOptions{})
//	err = detector.Save("detector.nac")
//
// and later, in a service:
//
//	model, err := nac.Open("model.onnx", "")
//	detector, err := nac.Load("detector.nac", model)
//	result, err := detector.ScoreFile(ctx, "photo.jpg")
//	if result.OOD { ... }
//
// The images to fit on come from package imageset: a folder, a list, tar shards. They
// need no labels. Part of them is held out of fitting and calibrates the detector, so
// that a score becomes a p-value: of images like these, at most a share p has one as
// low. An image is called OOD if its p-value is at most the false-alarm rate.
//
// A Detector may be used by many goroutines at once. Calls that arrive while the
// network is busy are run together as one batch; what an image yields does not
// depend on that.
package nac

import (
	"fmt"
	"path/filepath"
	"strings"

	"nac/arch"
	"nac/onnx"
	"nac/states"
	"nac/weights"
)

// Model is a classifier with its weights. It is read-only and may be shared.
type Model struct {
	network *arch.Model
	info    ModelInfo     // without the hash
	hash    func() string // waits until it is known
	batch   int           // most images of a run
	workers int           // goroutines of a run, 0 for all processors
}

// ModelInfo describes the model that a detector belongs to.
type ModelInfo struct {
	Name string `json:"name"`
	// Architecture is a name of package arch; empty for an ONNX model.
	Architecture string `json:"architecture,omitempty"`
	// Path is where the model was read from; empty if it came from no file.
	Path string `json:"path,omitempty"`
	// Hash tells models apart: the SHA-256 of a checkpoint's tensors, or of an ONNX
	// model's files.
	Hash    string `json:"sha256"`
	Classes int    `json:"classes"`
	// Input is channels, height and width of an image.
	Input [3]int `json:"input"`
}

// Open reads a classifier: an ONNX model (a file that ends in .onnx), or a checkpoint
// (PyTorch or safetensors) of the named architecture of package arch. The
// architecture of an ONNX model is empty.
func Open(path, architecture string) (*Model, error) {
	if strings.EqualFold(filepath.Ext(path), ".onnx") {
		if architecture != "" {
			return nil, fmt.Errorf("nac: %s: an ONNX model brings its own architecture, %q is one too many", path, architecture)
		}
		network, err := onnx.Load(path)
		if err != nil {
			return nil, err
		}
		hash, err := onnx.Hash(path)
		if err != nil {
			return nil, err
		}
		return newModel(network, known(hash), "", path), nil
	}
	if architecture == "" {
		return nil, fmt.Errorf("nac: %s is a checkpoint: name its architecture, one of %s", path, strings.Join(arch.Names(), ", "))
	}
	sd, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	hash := later(func() string { return states.HashModel(sd) })
	network, err := arch.Load(architecture, sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return newModel(network, hash, architecture, path), nil
}

// NewModel makes a model of a network that was built in Go, see [arch.Network]. The
// hash tells it from others, so that a detector is not used with other weights.
func NewModel(network *arch.Model, hash string) *Model {
	return newModel(network, known(hash), "", "")
}

func newModel(network *arch.Model, hash func() string, architecture, path string) *Model {
	return &Model{batch: batchImages, network: network, hash: hash, info: ModelInfo{
		Name: network.Name, Architecture: architecture, Path: path,
		Classes: network.Classes, Input: network.InputSize,
	}}
}

func known(hash string) func() string { return func() string { return hash } }

// later computes a hash while other work goes on.
func later(compute func() string) func() string {
	done := make(chan struct{})
	var hash string
	go func() {
		defer close(done)
		hash = compute()
	}()
	return func() string {
		<-done
		return hash
	}
}

// WithBatch returns the model as detectors are to use it that run at most so many images
// at once, 64 if not told otherwise. With 1, a lone image is answered soonest and
// loading takes least time and memory, but images that come together take turns. Convolutions are
// then computed in another way: scores may differ by float32 rounding. Less than 1 counts as 1.
func (m *Model) WithBatch(images int) *Model {
	other := *m
	other.batch = max(images, 1)
	return &other
}

// WithWorkers returns the model as detectors are to use it that compute on so many
// processors, on all (GOMAXPROCS) if not told otherwise or told less than 1. A program that
// answers others meanwhile raises GOMAXPROCS above it: the network's goroutines do
// not pause, and one that waits for their processor waits until it is taken from them, 10 ms.
// Results do not depend on it.
func (m *Model) WithWorkers(n int) *Model {
	other := *m
	other.workers = max(n, 0)
	return &other
}

// Info describes the model.
func (m *Model) Info() ModelInfo {
	info := m.info
	info.Hash = m.hash()
	return info
}

// Network returns the network itself, to look at its layers.
func (m *Model) Network() *arch.Model { return m.network }

// differs tells why a detector of model a cannot be used with model b, or is empty.
func (a ModelInfo) differs(b ModelInfo) string {
	switch {
	case a.Architecture != b.Architecture:
		return fmt.Sprintf("architecture %q against %q", a.Architecture, b.Architecture)
	case a.Classes != b.Classes:
		return fmt.Sprintf("%d classes against %d", a.Classes, b.Classes)
	case a.Input != b.Input:
		return fmt.Sprintf("images of %v against %v", a.Input, b.Input)
	case a.Hash != b.Hash:
		return fmt.Sprintf("weights of SHA-256 %.12s... against %.12s...", a.Hash, b.Hash)
	}
	return ""
}

package openood

import (
	"nac/detector"
	"nac/metric"
)

// Report is the result of a run. Numbers are fractions, times seconds.
type Report struct {
	Benchmark   string         `json:"benchmark"`
	Network     string         `json:"network"`    // architecture
	Checkpoint  string         `json:"checkpoint"` // its file
	Transform   string         `json:"transform"`
	Kernel      string         `json:"kernel"`
	TrainImages int            `json:"train_images"`
	Accuracy    Accuracy       `json:"id_accuracy"`
	Methods     []MethodResult `json:"methods"`
	Absent      []string       `json:"absent_sets,omitempty"`
	Partial     []Partial      `json:"partial_sets,omitempty"`
	Skipped     []string       `json:"skipped_images,omitempty"`
	Cache       string         `json:"cache,omitempty"` // folder of neuron states that sets were read from
	Estimate    Estimate       `json:"estimate"`
	Stages      []Stage        `json:"stages"`
	Conventions string         `json:"conventions"`
	// Tuned are the parameter searches that settings came from.
	Tuned []Tuned  `json:"parameter_search,omitempty"`
	Notes []string `json:"notes,omitempty"`
	// Scores are written to files of their own.
	Scores []*SetScores `json:"-"`
}

// Accuracy is the share of ID images classified rightly.
type Accuracy struct {
	Test       float64 `json:"test"`
	TestImages int     `json:"test_images"`
	Val        float64 `json:"val"`
	ValImages  int     `json:"val_images"`
	// CSID are the covariate-shifted ID sets of a full-spectrum run, and
	// FullSpectrum is the share over them and the test images.
	CSID         []SetAccuracy `json:"csid,omitempty"`
	FullSpectrum float64       `json:"full_spectrum,omitempty"`
}

// SetAccuracy is the share of one set's images classified rightly.
type SetAccuracy struct {
	Set      string  `json:"set"`
	Images   int     `json:"images"`
	Accuracy float64 `json:"accuracy"`
}

// All is the accuracy over validation and test together.
func (a Accuracy) All() float64 {
	n, m := float64(a.TestImages), float64(a.ValImages)
	return (a.Test*n + a.Val*m) / (n + m)
}

// MethodResult is one detector's part of the table.
type MethodResult struct {
	Key      string            `json:"key"`
	Settings detector.Settings `json:"settings"`
	Near     []Row             `json:"near"`
	Far      []Row             `json:"far"`
	// NearMean and FarMean are plain means over the sets, as OpenOOD's; nil
	// without sets.
	NearMean *metric.Result `json:"near_mean"`
	FarMean  *metric.Result `json:"far_mean"`
	// FullSpectrum is the same with covariate-shifted ID images counted as ID.
	FullSpectrum *FullSpectrum `json:"full_spectrum,omitempty"`
	Overfit      *Overfit      `json:"overfitting_check"`
	Cost         MethodCost    `json:"cost"`
}

// FullSpectrum are results against the ID test set and the covariate-shifted ID
// sets together (Yang et al., "Full-Spectrum Out-of-Distribution Detection",
// IJCV 2023).
type FullSpectrum struct {
	Near     []Row          `json:"near"`
	Far      []Row          `json:"far"`
	NearMean *metric.Result `json:"near_mean"`
	FarMean  *metric.Result `json:"far_mean"`
}

// Row is one OOD set against the ID test set.
type Row struct {
	Set    string        `json:"set"`
	Images int           `json:"images"`
	Result metric.Result `json:"result"`
}

// Overfit is the overfitting check: the AUROC between ID training images left out
// of fitting and ID validation images. 0.5 is right.
type Overfit struct {
	AUROC         float64 `json:"auroc"`
	StandardError float64 `json:"standard_error"`
	Warn          bool    `json:"warn"`
}

// MethodCost is the time of one detector over all sets, without the pass of the
// network that serves all, and the size of what fitting left.
type MethodCost struct {
	FitSeconds   float64 `json:"fit_seconds"`
	ScoreSeconds float64 `json:"score_seconds"`
	// PassSeconds is the time of further passes of the network for scoring; that of one
	// which detectors share counts for each.
	PassSeconds float64 `json:"pass_seconds,omitempty"`
	StateBytes  int64   `json:"state_bytes"`
}

// Stage is the cost of one set. WaitSeconds is the time the network stood still
// for want of decoded images.
type Stage struct {
	Set             string  `json:"set"`
	Images          int     `json:"images"`
	Seconds         float64 `json:"seconds"`
	WaitSeconds     float64 `json:"wait_seconds"`
	NetworkSeconds  float64 `json:"network_seconds"`
	DetectorSeconds float64 `json:"detector_seconds"`
	Cached          bool    `json:"cached,omitempty"` // read from a cache: the network did not run
}

// SetScores are the scores of every image of a set, in list order.
type SetScores struct {
	Set         string
	Paths       []string
	Labels      []int
	Predictions []int
	Scores      []MethodScores
}

// MethodScores are one detector's scores of a set.
type MethodScores struct {
	Key    string
	Values []float64
}

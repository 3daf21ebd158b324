package dg

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"nac/internal/atomicfile"
)

// Record is what is known of a checkpoint: a line of results.jsonl, under the
// reference's names.
type Record struct {
	Step  int     `json:"step"`
	Epoch float64 `json:"epoch"` // of the smallest training domain
	// Loss and Parts are means over the steps since the last checkpoint.
	Loss  float64            `json:"loss"`
	Parts map[string]float64 `json:"loss_parts,omitempty"`
	// Accuracies: of the in-splits and out-splits of test and training domains, means
	// over domains. TestIn is what a choice is judged by.
	TestIn       float64 `json:"test_in"`
	TestOut      float64 `json:"test_out"`
	TrainIn      float64 `json:"train_in"`
	TrainOut     float64 `json:"train_out"`
	TrainOutLoss float64 `json:"tr_outloss"`
	// Coverage is NAC-ME's: the mean over neurons of the share of bins that the
	// training domains' in-splits cover. CoverageSamples, the correctly classified of
	// them, were counted.
	Coverage        float64 `json:"coverage"`
	CoverageSamples int64   `json:"coverage_samples"`
	// Accuracies of each split, as env0_in_acc.
	Splits map[string]float64 `json:"splits"`
	// StepSeconds and EvalSeconds are the time of a step and of the evaluation.
	StepSeconds float64 `json:"step_time"`
	EvalSeconds float64 `json:"eval_time"`
	// Checkpoint is the weights' file; empty if it was not kept.
	Checkpoint string `json:"checkpoint,omitempty"`
	// SWAD is what the average came to; with the last checkpoint, if it was asked for.
	SWAD *Averaged `json:"swad,omitempty"`
	// Config is that of the run.
	Config *Config `json:"config,omitempty"`
}

// ReadRecords reads a results.jsonl.
func ReadRecords(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	var all []Record
	for line := 1; s.Scan(); line++ {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		var r Record
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, line, err)
		}
		all = append(all, r)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

func writeRecords(path string, records []Record, c *Config) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		for _, r := range records {
			r.Config = c
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	})
}

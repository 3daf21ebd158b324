package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// trainingRun is one of several checkpoints of the same network. The name is
// empty if there is only one.
type trainingRun struct{ name, checkpoint string }

// checkpointEndings are those of a training run's only checkpoint.
var checkpointEndings = []string{".ckpt", ".pth", ".pt", ".th", ".safetensors", ".onnx"}

// trainingRuns finds the checkpoints that --checkpoint and --runs mean: a file; a
// folder that holds runs s0, s1, ... as OpenOOD lays them out, all or those
// named; or files and folders named by --runs alone.
func trainingRuns(checkpoint string, names []string) ([]trainingRun, error) {
	if checkpoint == "" && len(names) == 0 {
		return nil, usagef("--checkpoint is missing: the file with the network's weights, or a folder of training runs")
	}
	dir := checkpoint
	if dir != "" {
		info, err := os.Stat(dir)
		isDir := err == nil && info.IsDir()
		if !isDir && len(names) > 0 {
			return nil, usagef("--runs names folders in that of --checkpoint, but %s is none", checkpoint)
		}
		if !isDir {
			return []trainingRun{{checkpoint: checkpoint}}, nil // whether it is there is found on reading
		}
		if len(names) == 0 {
			if dir, names, err = findRuns(dir); err != nil {
				return nil, err
			}
		}
	}
	var runs []trainingRun
	for _, name := range names {
		file, err := checkpointIn(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		r := trainingRun{strings.TrimSuffix(filepath.Base(name), filepath.Ext(file)), file}
		if r.name == "best" || r.name == "ckpt" {
			// The folders tell them apart.
			r.name = filepath.Base(filepath.Dir(file))
		}
		if slices.ContainsFunc(runs, func(o trainingRun) bool { return o.name == r.name }) {
			return nil, usagef("--runs: %s is there twice", r.name)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// findRuns returns the folders s0, s1, ... in dir, or in its only folder, as
// OpenOOD's archives have one.
func findRuns(dir string) (string, []string, error) {
	at := dir
	for range 4 {
		entries, err := os.ReadDir(at)
		if err != nil {
			return "", nil, usagef("--checkpoint: %w", err)
		}
		var runs, folders []string
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(at, e.Name())); err != nil || !info.IsDir() {
				continue
			}
			folders = append(folders, e.Name())
			if len(e.Name()) > 1 && strings.Trim(e.Name()[1:], "0123456789") == "" && e.Name()[0] == 's' {
				runs = append(runs, e.Name())
			}
		}
		switch {
		case len(runs) > 0:
			return at, runs, nil
		case len(folders) == 1:
			at = filepath.Join(at, folders[0])
		}
	}
	return "", nil, usagef("--checkpoint: %s is a folder without training runs s0, s1, ...; name a file in it, or folders with --runs", dir)
}

// checkpointIn returns a run's file: itself, or best.ckpt or the only checkpoint
// in its folder.
func checkpointIn(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", usagef("training run: %w", err)
	}
	if !info.IsDir() {
		return path, nil
	}
	if best := filepath.Join(path, "best.ckpt"); isFile(best) {
		return best, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("training run: %w", err)
	}
	var files []string
	for _, e := range entries {
		if slices.Contains(checkpointEndings, strings.ToLower(filepath.Ext(e.Name()))) {
			files = append(files, e.Name())
		}
	}
	if len(files) != 1 {
		return "", usagef("training run %s: want best.ckpt or just one checkpoint in it; there are %d (%s)", path, len(files), list(files))
	}
	return filepath.Join(path, files[0]), nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

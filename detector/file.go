package detector

import (
	"encoding/json"
	"fmt"
	"slices"

	"nac/internal/safetensors"
)

const (
	fileFormat  = "nac-detector"
	fileVersion = "1"
)

// Tensors returns what a fitted detector found out, for files that hold more than
// a detector; Restore takes it back.
func Tensors(d Detector) ([]safetensors.Tensor, error) { return d.tensors() }

// Restore makes the detector of a key, its settings and what Tensors returned,
// ready to score.
func Restore(key string, s Settings, f *safetensors.File) (Detector, error) {
	d, err := New(key, s)
	if err != nil {
		return nil, err
	}
	return d, d.restore(f)
}

// Save writes a fitted detector to a safetensors file, whole or not at all.
func Save(path, key string, d Detector) error {
	tensors, err := d.tensors()
	if err != nil {
		return fmt.Errorf("detector: save %s: %s: %w", path, key, err)
	}
	settings, err := json.Marshal(d.Settings())
	if err != nil {
		return fmt.Errorf("detector: save %s: %w", path, err)
	}
	meta := map[string]string{"format": fileFormat, "version": fileVersion, "detector": key, "settings": string(settings)}
	return safetensors.Write(path, tensors, meta)
}

// Load reads a detector that Save wrote, ready to score, and its key.
func Load(path string) (key string, d Detector, err error) {
	f, err := safetensors.Read(path)
	if err != nil {
		return "", nil, fmt.Errorf("detector: %w", err)
	}
	defer f.Close()
	meta := f.Metadata()
	if meta["format"] != fileFormat {
		return "", nil, fmt.Errorf("detector: %s is no detector file: its format is %q", path, meta["format"])
	}
	if meta["version"] != fileVersion {
		return "", nil, fmt.Errorf("detector: %s has version %q; this program reads %s", path, meta["version"], fileVersion)
	}
	key = meta["detector"]
	if !slices.Contains(Keys(), key) {
		return "", nil, fmt.Errorf("detector: %s holds a detector %q, which this program does not know", path, key)
	}
	var settings Settings
	if err = json.Unmarshal([]byte(meta["settings"]), &settings); err != nil {
		err = fmt.Errorf("settings: %w", err)
	} else {
		d, err = Restore(key, settings, f)
	}
	if err != nil {
		return "", nil, fmt.Errorf("detector: %s: %s: %w", path, key, err)
	}
	return key, d, nil
}

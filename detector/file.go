package detector

import (
	"encoding/json"
	"fmt"

	"nac/internal/safetensors"
)

const (
	fileFormat  = "nac-detector"
	fileVersion = "1"
)

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
	for _, m := range methods {
		if m.Key != key {
			continue
		}
		if d, err = m.load(f, meta["settings"]); err != nil {
			return "", nil, fmt.Errorf("detector: %s: %s: %w", path, key, err)
		}
		return key, d, nil
	}
	return "", nil, fmt.Errorf("detector: %s holds a detector %q, which this program does not know", path, key)
}

func (m Method) load(f *safetensors.File, settings string) (Detector, error) {
	var s Settings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	d, err := m.new(s)
	if err != nil {
		return nil, err
	}
	return d, d.restore(f)
}

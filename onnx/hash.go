package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Hash is the SHA-256, in hexadecimal, of a model's file followed by the files of
// external data that it names, sorted by name.
func Hash(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("onnx: %w", err)
	}
	h := sha256.New()
	h.Write(data)
	p, err := parseModel(data)
	if err != nil {
		return "", fmt.Errorf("onnx: %s: %w", filepath.Base(path), err)
	}
	for _, name := range p.externalFiles() {
		if err := hashFile(h, filepath.Dir(path), name); err != nil {
			return "", fmt.Errorf("onnx: %s: external data: %w", filepath.Base(path), err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashFile(to io.Writer, dir, name string) error {
	f, err := os.OpenInRoot(dir, filepath.FromSlash(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", name)
	}
	_, err = io.Copy(to, f)
	return err
}

// externalFiles returns the names of the files beside the model, each once.
func (p *modelProto) externalFiles() (names []string) {
	add := func(t *tensorProto) {
		if t != nil && t.external != nil {
			names = append(names, t.external["location"])
		}
	}
	for _, t := range p.graph.initializers {
		add(t)
	}
	for _, n := range p.graph.nodes {
		for _, a := range n.attributes {
			add(a.t)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

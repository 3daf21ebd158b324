package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nac/arch"
	"nac/detector"
	"nac/imageset"
	"nac/onnx"
	"nac/openood"
	"nac/states"
	"nac/weights"
)

// cacheFlags say where neuron states are kept. Empty means nowhere.
type cacheFlags struct{ cache string }

// The values of --cache that are not folders.
const (
	cacheAuto = "auto"
	cacheOff  = "off"
)

func (c *cacheFlags) add(cmd *cobra.Command, about string) {
	cmd.Flags().StringVar(&c.cache, "cache", cacheAuto, about)
	_ = cmd.MarkFlagDirname("cache")
}

// dir returns the folder of the cache, empty for none. The automatic one is below
// the data, by a name of the checkpoint's contents.
func (c *cacheFlags) dir(base, benchmark string, id states.Identity) string {
	switch {
	case c.cache == "" || c.cache == cacheOff || c.cache == cacheAuto && base == "":
		return ""
	case c.cache == cacheAuto:
		return filepath.Join(base, openood.CacheDirName(benchmark, id))
	}
	return c.cache
}

// maybe tells whether there can be a cache: if not, the checkpoint need not be
// hashed.
func (c *cacheFlags) maybe(base string) bool {
	if c.cache == "" || c.cache == cacheOff {
		return false
	}
	if c.cache != cacheAuto {
		return true
	}
	_, err := os.Stat(filepath.Join(base, filepath.Dir(openood.CacheDirName("", states.Identity{}))))
	return base != "" && err == nil
}

// source is a network that states are read from.
type source struct {
	model          *arch.Model
	checkpoint     string
	transform      imageset.Transform
	kernel         string
	batch, workers int
}

// identity describes the states of the named layers; it reads the checkpoint.
func (s source) identity(needs detector.Needs) (states.Identity, error) {
	id := states.Identity{
		Arch: s.model.Name, Checkpoint: filepath.Base(s.checkpoint), Classes: s.model.Classes, Features: s.model.Features,
		Gradients: needs.Gradients, Transform: describe(s.transform), Kernel: s.kernel,
	}
	for _, name := range needs.Layers {
		l, err := s.model.Layer(name)
		if err != nil {
			return id, usagef("--layers: %w", err)
		}
		id.Layers = append(id.Layers, states.Layer{Name: l.Name, Channels: l.Channels})
	}
	var err error
	id.ModelHash, err = modelHash(s.checkpoint)
	return id, err
}

// modelHash is the hash of a checkpoint's tensors, or of an ONNX model's files.
func modelHash(checkpoint string) (string, error) {
	if isONNX(checkpoint) {
		return onnx.Hash(checkpoint)
	}
	sd, err := weights.Open(checkpoint)
	if err != nil {
		return "", err
	}
	return states.HashModel(sd), nil
}

// errOtherCache explains what to do about a cache that does not fit.
func errOtherCache(dir string, why error) error {
	return fmt.Errorf("the cache in %s cannot be used: %w; name another folder with --cache, or --cache off", dir, why)
}

// use has the benchmark's sets read from a cache that is there. It returns lines that
// say what was used and what was not, and why. A cache that the user named must fit; the
// automatic one is passed over if it does not.
func (c *cacheFlags) use(data *openood.Data, s source, benchmark string, needs detector.Needs) (said []string, err error) {
	if !c.maybe(data.Base) {
		return nil, nil
	}
	want, err := s.identity(needs)
	if err != nil {
		return nil, err
	}
	dir := c.dir(data.Base, benchmark, want)
	named := c.cache != cacheAuto
	cache, err := states.Open(dir)
	if errors.Is(err, states.ErrNone) {
		if named {
			return nil, usagef("--cache: no neuron states in %s; \"nac states\" makes them", dir)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := cache.Identity().Serves(want); err != nil {
		if named {
			return nil, errOtherCache(dir, err)
		}
		return []string{fmt.Sprintf("cache: %s is not used: %v", dir, err)}, nil
	}
	used, absent, refused, err := data.UseCache(cache, data.Base)
	if err != nil {
		return nil, err
	}
	for _, r := range refused {
		if named {
			return nil, errOtherCache(dir, r.Why)
		}
		said = append(said, fmt.Sprintf("cache: %s is not read from %s: %v", r.Set, dir, r.Why))
	}
	if len(used) > 0 {
		line := fmt.Sprintf("cache: neuron states of %s are read from %s", list(used), dir)
		if len(absent) > 0 {
			line += "; it lacks " + list(absent)
		}
		said = append(said, line)
	}
	return said, nil
}

// fill returns the cache in dir with all the parts in it: it makes the cache, or takes
// up an earlier run, and runs the network over what is missing. A cache that holds
// more layers than asked for serves too, and is added to with all of them.
func (s source) fill(ctx context.Context, dir string, id states.Identity, parts []openood.Part, base string, progress openood.Progress) (*states.Cache, error) {
	lack := parts
	cache, err := states.Open(dir)
	switch {
	case errors.Is(err, states.ErrNone):
	case err != nil:
		return nil, err
	default:
		if err := cache.Identity().Serves(id); err != nil {
			return nil, errOtherCache(dir, err)
		}
		if lack, err = openood.Lacking(cache, parts, base); err != nil {
			return nil, err
		}
		if len(lack) == 0 {
			return cache, nil
		}
		id = cache.Identity()
	}
	if cache, err = states.Create(dir, id); err != nil {
		return nil, err
	}
	defer cache.Close()
	var names []string
	for _, l := range id.Layers {
		names = append(names, l.Name)
	}
	extract, err := s.model.NewExtractor(arch.Request{Layers: names, Gradients: id.Gradients, Kernel: s.kernel}, s.batch, s.workers)
	if err != nil {
		return nil, err
	}
	if err := openood.Extract(ctx, lack, base, cache, extract, progress); err != nil {
		return nil, err
	}
	return states.Open(dir)
}

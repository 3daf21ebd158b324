package states

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"slices"
	"strings"

	"nac/internal/memory"
	"nac/weights"
)

// Layer is a layer whose states are kept.
type Layer struct {
	Name     string `json:"name"`
	Channels int    `json:"channels"`
}

// Identity says what a cache was made of. Everything that changes what a network
// yields is in it.
type Identity struct {
	Arch       string `json:"arch"`
	Checkpoint string `json:"checkpoint"` // the file's name, for people
	// ModelHash is HashModel of the checkpoint.
	ModelHash string  `json:"model_sha256"`
	Classes   int     `json:"classes"`
	Features  int     `json:"features"`
	Layers    []Layer `json:"layers"`
	Gradients bool    `json:"gradients"`
	// Transform describes how images become the network's input, mean and std
	// included.
	Transform string `json:"transform"`
	// Kernel is the instruction set that computed: others differ in the last bits.
	Kernel string `json:"kernel"`
}

func (id Identity) validate() error {
	if id.Arch == "" || id.ModelHash == "" || id.Classes < 1 || id.Features < 1 {
		return fmt.Errorf("an incomplete identity: %+v", id)
	}
	for i, l := range id.Layers {
		if l.Name == "" || l.Channels < 1 {
			return fmt.Errorf("layer %q with %d channels", l.Name, l.Channels)
		}
		if slices.ContainsFunc(id.Layers[:i], func(o Layer) bool { return o.Name == l.Name }) {
			return fmt.Errorf("layer %q is there twice", l.Name)
		}
	}
	return nil
}

// Serves tells why a cache of this identity cannot stand in for a run of the
// wanted one, or returns nil. More layers than wanted do no harm, nor do gradients.
// An empty kernel accepts any.
func (id Identity) Serves(want Identity) error {
	switch {
	case id.Arch != want.Arch:
		return fmt.Errorf("it was made by a %s, not a %s", id.Arch, want.Arch)
	case id.ModelHash != want.ModelHash:
		return fmt.Errorf("it was made by another checkpoint (%s, SHA-256 of its tensors %.12s..., here %.12s...)", id.Checkpoint, id.ModelHash, want.ModelHash)
	case id.Transform != want.Transform:
		return fmt.Errorf("its images were transformed otherwise (%s; here %s)", id.Transform, want.Transform)
	case want.Kernel != "" && id.Kernel != want.Kernel:
		return fmt.Errorf("it was computed with %s, not %s", id.Kernel, want.Kernel)
	case want.Gradients && !id.Gradients:
		return fmt.Errorf("it holds no gradients")
	}
	for _, l := range want.Layers {
		if !slices.Contains(id.Layers, l) {
			return fmt.Errorf("it lacks layer %s (it has %s)", l.Name, id.layerNames())
		}
	}
	return nil
}

// same tells why a cache cannot be added to by a run of the wanted identity.
func (id Identity) same(want Identity) error {
	if err := id.Serves(want); err != nil {
		return err
	}
	if id.Gradients != want.Gradients {
		return fmt.Errorf("it holds gradients, which are not asked for here")
	}
	if !slices.Equal(id.Layers, want.Layers) {
		return fmt.Errorf("it has the layers %s, here are %s", id.layerNames(), want.layerNames())
	}
	return nil
}

func (id Identity) layerNames() string {
	var names []string
	for _, l := range id.Layers {
		names = append(names, l.Name)
	}
	return strings.Join(names, ", ")
}

// HashModel is the SHA-256, in hexadecimal, of a checkpoint's tensors: names,
// shapes and values, in the order of the names. The format and name of the file do
// not matter.
func HashModel(sd *weights.StateDict) string {
	h := sha256.New()
	names := sd.Names()
	slices.Sort(names)
	for _, name := range names {
		t, _ := sd.Lookup(name)
		fmt.Fprintf(h, "%q %v\n", name, t.Shape)
		hashFloats(h, t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashFloats writes the little-endian bytes of data.
func hashFloats(h hash.Hash, data []float32) {
	if raw, ok := memory.LittleEndian(data); ok {
		h.Write(raw)
		return
	}
	buf := make([]byte, 0, 1<<16)
	for len(data) > 0 {
		n := min(len(data), cap(buf)/4)
		buf = buf[:0]
		for _, v := range data[:n] {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		h.Write(buf)
		data = data[n:]
	}
}

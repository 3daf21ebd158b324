package states

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"strconv"

	"nac/internal/atomicfile"
	"nac/internal/safetensors"
)

// column is one tensor of every shard: width values for each image.
type column struct {
	name  string
	dtype string
	width int // 0: one value, and the tensor has one dimension
}

func (c column) rowBytes() int {
	size := 4
	if c.dtype == "BOOL" {
		size = 1
	}
	return size * max(c.width, 1)
}

func (c column) shape(rows int) []int {
	if c.width == 0 {
		return []int{rows}
	}
	return []int{rows, c.width}
}

func zName(layer string) string { return layer + ".z" }
func gName(layer string) string { return layer + ".g" }

func (id Identity) columns() []column {
	c := []column{
		{"positions", "I32", 0}, {"labels", "I32", 0}, {"predictions", "I32", 0}, {"correct", "BOOL", 0},
		{"logits", "F32", id.Classes}, {"feature", "F32", id.Features},
	}
	for _, l := range id.Layers {
		c = append(c, column{zName(l.Name), "F32", l.Channels})
		if id.Gradients {
			c = append(c, column{gName(l.Name), "F32", l.Channels})
		}
	}
	return c
}

// rowBytes is what one image takes in a shard.
func (id Identity) rowBytes() (n int) {
	for _, c := range id.columns() {
		n += c.rowBytes()
	}
	return n
}

// Skipped is an image that could not be read.
type Skipped struct {
	Position int    `json:"position"`
	Reason   string `json:"reason"`
}

// shardInfo is the metadata of a shard.
type shardInfo struct {
	set    string
	number int
	first  int // position of the first image
	count  int // images that the shard covers, with those skipped
	madeOf string
	skip   []Skipped
	sums   map[string]string // SHA-256 of each tensor's bytes
}

func (s shardInfo) rows() int { return s.count - len(s.skip) }

func (s shardInfo) metadata() (map[string]string, error) {
	skip, err := json.Marshal(s.skip)
	if err != nil {
		return nil, err
	}
	sums, err := json.Marshal(s.sums) // maps are sorted
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"format": format, "version": strconv.Itoa(version), "set": s.set, "shard": strconv.Itoa(s.number),
		"first": strconv.Itoa(s.first), "count": strconv.Itoa(s.count), "made_of": s.madeOf,
		"skipped": string(skip), "sha256": string(sums),
	}, nil
}

// writeShard writes a shard and returns its size and SHA-256.
func writeShard(path string, info shardInfo, columns []column, data [][]byte) (size int64, sum string, err error) {
	info.sums = map[string]string{}
	tensors := make([]safetensors.Tensor, len(columns))
	for i, c := range columns {
		tensors[i] = safetensors.Tensor{Name: c.name, DType: c.dtype, Shape: c.shape(info.rows()), Data: data[i]}
		s := sha256.Sum256(data[i])
		info.sums[c.name] = hex.EncodeToString(s[:])
	}
	meta, err := info.metadata()
	if err != nil {
		return 0, "", err
	}
	h := &counter{Hash: sha256.New()}
	err = atomicfile.Write(path, func(w io.Writer) error {
		return safetensors.Encode(io.MultiWriter(w, h), tensors, meta)
	})
	return h.n, hex.EncodeToString(h.Sum(nil)), err
}

type counter struct {
	hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

// opened is an open shard whose metadata and shapes are as they must be.
type opened struct {
	*safetensors.File
	path string
	info shardInfo
}

// openShard checks everything but the tensors' values. Of want, skip and sums are
// not compared.
func openShard(path string, want shardInfo, columns []column) (s *opened, err error) {
	f, err := safetensors.Read(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	meta := f.Metadata()
	var info shardInfo
	if err := json.Unmarshal([]byte(meta["skipped"]), &info.skip); err != nil {
		return nil, fmt.Errorf("metadata skipped: %w", err)
	}
	if err := json.Unmarshal([]byte(meta["sha256"]), &info.sums); err != nil {
		return nil, fmt.Errorf("metadata sha256: %w", err)
	}
	expect, err := want.metadata()
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"format", "version", "made_of", "set", "shard", "first", "count"} {
		if meta[key] != expect[key] {
			return nil, fmt.Errorf("its metadata has %s %.80q, not %q: it belongs to another cache", key, meta[key], expect[key])
		}
	}
	skip, sums := info.skip, info.sums
	info = want
	info.skip, info.sums = skip, sums
	at := want.first
	for _, s := range skip {
		if s.Position < at || s.Position >= want.first+want.count {
			return nil, fmt.Errorf("a skipped image at position %d", s.Position)
		}
		at = s.Position + 1
	}
	if names := f.Names(); len(names) != len(columns) {
		return nil, fmt.Errorf("%d tensors, want %d", len(names), len(columns))
	}
	for _, c := range columns {
		t, _, err := f.Section(c.name)
		if err != nil {
			return nil, err
		}
		if t.DType != c.dtype || !slices.Equal(t.Shape, c.shape(info.rows())) {
			return nil, fmt.Errorf("tensor %s is %s %v, want %s %v", c.name, t.DType, t.Shape, c.dtype, c.shape(info.rows()))
		}
	}
	return &opened{f, path, info}, nil
}

// bytes reads a tensor into buf, which grows if need be, and compares its checksum.
func (s *opened) bytes(name string, buf []byte) ([]byte, error) {
	_, r, err := s.Section(name)
	if err != nil {
		return nil, err
	}
	n := int(r.Size())
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", s.path, name, err)
	}
	if sum := sha256.Sum256(buf); hex.EncodeToString(sum[:]) != s.info.sums[name] {
		return nil, fmt.Errorf("%s: tensor %s: the checksum is wrong: the file was damaged", s.path, name)
	}
	return buf, nil
}

// float32s decodes buf into dst and refuses what is not finite.
func (s *opened) float32s(name string, buf []byte, dst []float32) ([]float32, error) {
	n := len(buf) / 4
	if cap(dst) < n {
		dst = make([]float32, n)
	}
	dst = dst[:n]
	for i := range dst {
		b := binary.LittleEndian.Uint32(buf[4*i:])
		if notFinite(b) {
			return nil, fmt.Errorf("%s: tensor %s: value %d is %v", s.path, name, i, math.Float32frombits(b))
		}
		dst[i] = math.Float32frombits(b)
	}
	return dst, nil
}

// notFinite tells NaN and infinities from the bits of a float32.
func notFinite(b uint32) bool { return b&0x7f800000 == 0x7f800000 }

func (s *opened) ints(buf []byte, dst []int) []int {
	dst = dst[:0]
	for ; len(buf) > 0; buf = buf[4:] {
		dst = append(dst, int(int32(binary.LittleEndian.Uint32(buf))))
	}
	return dst
}

package states

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"nac/internal/atomicfile"
)

const (
	format  = "nac-states"
	version = 1

	cacheFile = "cache.json"
	setFile   = "set.json"
	listFile  = "list.txt"
	lockFile  = ".lock"
)

// ErrNone is wrapped by Open's error about a folder that holds no cache.
var ErrNone = errors.New("no cache of neuron states")

// Cache is a folder of sets. It may be read from many goroutines at once.
type Cache struct {
	dir  string
	id   Identity
	lock *flock.Flock // held while writing
}

// header is cache.json.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Identity
}

// Open opens a cache for reading.
func Open(dir string) (*Cache, error) {
	var h header
	if err := readJSON(filepath.Join(dir, cacheFile), &h); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("states: %s: %w", dir, ErrNone)
	} else if err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	if h.Format != format || h.Version != version {
		return nil, fmt.Errorf("states: %s: format %q version %d; this program reads %q version %d", dir, h.Format, h.Version, format, version)
	}
	if err := h.validate(); err != nil {
		return nil, fmt.Errorf("states: %s: %w", filepath.Join(dir, cacheFile), err)
	}
	return &Cache{dir: dir, id: h.Identity}, nil
}

// Create opens a cache for writing, or makes one in a folder that is new or empty.
// A cache of another identity is refused with the reason, and so is one that another
// process writes to. Close it.
func Create(dir string, id Identity) (*Cache, error) {
	if err := id.validate(); err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != lockFile && name != cacheFile && !e.IsDir() && !isTemporary(name) {
			return nil, fmt.Errorf("states: %s holds other files, such as %s: name a folder of its own", dir, name)
		}
	}
	c := &Cache{dir: dir, id: id, lock: flock.New(filepath.Join(dir, lockFile))}
	ok, err := c.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("states: %s: lock: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("states: another process writes to %s", dir)
	}
	if err := c.begin(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cache) begin() error {
	// Nobody else writes here: what has a temporary name, a killed run left.
	if err := removeTemporary(c.dir); err != nil {
		return err
	}
	old, err := Open(c.dir)
	if err == nil {
		if err := old.id.same(c.id); err != nil {
			return fmt.Errorf("states: the cache in %s cannot be added to: %w", c.dir, err)
		}
		c.id = old.id // for the checkpoint's name
		return nil
	}
	if !errors.Is(err, ErrNone) {
		return err
	}
	return writeJSON(filepath.Join(c.dir, cacheFile), header{format, version, c.id})
}

// Close ends writing. It does nothing to a cache that is only read.
func (c *Cache) Close() error {
	if c.lock == nil {
		return nil
	}
	return c.lock.Close()
}

// Dir is the cache's folder.
func (c *Cache) Dir() string { return c.dir }

// Identity is what the cache was made of.
func (c *Cache) Identity() Identity { return c.id }

// Sets returns the names of the sets that are complete, sorted.
func (c *Cache) Sets() ([]string, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(c.dir, e.Name(), setFile)); err == nil && goodName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func isTemporary(name string) bool {
	ok, _ := filepath.Match(".nac-*.tmp", name)
	return ok
}

func removeTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("states: %w", err)
	}
	for _, e := range entries {
		if isTemporary(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("states: %w", err)
			}
		}
	}
	return nil
}

func writeJSON(path string, v any) error {
	err := atomicfile.Write(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	})
	if err != nil {
		return fmt.Errorf("states: %w", err)
	}
	return nil
}

// readJSON refuses keys that it does not know: they would change what is meant.
func readJSON(path string, v any) error {
	const limit = 64 << 20
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return fmt.Errorf("%s is not a file of less than 64 MiB", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

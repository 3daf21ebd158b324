package states

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"nac/coverage"
	"nac/internal/atomicfile"
)

// shardBytes is about the size of a shard: what is lost when a run is killed, and
// what reading and writing hold in memory.
const shardBytes = 16 << 20

// setInfo is set.json.
type setInfo struct {
	Set      string      `json:"set"`
	Group    string      `json:"group"`
	Images   int         `json:"images"` // of the list
	Rows     int         `json:"rows"`   // without those skipped
	ListHash string      `json:"list_sha256"`
	PerShard int         `json:"images_per_shard"`
	MadeOf   string      `json:"made_of"` // of identity, list and size of shards
	Shards   []shardFile `json:"shards"`
	Skipped  []Skipped   `json:"skipped,omitempty"`
	// Part is there if the list is a shard of another.
	Part *Part `json:"part,omitempty"`
}

type shardFile struct {
	File  string `json:"file"`
	Rows  int    `json:"rows"`
	Bytes int64  `json:"bytes"`
	Hash  string `json:"sha256"`
}

func shardName(number int) string { return fmt.Sprintf("%05d.safetensors", number) }

// madeOf is the one string in which shards of different sets differ.
func madeOf(id Identity, listHash string, perShard int) (string, error) {
	text, err := json.Marshal(id)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(text, "\n%s\n%d", listHash, perShard))
	return hex.EncodeToString(sum[:]), nil
}

// Writer adds one set to a cache. It is not for concurrent use.
type Writer struct {
	cache   *Cache
	list    List
	info    setInfo
	columns []column
	done    []bool // per shard
	missing []int  // positions to come, rising
	next    int    // index in missing of the next one
	data    [][]byte
	skip    []Skipped // of the shard at hand
	rows    int       // likewise
}

// Batch is what a network yields for N images.
type Batch struct {
	N int
	// Positions are the images' places in the list, rising.
	Positions []int
	// Labels and Correct are filled in when reading; writing takes labels from the
	// list.
	Labels      []int
	Predictions []int
	Correct     []bool
	Logits      []float32 // N×K
	Feature     []float32 // N×F
	States      []coverage.States
}

// Options are the settings of a Writer.
type Options struct {
	// PerShard is how many images a shard covers; 0 means as many as give shards
	// of about 16 MiB. It must be the same when a run is taken up again.
	PerShard int
}

// Begin starts to write a set, or takes up one that was begun: Missing tells what
// is left to do. What another list or identity left is refused. A set
// that is complete has nothing missing; End it all the same.
func (c *Cache) Begin(list List, o Options) (*Writer, error) {
	if c.lock == nil {
		return nil, errors.New("states: the cache is open for reading only")
	}
	if err := list.validate(); err != nil {
		return nil, err
	}
	if o.PerShard <= 0 {
		o.PerShard = min(max(shardBytes/c.id.rowBytes(), 1), 4096)
	}
	w := &Writer{cache: c, list: list, columns: c.id.columns()}
	w.info = setInfo{Set: list.Name, Group: list.Group, Images: len(list.Items), ListHash: list.Hash(), PerShard: o.PerShard, Part: list.Part}
	var err error
	if w.info.MadeOf, err = madeOf(c.id, w.info.ListHash, o.PerShard); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(w.dir(), 0o777); err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	if err := removeTemporary(w.dir()); err != nil {
		return nil, err
	}
	if err := w.resume(); err != nil {
		return nil, fmt.Errorf("states: set %s in %s: %w", list.Name, c.dir, err)
	}
	w.data = make([][]byte, len(w.columns))
	return w, nil
}

func (w *Writer) dir() string { return filepath.Join(w.cache.dir, w.list.Name) }

// resume finds the shards that are there and whole.
func (w *Writer) resume() error {
	var old setInfo
	err := readJSON(filepath.Join(w.dir(), setFile), &old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && (old.MadeOf != w.info.MadeOf || !samePart(old.Part, w.info.Part)) {
		return fmt.Errorf("it is there, of %s; delete its folder to make it anew", otherList(old, w.info))
	}
	path := filepath.Join(w.dir(), listFile)
	if _, err := os.Stat(path); err != nil {
		if err := atomicfile.Write(path, w.list.write); err != nil {
			return err
		}
	}
	for first := 0; first < len(w.list.Items); first += w.info.PerShard {
		number := first / w.info.PerShard
		file := shardFile{File: shardName(number)}
		err := w.verify(&file, number)
		if errors.Is(err, fs.ErrNotExist) {
			for i := range w.count(number) {
				w.missing = append(w.missing, first+i)
			}
		} else if err != nil {
			return fmt.Errorf("%w; delete the set's folder to make it anew", err)
		}
		w.done = append(w.done, err == nil)
		w.info.Shards = append(w.info.Shards, file)
	}
	return nil
}

// otherList says in which way a set is of other images.
func otherList(have, want setInfo) string {
	switch {
	case have.Part != nil && want.Part != nil && have.Part.Shard != want.Part.Shard:
		return fmt.Sprintf("shard %v, not %v", have.Part.Shard, want.Part.Shard)
	case have.Part != nil && want.Part == nil:
		return fmt.Sprintf("shard %v, not of the whole list; \"nac merge\" puts shards together", have.Part.Shard)
	case have.Images != want.Images:
		return fmt.Sprintf("%d images, not %d", have.Images, want.Images)
	case have.ListHash != want.ListHash:
		return "another list (paths, sizes or labels differ)"
	case have.PerShard != want.PerShard:
		return fmt.Sprintf("shards of %d images, not %d", have.PerShard, want.PerShard)
	}
	return "another network or transform"
}

// count is how many images a shard covers.
func (w *Writer) count(number int) int {
	return min(w.info.PerShard, len(w.list.Items)-number*w.info.PerShard)
}

func (w *Writer) shardInfo(number int) shardInfo {
	return shardInfo{
		set: w.list.Name, number: number, first: number * w.info.PerShard, count: w.count(number),
		madeOf: w.info.MadeOf, skip: []Skipped{},
	}
}

// verify reads a shard that an earlier run left, to the last byte.
func (w *Writer) verify(file *shardFile, number int) error {
	path := filepath.Join(w.dir(), file.File)
	s, err := openShard(path, w.shardInfo(number), w.columns)
	if err != nil {
		return err
	}
	defer s.Close()
	var buf []byte
	for _, c := range w.columns {
		if buf, err = s.bytes(c.name, buf); err != nil {
			return err
		}
	}
	if file.Bytes, file.Hash, err = hashFile(path); err != nil {
		return err
	}
	file.Rows = s.info.rows()
	w.info.Skipped = append(w.info.Skipped, s.info.skip...)
	return nil
}

func hashFile(path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// Missing returns the positions that Add or Skip must be told of, rising.
func (w *Writer) Missing() []int { return w.missing }

// Skip notes that the next missing image, which must be the one at position, could
// not be read.
func (w *Writer) Skip(position int, reason string) error {
	if err := w.expect(position); err != nil {
		return err
	}
	w.skip = append(w.skip, Skipped{position, reason})
	return w.advance()
}

// Add takes in the next missing images, which must be those at b.Positions. States
// must be there of each of the cache's layers; others are ignored. A value that
// is not finite is an error that names the image.
func (w *Writer) Add(b *Batch) error {
	id := w.cache.id
	rows := map[string][]float32{"logits": b.Logits, "feature": b.Feature}
	for _, s := range b.States {
		rows[zName(s.Layer)], rows[gName(s.Layer)] = s.Z, s.G
	}
	for _, c := range w.columns {
		if c.dtype == "F32" && len(rows[c.name]) != b.N*c.width {
			return fmt.Errorf("states: set %s: %d values of %s for %d images of %d", w.list.Name, len(rows[c.name]), c.name, b.N, c.width)
		}
	}
	if len(b.Positions) != b.N || len(b.Predictions) != b.N {
		return fmt.Errorf("states: set %s: %d positions and %d predictions of %d images", w.list.Name, len(b.Positions), len(b.Predictions), b.N)
	}
	for row, position := range b.Positions {
		if err := w.expect(position); err != nil {
			return err
		}
		if p := b.Predictions[row]; p < 0 || p >= id.Classes {
			return fmt.Errorf("states: set %s: prediction %d of %d classes", w.list.Name, p, id.Classes)
		}
		label := w.list.Items[position].Label
		for i, c := range w.columns {
			switch c.name {
			case "positions":
				w.data[i] = appendInt(w.data[i], position)
			case "labels":
				w.data[i] = appendInt(w.data[i], label)
			case "predictions":
				w.data[i] = appendInt(w.data[i], b.Predictions[row])
			case "correct":
				right := byte(0)
				if label == b.Predictions[row] {
					right = 1
				}
				w.data[i] = append(w.data[i], right)
			default:
				to := w.data[i]
				for _, v := range rows[c.name][row*c.width:][:c.width] {
					bits := math.Float32bits(v)
					if notFinite(bits) {
						return fmt.Errorf("states: set %s: %s of %s is %v; are checkpoint, mean and std the right ones?",
							w.list.Name, c.name, w.list.Items[position].Path, v)
					}
					to = binary.LittleEndian.AppendUint32(to, bits)
				}
				w.data[i] = to
			}
		}
		w.rows++
		if err := w.advance(); err != nil {
			return err
		}
	}
	return nil
}

func appendInt(b []byte, v int) []byte { return binary.LittleEndian.AppendUint32(b, uint32(int32(v))) }

func (w *Writer) expect(position int) error {
	if w.next == len(w.missing) || w.missing[w.next] != position {
		return fmt.Errorf("states: set %s: the image at position %d out of turn", w.list.Name, position)
	}
	return nil
}

// advance writes the shard if its last image has come.
func (w *Writer) advance() error {
	number := w.missing[w.next] / w.info.PerShard
	w.next++
	if w.rows+len(w.skip) < w.count(number) {
		return nil
	}
	info := w.shardInfo(number)
	info.skip = append(info.skip, w.skip...)
	file := &w.info.Shards[number]
	var err error
	if file.Bytes, file.Hash, err = writeShard(filepath.Join(w.dir(), file.File), info, w.columns, w.data); err != nil {
		return fmt.Errorf("states: %w", err)
	}
	file.Rows = w.rows
	w.info.Skipped = append(w.info.Skipped, w.skip...)
	w.done[number] = true
	for i := range w.data {
		w.data[i] = w.data[i][:0]
	}
	w.rows, w.skip = 0, nil
	return nil
}

// End completes the set. It fails if an image has not come.
func (w *Writer) End() error {
	if w.next < len(w.missing) {
		return fmt.Errorf("states: set %s: %d images have not come", w.list.Name, len(w.missing)-w.next)
	}
	for _, s := range w.info.Shards {
		w.info.Rows += s.Rows
	}
	if w.info.Rows == 0 && w.info.Part == nil {
		return fmt.Errorf("states: set %s: no image could be read", w.list.Name)
	}
	// Shards may have come in any order.
	sortSkipped(w.info.Skipped)
	if err := writeJSON(filepath.Join(w.dir(), setFile), w.info); err != nil {
		return err
	}
	w.data = nil
	return nil
}

// WriterMemory is about what a Writer holds, in bytes.
const WriterMemory = 2 * shardBytes

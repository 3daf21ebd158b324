package download

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"nac/internal/atomicfile"
)

// part is a file in transfer: its bytes in name.part, and in name.part.json what
// the server said of the file, so that a later run can go on.
type part struct {
	path string
	size int64
	note note
	file *os.File // open for writing during a transfer
}

// note is what is known of a file in transfer.
type note struct {
	From string `json:"from"`
	// Total is the size the server has announced, -1 if it has not.
	Total int64 `json:"total"`
	// ETag and Modified identify the version of the file.
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"`
	// CRC32C and MD5, in base64, are what Google's servers say of the content.
	CRC32C string `json:"crc32c,omitempty"`
	MD5    string `json:"md5,omitempty"`
	// Done is set when the transfer has ended well.
	Done bool `json:"done,omitempty"`
}

func (p *part) notePath() string { return p.path + ".json" }

// usable returns what an earlier run has left at path, and whether it is of use for
// the file from that place.
func usable(path, from string) (n note, size int64, ok bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return note{}, 0, false
	}
	data, err := os.ReadFile(path + ".json")
	if err != nil || json.Unmarshal(data, &n) != nil || n.From != from {
		return note{}, 0, false
	}
	size = info.Size()
	return n, size, (n.Total < 0 || size <= n.Total) && (!n.Done || size == n.Total)
}

// openPart finds what an earlier run has left at path; bytes that are from
// elsewhere, or of which nothing is known, are thrown away.
func openPart(path, from string) (*part, error) {
	p := &part{path: path, note: note{From: from, Total: -1}}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	n, size, ok := usable(path, from)
	if !ok {
		return p, p.discard()
	}
	p.note, p.size = n, size
	return p, nil
}

// begin makes the part ready to be written at offset size of a file of which n is
// known.
func (p *part) begin(n note, size int64) (err error) {
	if err := os.MkdirAll(filepath.Dir(p.path), 0o777); err != nil {
		return err
	}
	if p.file == nil {
		if p.file, err = os.OpenFile(p.path, os.O_WRONLY|os.O_CREATE, 0o666); err != nil {
			return err
		}
	}
	// Cut first: a crash in between leaves no bytes of another version.
	if err := p.file.Truncate(size); err != nil {
		return err
	}
	p.size = size
	if _, err := p.file.Seek(size, io.SeekStart); err != nil {
		return err
	}
	return p.describe(n)
}

func (p *part) describe(n note) error {
	if n == p.note && p.exists(p.notePath()) {
		return nil
	}
	p.note = n
	return atomicfile.Write(p.notePath(), func(w io.Writer) error { return json.NewEncoder(w).Encode(n) })
}

func (p *part) exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func (p *part) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.size += int64(n)
	return n, err
}

// finish notes that all bytes are there.
func (p *part) finish() error {
	n := p.note
	n.Total, n.Done = p.size, true
	if err := p.file.Sync(); err != nil {
		return err
	}
	return p.describe(n)
}

// close ends the writing.
func (p *part) close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	return err
}

// discard throws the part away.
func (p *part) discard() error {
	p.close()
	p.size, p.note = 0, note{From: p.note.From, Total: -1}
	for _, name := range []string{p.path, p.notePath()} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

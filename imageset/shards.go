package imageset

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Shards is a file system of the operating system's files in which tar archives are
// folders as well: a member's path is SHARD.tar/NAME. Only headers are read to find
// members, once for each archive. It may be used by many goroutines at once.
type Shards struct {
	// Keep is how many archives' members are remembered, 0 for all.
	Keep int

	mu    sync.Mutex
	index map[string]*shard
	order []string // of index, the oldest first
}

// shard is where the members of an archive lie.
type shard struct {
	items   []Item
	members map[string]span
}

type span struct{ offset, size int64 }

var _ fs.StatFS = (*Shards)(nil)

func isShard(name string) bool { return strings.EqualFold(path.Ext(name), ".tar") }

// Items lists the images of an archive in its order. As in WebDataset, the members of
// a sample have a name in common up to the first dot, and NAME.cls is the class of
// NAME.jpg; without one it is Unlabelled.
func (s *Shards) Items(archive string) ([]Item, error) {
	found, err := s.shard(archive)
	if err != nil {
		return nil, err
	}
	return found.items, nil
}

func (s *Shards) shard(archive string) (*shard, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok := s.index[archive]; ok {
		return found, nil
	}
	found, err := readShard(archive)
	if err != nil {
		return nil, fmt.Errorf("tar archive %s: %w", archive, err)
	}
	if s.index == nil {
		s.index = map[string]*shard{}
	}
	s.index[archive] = found
	if s.order = append(s.order, archive); s.Keep > 0 && len(s.order) > s.Keep {
		delete(s.index, s.order[0])
		s.order = s.order[1:]
	}
	return found, nil
}

func readShard(archive string) (*shard, error) {
	if _, err := statRegular(nil, archive); err != nil {
		return nil, err
	}
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var magic [2]byte
	if n, _ := f.ReadAt(magic[:], 0); n == 2 && bytes.Equal(magic[:], []byte{0x1f, 0x8b}) {
		return nil, errors.New("compressed by gzip, in which members cannot be found; unpack it (gunzip)")
	}
	s := &shard{members: map[string]span{}}
	labels := map[string]int{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch {
		case h.Typeflag != tar.TypeReg:
			continue
		case strings.EqualFold(path.Ext(name), ".cls"):
			text, err := io.ReadAll(io.LimitReader(r, 64))
			if err != nil {
				return nil, err
			}
			label, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
			if err != nil || label < Unlabelled {
				return nil, fmt.Errorf("%s: the class %q is no number from -1 up", shorten(name), shorten(string(text)))
			}
			labels[sampleName(name)] = int(label)
		case IsImage(name):
			if sparse(h) {
				return nil, fmt.Errorf("%s is a sparse file", shorten(name))
			}
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			s.members[name] = span{at, h.Size}
			s.items = append(s.items, Item{Path: archive + "/" + name})
		}
	}
	for i := range s.items {
		label, ok := labels[sampleName(strings.TrimPrefix(s.items[i].Path, archive+"/"))]
		if s.items[i].Label = label; !ok {
			s.items[i].Label = Unlabelled
		}
	}
	return s, nil
}

// sampleName is what the members of a sample have in common.
func sampleName(name string) string {
	dir, base := path.Split(name)
	base, _, _ = strings.Cut(base, ".")
	return dir + base
}

func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// split parts a member's path; archive is empty for an ordinary file.
func (s *Shards) split(name string) (archive, member string) {
	for from := 0; ; {
		i := strings.Index(strings.ToLower(name[from:]), ".tar/")
		if i < 0 {
			return "", ""
		}
		from += i + len(".tar")
		s.mu.Lock()
		_, known := s.index[name[:from]]
		s.mu.Unlock()
		if info, err := os.Stat(name[:from]); known || err == nil && info.Mode().IsRegular() {
			return name[:from], name[from+1:]
		}
	}
}

// Open opens a file or a member of an archive.
func (s *Shards) Open(name string) (fs.File, error) {
	archive, member := s.split(name)
	if archive == "" {
		return os.Open(name)
	}
	m, err := s.find(archive, member)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	return &memberFile{io.NewSectionReader(f, m.offset, m.size), f, memberInfo{path.Base(member), m.size}}, nil
}

// Stat describes a file or a member of an archive.
func (s *Shards) Stat(name string) (fs.FileInfo, error) {
	archive, member := s.split(name)
	if archive == "" {
		return os.Stat(name)
	}
	m, err := s.find(archive, member)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return memberInfo{path.Base(member), m.size}, nil
}

func (s *Shards) find(archive, member string) (span, error) {
	found, err := s.shard(archive)
	if err != nil {
		return span{}, err
	}
	m, ok := found.members[member]
	if !ok {
		return span{}, fs.ErrNotExist
	}
	return m, nil
}

type memberFile struct {
	*io.SectionReader
	io.Closer
	info memberInfo
}

func (f *memberFile) Stat() (fs.FileInfo, error) { return f.info, nil }

type memberInfo struct {
	name string
	size int64
}

func (i memberInfo) Name() string     { return i.name }
func (i memberInfo) Size() int64      { return i.size }
func (memberInfo) Mode() fs.FileMode  { return 0o444 }
func (memberInfo) ModTime() time.Time { return time.Time{} }
func (memberInfo) IsDir() bool        { return false }
func (memberInfo) Sys() any           { return nil }

// ReadShards lists the images of tar archives, as Shards.Items does.
func ReadShards(archives ...string) (List, error) {
	s := &Shards{}
	list := List{FS: s}
	for _, a := range archives {
		items, err := s.Items(a)
		if err != nil {
			return List{}, err
		}
		list.Items = append(list.Items, items...)
	}
	if len(list.Items) == 0 {
		return List{}, fmt.Errorf("tar archives %s: no images in them", strings.Join(archives, ", "))
	}
	list.Name = listName(archives[0])
	return list, nil
}

// shardsIn returns the archives of a folder that holds nothing else to see.
func shardsIn(dir string) ([]string, error) {
	names, err := visibleNames(dir)
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return !isShard(n) || !regular(dir+"/"+n) }) {
		return nil, err
	}
	for i := range names {
		names[i] = dir + "/" + names[i]
	}
	return names, nil
}

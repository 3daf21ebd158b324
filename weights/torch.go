package weights

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// magic and version begin the older format: 0x1950a86a20f9469cfc6c and 1001.
const (
	magic   = bigInt("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
	version = int64(1001)
)

// decodePickle reads the older format and plain pickles.
func decodePickle(name string, r io.ReaderAt, size int64) (*StateDict, error) {
	steps := maxSteps
	root, err := newUnpickler(r, size, &steps).loadStream(r)
	if err != nil {
		return nil, err
	}
	list, err := choose(root)
	if err != nil {
		return nil, err
	}
	return build(name, list, size)
}

// loadStream reads the pickles of the older format and finds its storages in r,
// from which u reads:
//
//	pickle of the magic number, of the version, of facts on the machine
//	pickle of the object, with persistent ids where a storage stands
//	pickle of a list of storages' keys
//	per key: 8 bytes, number of elements; the elements
//
// All numbers are little-endian on every machine. When the first pickle is not
// the magic number it is the object itself.
func (u *unpickler) loadStream(r io.ReaderAt) (any, error) {
	first, err := u.load()
	if err != nil || first != magic {
		return first, err
	}
	v, err := u.load()
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	if v != version {
		return nil, fmt.Errorf("version %v of PyTorch's format, want %d", v, version)
	}
	if _, err := u.load(); err != nil {
		return nil, fmt.Errorf("facts on the machine: %w", err)
	}
	root, err := u.load()
	if err != nil {
		return nil, err
	}
	keys, err := u.load()
	if err != nil {
		return nil, fmt.Errorf("list of storages: %w", err)
	}
	list, ok := keys.(*sequence)
	if !ok {
		return nil, fmt.Errorf("list of storages: it is %s", describe(keys))
	}
	at := u.position()
	for _, k := range list.items {
		key, ok := k.(string)
		st := u.storages[key]
		if !ok || st == nil {
			return nil, errors.New("list of storages: one that no tensor has")
		}
		if st.data != nil {
			return nil, fmt.Errorf("storage %s stands twice in the file", quote(key))
		}
		var prefix [8]byte
		if u.size-at < 8 {
			return nil, fmt.Errorf("cut off before storage %s", quote(key))
		}
		if _, err := r.ReadAt(prefix[:], at); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		at += 8
		if n := int64(le.Uint64(prefix[:])); n != st.length {
			return nil, fmt.Errorf("storage %s has %d elements, its tensors say %d", quote(key), n, st.length)
		}
		bytes := st.length * int64(st.dtype.size)
		if bytes > u.size-at {
			return nil, fmt.Errorf("cut off in storage %s: %d bytes left of %d", quote(key), u.size-at, bytes)
		}
		st.data = io.NewSectionReader(r, at, bytes)
		at += bytes
	}
	return root, nil
}

// decodeZip reads what torch.save writes since 1.6: an archive NAME/ with data.pkl,
// byteorder and one file data/KEY per storage, none of them compressed.
func decodeZip(name string, r io.ReaderAt, size int64) (*StateDict, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("zip archive, cut off or broken: %w", err)
	}
	files := make(map[string]*zip.File, len(z.File))
	prefix, found := "", false
	for _, f := range z.File {
		if files[f.Name] != nil {
			return nil, fmt.Errorf("zip archive: %s stands twice", quote(f.Name))
		}
		files[f.Name] = f
		dir, ok := strings.CutSuffix(f.Name, "data.pkl")
		if !ok || (dir != "" && !strings.HasSuffix(dir, "/")) {
			continue
		}
		if found {
			return nil, fmt.Errorf("zip archive: both %s and %s", quote(prefix+"data.pkl"), quote(f.Name))
		}
		prefix, found = dir, true
	}
	if !found {
		return nil, errors.New("a zip archive without data.pkl: not a checkpoint itself (does it hold one?)")
	}
	section, sum, err := stored(files[prefix+"data.pkl"], r, size)
	if err == nil {
		err = sum.verify(section)
	}
	if err != nil {
		return nil, err
	}
	steps := maxSteps
	u := newUnpickler(section, section.Size(), &steps)
	root, err := u.load()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quote(prefix+"data.pkl"), err)
	}
	big, err := bigEndian(files[prefix+"byteorder"], r, size)
	if err != nil {
		return nil, err
	}
	for key, st := range u.storages {
		f := files[prefix+"data/"+key]
		if f == nil {
			continue // an error for the tensor that needs it
		}
		if st.data, st.sum, err = stored(f, r, size); err != nil {
			return nil, err
		}
		if want := st.length * int64(st.dtype.size); st.data.Size() != want {
			return nil, fmt.Errorf("storage %s has %d bytes, its tensors say %d", quote(f.Name), st.data.Size(), want)
		}
		st.big = big
	}
	list, err := choose(root)
	if err != nil {
		return nil, err
	}
	return build(name, list, size)
}

// stored returns the bytes of an uncompressed file in the archive, which lie
// wholly inside it, and their checksum.
func stored(f *zip.File, r io.ReaderAt, size int64) (*io.SectionReader, *checksum, error) {
	if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, nil, fmt.Errorf("zip archive: %s is compressed or encrypted, which torch.save never does", quote(f.Name))
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, nil, fmt.Errorf("zip archive: %s: %w", quote(f.Name), err)
	}
	if at < 0 || at > size || f.UncompressedSize64 > uint64(size-at) {
		return nil, nil, fmt.Errorf("zip archive: %s is cut off", quote(f.Name))
	}
	var sum *checksum
	if f.CRC32 != 0 { // else it was never set, as package zip has it
		sum = &checksum{f.Name, f.CRC32}
	}
	return io.NewSectionReader(r, at, int64(f.UncompressedSize64)), sum, nil
}

// bigEndian reads the file byteorder; older writers leave it out and mean little.
func bigEndian(f *zip.File, r io.ReaderAt, size int64) (bool, error) {
	if f == nil {
		return false, nil
	}
	section, sum, err := stored(f, r, size)
	if err != nil {
		return false, err
	}
	if err := sum.verify(section); err != nil {
		return false, err
	}
	var buf [8]byte
	n, err := section.ReadAt(buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch order := string(buf[:n]); order {
	case "little":
		return false, nil
	case "big":
		return true, nil
	default:
		return false, fmt.Errorf("zip archive: unknown byteorder %q", order)
	}
}

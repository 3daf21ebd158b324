package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"nac/internal/safetensors"
)

// Open reads the checkpoint at path. The format is told by the content, never by
// the name: safetensors, torch.save's zip format, its older format, or a plain
// pickle of tensors.
//
// The state dict may stand alone or nested in a mapping. Taken is, of a mapping:
//
//  1. what stands under state_dict, model_state_dict, model, net, network,
//     module, weights, params, ema_state_dict, state_dict_ema, model_ema or ema,
//     in this order, if by these rules it holds tensors;
//  2. else the mapping itself, if it holds tensors by name;
//  3. else the first of its entries that is a mapping and by these rules holds
//     tensors, except optimizers' and schedulers': entries with optim, sched
//     or scaler in the name, and mappings that hold param_groups.
//
// All other entries (epoch, best accuracy, ...) are ignored. Of the names, a
// prefix "module." (DataParallel), "_orig_mod." (compile) or "model."
// (Lightning) is removed, again and again, as long as every tensor carries the
// same one; AveragedModel's counter n_averaged is dropped.
func Open(path string) (*StateDict, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	if !info.Mode().IsRegular() { // before opening: a pipe would block
		return nil, fmt.Errorf("weights: %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	return Decode(path, f, info.Size())
}

// Decode is Open on the size bytes of r; name stands for them in errors and as
// the source. r is not used after Decode returns.
func Decode(name string, r io.ReaderAt, size int64) (*StateDict, error) {
	s, err := decode(name, r, size)
	if err != nil {
		return nil, fmt.Errorf("weights: %s: %w", name, err)
	}
	return s, nil
}

func decode(name string, r io.ReaderAt, size int64) (*StateDict, error) {
	if size == 0 {
		return nil, errors.New("the file is empty")
	}
	var buf [512]byte
	n, err := r.ReadAt(buf[:min(size, int64(len(buf)))], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head := buf[:n]
	switch {
	case bytes.HasPrefix(head, []byte("PK")):
		return decodeZip(name, r, size)
	case looksSafetensors(head):
		return decodeSafetensors(name, r, size)
	case head[0] == opProto:
		return decodePickle(name, r, size)
	}
	return nil, fmt.Errorf("%s; want a PyTorch checkpoint or safetensors", otherFormat(head))
}

// looksSafetensors is asked before the pickle's first byte, which may as well be
// the low byte of a header's length.
func looksSafetensors(head []byte) bool {
	return len(head) > 8 && head[8] == '{' && binary.LittleEndian.Uint64(head) < 1<<40
}

// otherFormat names what people do hand over in place of a checkpoint.
func otherFormat(head []byte) string {
	text := bytes.ToLower(bytes.TrimSpace(head))
	switch {
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		return "a Git LFS pointer, not the file itself (git lfs pull fetches it)"
	case bytes.HasPrefix(text, []byte("<!doctype")), bytes.HasPrefix(text, []byte("<html")):
		return "an HTML page: the download was not of the file itself"
	case bytes.HasPrefix(head, []byte("\x89HDF")):
		return "an HDF5 file"
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return "compressed by gzip"
	case bytes.HasPrefix(head, []byte("7z\xbc\xaf\x27\x1c")):
		return "a 7z archive"
	case len(head) >= 262 && bytes.Equal(head[257:262], []byte("ustar")):
		return "a tar archive (PyTorch before 0.1.10 wrote such checkpoints: save it again with a newer one)"
	case len(head) > 8 && bytes.Equal(head[4:8], []byte("TFL3")):
		return "a TensorFlow Lite file"
	}
	return "format not recognised"
}

func decodeSafetensors(name string, r io.ReaderAt, size int64) (*StateDict, error) {
	f, err := safetensors.Decode(name, r, size)
	if err != nil {
		return nil, err
	}
	var list []namedTensor
	for _, n := range f.Names() {
		t, section, err := f.Section(n)
		if err != nil {
			return nil, err
		}
		d, ok := safetensorsTypes[t.DType]
		if !ok {
			return nil, fmt.Errorf("tensor %s: values of type %s cannot be weights", quote(n), t.DType)
		}
		st := &storage{key: n, dtype: d, length: section.Size() / int64(d.size), data: section}
		list = append(list, namedTensor{n, &tensor{storage: st, shape: t.Shape, strides: rowMajor(t.Shape)}})
	}
	if len(list) == 0 {
		return nil, errors.New("the file holds no tensors")
	}
	if list, err = unwrap(list); err != nil {
		return nil, err
	}
	return build(name, list, size)
}

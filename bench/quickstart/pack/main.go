// Command pack builds the quickstart's archive: a zip file with the images,
// lists and checkpoint of a small benchmark, laid out as OpenOOD lays out its
// data.
//
// Which images are taken is fixed by the tables below: per class, the first ones
// of the original file (both data sets are stored shuffled), so nothing is
// picked by hand. The same inputs give the same bytes.
package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"nac/internal/atomicfile"
)

// fashionClasses are Fashion-MNIST's ten classes by label. The last two are
// held out of training and serve as near-OOD.
var fashionClasses = []string{"tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"}

const knownClasses = 8

// source is one pair of idx files, with the digests of the files that the
// committed archive was made from.
type source struct {
	images, labels         string
	imagesSHA256, labelSHA string
	path                   func(index int, label uint8) string
}

var sources = map[string]source{
	"fashion/train": {
		images: "train-images-idx3-ubyte.gz", imagesSHA256: "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
		labels: "train-labels-idx1-ubyte.gz", labelSHA: "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
		path: func(i int, label uint8) string {
			return fmt.Sprintf("fashion/train/%s/%05d.png", fashionClasses[label], i)
		},
	},
	"fashion/test": {
		images: "t10k-images-idx3-ubyte.gz", imagesSHA256: "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
		labels: "t10k-labels-idx1-ubyte.gz", labelSHA: "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
		path: func(i int, label uint8) string {
			return fmt.Sprintf("fashion/test/%s/%04d.png", fashionClasses[label], i)
		},
	},
	"mnist/test": {
		images: "t10k-images-idx3-ubyte.gz", imagesSHA256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
		labels: "t10k-labels-idx1-ubyte.gz", labelSHA: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
		path: func(i int, label uint8) string { return fmt.Sprintf("mnist/test/%d_%04d.png", label, i) },
	},
}

// set is one image list: of each class from First to Last, the images From to
// To-1 by order of appearance.
type set struct {
	list        string
	source      string
	first, last uint8
	from, to    int
	ood         bool
}

var sets = []set{
	{list: "main_train_fashion", source: "fashion/train", first: 0, last: knownClasses - 1, from: 0, to: 125},
	{list: "sub_train_fashion", source: "fashion/train", first: 0, last: knownClasses - 1, from: 125, to: 175},
	{list: "val_fashion", source: "fashion/test", first: 0, last: knownClasses - 1, from: 0, to: 50},
	{list: "test_fashion", source: "fashion/test", first: 0, last: knownClasses - 1, from: 50, to: 175},
	{list: "val_heldout", source: "fashion/train", first: knownClasses, last: 9, from: 0, to: 100, ood: true},
	{list: "test_bag", source: "fashion/test", first: 8, last: 8, from: 0, to: 500, ood: true},
	{list: "test_ankle_boot", source: "fashion/test", first: 9, last: 9, from: 0, to: 500, ood: true},
	{list: "test_mnist", source: "mnist/test", first: 0, last: 9, from: 0, to: 100, ood: true},
}

func main() {
	var o options
	flag.StringVar(&o.fashion, "fashion", "/usr/share/datasets/fashion-mnist", "folder with Fashion-MNIST's idx.gz files")
	flag.StringVar(&o.mnist, "mnist", "", "folder with MNIST's idx.gz files")
	flag.StringVar(&o.checkpoint, "checkpoint", "", "safetensors file of the trained network")
	flag.StringVar(&o.texts, "texts", "quickstart", "folder with NOTICE and licenses/")
	flag.StringVar(&o.out, "o", "quickstart/quickstart.zip", "archive to write")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

type options struct{ fashion, mnist, checkpoint, texts, out string }

func run(o options) error {
	if o.mnist == "" || o.checkpoint == "" {
		return errors.New("-mnist and -checkpoint are needed; see bench/quickstart/README.md")
	}
	files := map[string][]byte{}
	for name, path := range map[string]string{
		"NOTICE":                                   filepath.Join(o.texts, "NOTICE"),
		"licenses/fashion-mnist.txt":               filepath.Join(o.texts, "licenses", "fashion-mnist.txt"),
		"licenses/GoMNIST.txt":                     filepath.Join(o.texts, "licenses", "GoMNIST.txt"),
		"checkpoints/fashion_resnet20.safetensors": o.checkpoint,
	} {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files[name] = data
	}
	for name, src := range sources {
		folder := o.fashion
		if strings.HasPrefix(name, "mnist/") {
			folder = o.mnist
		}
		images, labels, err := src.read(folder)
		if err != nil {
			return err
		}
		for _, s := range sets {
			if s.source != name {
				continue
			}
			if err := s.add(files, src, images, labels); err != nil {
				return err
			}
		}
	}
	return atomicfile.Write(o.out, func(w io.Writer) error { return writeZip(w, files) })
}

// add puts the set's images and its list into files.
func (s set) add(files map[string][]byte, src source, images [][]byte, labels []uint8) error {
	var list strings.Builder
	seen := map[uint8]int{}
	for i, label := range labels {
		if label < s.first || label > s.last {
			continue
		}
		seen[label]++
		if n := seen[label] - 1; n < s.from || n >= s.to {
			continue
		}
		path := src.path(i, label)
		data, err := encodePNG(images[i])
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		files["images_classic/"+path] = data
		written := int(label)
		if s.ood {
			written = -1
		}
		fmt.Fprintf(&list, "%s %d\n", path, written)
	}
	for label := s.first; label <= s.last; label++ {
		if seen[label] < s.to {
			return fmt.Errorf("%s: %s has %d images of class %d, %d are needed", s.list, s.source, seen[label], label, s.to)
		}
	}
	files["benchmark_imglist/fashion/"+s.list+".txt"] = []byte(list.String())
	return nil
}

const side = 28

func encodePNG(pixels []byte) ([]byte, error) {
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	err := e.Encode(&b, &image.Gray{Pix: pixels, Stride: side, Rect: image.Rect(0, 0, side, side)})
	return b.Bytes(), err
}

// read returns the images, each of 28x28 bytes, and their labels.
func (s source) read(folder string) (images [][]byte, labels []uint8, err error) {
	data, err := readIdx(filepath.Join(folder, s.images), s.imagesSHA256, 3)
	if err != nil {
		return nil, nil, err
	}
	labels, err = readIdx(filepath.Join(folder, s.labels), s.labelSHA, 1)
	if err != nil {
		return nil, nil, err
	}
	if len(data) != len(labels)*side*side {
		return nil, nil, fmt.Errorf("%s: %d bytes of pixels for %d labels", folder, len(data), len(labels))
	}
	for i := range labels {
		images = append(images, data[i*side*side:(i+1)*side*side])
	}
	return images, labels, nil
}

// readIdx reads the bytes of a gzipped idx file of unsigned bytes. The digest is
// checked first, so that a rebuild cannot silently use other data.
func readIdx(path, digest string, rank int) ([]byte, error) {
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%s: SHA-256 is %x, expected %s", path, sum, digest)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	head := 4 + 4*rank
	const unsignedByte = 8
	if len(data) < head || binary.BigEndian.Uint32(data) != unsignedByte<<8|uint32(rank) {
		return nil, fmt.Errorf("%s: not an idx file of bytes of rank %d", path, rank)
	}
	return data[head:], nil
}

// writeZip writes the files sorted by name and without times. Images and the
// checkpoint hardly compress and are stored; texts are deflated.
func writeZip(w io.Writer, files map[string][]byte) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	z := zip.NewWriter(w)
	for _, name := range names {
		data := files[name]
		text := strings.HasSuffix(name, ".txt") || name == "NOTICE"
		if err := writeEntry(z, name, data, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return z.Close()
}

func writeEntry(z *zip.Writer, name string, data []byte, deflate bool) error {
	if deflate {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	// A raw entry states its size up front and so needs no trailing descriptor:
	// 16 bytes less for each of five thousand images.
	w, err := z.CreateRaw(&zip.FileHeader{
		Name: name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(data),
		CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
	})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

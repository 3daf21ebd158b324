package imageset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Unlabelled is the label of an image that belongs to none of the network's
// classes, or whose class is not known.
const Unlabelled = -1

// Item is one image of a List.
type Item struct {
	Path  string // as to be opened in the List's FS
	Label int    // class index; Unlabelled for OOD
}

// List is an ordered set of images.
type List struct {
	// Name is what errors and tables call the list: the list file's or folder's
	// name without directory and ending.
	Name string
	// FS is where the paths of Items are opened; nil is the operating system.
	FS    fs.FS
	Items []Item
	// Classes holds the names of labels 0, 1, ... when the images came from a
	// folder of classes; nil otherwise.
	Classes []string
}

// All yields the images in order, for Stream.
func (l List) All() iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, item := range l.Items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// maxListFile bounds a list file: ten times the longest list of ImageNet.
const maxListFile = 1 << 30

// ReadList reads an OpenOOD image list, lines of "path label", from the operating
// system's files. A path ends at the line's last space, so it may itself hold
// spaces; it is relative to root unless it is absolute, and may lead out of root
// by "..". Empty lines are passed over. Labels are integers from -1 (OOD) up.
func ReadList(listFile, root string) (List, error) {
	return readList(nil, listFile, root)
}

// ReadListFS is ReadList within fsys. Paths are slash-separated, and one that is
// absolute or leads out of fsys is an error.
func ReadListFS(fsys fs.FS, listFile, root string) (List, error) {
	return readList(fsys, listFile, root)
}

func readList(fsys fs.FS, listFile, root string) (List, error) {
	data, err := readFile(fsys, listFile, maxListFile, nil)
	if err != nil {
		return List{}, fmt.Errorf("image list: %w", err)
	}
	items, err := parseList(data, func(p string) (string, error) { return join(fsys, root, p) }, labelled)
	if err != nil {
		return List{}, fmt.Errorf("image list %s: %w", listFile, err)
	}
	if len(items) == 0 {
		return List{}, fmt.Errorf("image list %s: no images in it", listFile)
	}
	return List{Name: listName(listFile), FS: fsys, Items: items}, nil
}

// lineRule says whether each line of a list must have a label.
type lineRule bool

const (
	labelled lineRule = true
	anyLine  lineRule = false
)

// parseList reads the lines of a list; resolve turns a listed path into one to
// be opened.
func parseList(data []byte, resolve func(string) (string, error), rule lineRule) ([]Item, error) {
	items := make([]Item, 0, bytes.Count(data, []byte{'\n'})+1)
	for n := 1; len(data) > 0; n++ {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		item, err := parseLine(string(line), n, rule)
		if err == nil && item.Path != "" {
			if item.Path, err = resolve(item.Path); err == nil {
				items = append(items, item)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return items, nil
}

// parseLine reads line n; the path of an empty one is empty.
func parseLine(line string, n int, rule lineRule) (Item, error) {
	if n == 1 {
		line = strings.TrimPrefix(line, "\ufeff") // written by some Windows editors
	}
	text := strings.TrimSpace(line)
	if text == "" {
		return Item{}, nil
	}
	if strings.IndexByte(text, 0) >= 0 {
		return Item{}, errors.New("a NUL byte; this is not a text file")
	}
	cut := strings.LastIndexAny(text, " \t")
	if cut < 0 {
		if rule == anyLine {
			return Item{Path: text, Label: Unlabelled}, nil
		}
		return Item{}, fmt.Errorf("%q has no label; a line is \"path label\"", shorten(text))
	}
	p, field := strings.TrimSpace(text[:cut]), text[cut+1:]
	label, err := strconv.ParseInt(field, 10, 32)
	if err != nil {
		if rule == anyLine {
			return Item{Path: text, Label: Unlabelled}, nil
		}
		return Item{}, fmt.Errorf("the label %q of %q is not an integer", shorten(field), shorten(p))
	}
	if label < Unlabelled {
		return Item{}, fmt.Errorf("the label %d of %q is below -1", label, shorten(p))
	}
	return Item{Path: p, Label: int(label)}, nil
}

// isAddress tells whether a path is one of another machine's, such as s3://bucket/key, which
// the file system that opens it must know.
func isAddress(p string) bool {
	scheme, _, ok := strings.Cut(p, "://")
	return ok && scheme != "" && strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// join makes a listed path one that can be opened.
func join(fsys fs.FS, root, p string) (string, error) {
	if fsys == nil {
		switch {
		case isAddress(p):
			return p, nil
		case isAddress(root):
			return strings.TrimSuffix(root, "/") + path.Clean("/"+p), nil
		}
		p = filepath.FromSlash(p)
		if filepath.IsAbs(p) {
			return p, nil
		}
		return filepath.Join(root, p), nil
	}
	if path.IsAbs(p) {
		return "", fmt.Errorf("%q is an absolute path", shorten(p))
	}
	full := path.Join(root, p)
	if !fs.ValidPath(full) {
		return "", fmt.Errorf("%q leads out of the image root", shorten(p))
	}
	return full, nil
}

func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

func listName(file string) string {
	base := path.Base(filepath.ToSlash(file))
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		base = base[:i]
	}
	return base
}

// imageEndings are those that torchvision's ImageFolder takes, and GIF.
var imageEndings = map[string]bool{
	".jpg": true, ".jpeg": true, ".png": true, ".bmp": true, ".tif": true,
	".tiff": true, ".webp": true, ".gif": true, ".ppm": true, ".pgm": true,
}

// ReadFolder lists the images of a folder. With subfolders it is a folder of
// classes, as torchvision's ImageFolder reads it: each subfolder is a class,
// numbered in the order of the sorted names, and its images may lie deeper.
// Without subfolders it is flat and every label is Unlabelled. Names that begin
// with a dot are passed over. A class without images is an error, and so are
// images beside class folders, which would silently be left out.
func ReadFolder(dir string) (List, error) {
	list, err := readFolder(os.DirFS(dir), ".", dir)
	if err != nil {
		return List{}, err
	}
	for i := range list.Items {
		list.Items[i].Path = filepath.Join(dir, filepath.FromSlash(list.Items[i].Path))
	}
	return list, nil
}

// ReadFolderFS is ReadFolder for a folder within fsys.
func ReadFolderFS(fsys fs.FS, dir string) (List, error) {
	list, err := readFolder(fsys, dir, dir)
	if err != nil {
		return List{}, err
	}
	list.FS = fsys
	return list, nil
}

func readFolder(fsys fs.FS, dir, shown string) (List, error) {
	list := List{Name: path.Base(filepath.ToSlash(filepath.Clean(shown)))}
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return List{}, fmt.Errorf("image folder %s: %w", shown, err)
	}
	var loose []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		sub := path.Join(dir, name)
		switch {
		case isDir(fsys, sub, e):
			list.Classes = append(list.Classes, name)
		case IsImage(name):
			loose = append(loose, sub)
		}
	}
	if len(list.Classes) == 0 {
		if len(loose) == 0 {
			return List{}, fmt.Errorf("image folder %s: no images in it", shown)
		}
		sort.Strings(loose)
		for _, p := range loose {
			list.Items = append(list.Items, Item{Path: p, Label: Unlabelled})
		}
		return list, nil
	}
	if len(loose) > 0 {
		return List{}, fmt.Errorf("image folder %s: the image %s lies beside class folders (%s, ...); move it into a class", shown, path.Base(loose[0]), list.Classes[0])
	}
	sort.Strings(list.Classes)
	for label, class := range list.Classes {
		found, err := imagesBelow(fsys, path.Join(dir, class), 0)
		if err != nil {
			return List{}, fmt.Errorf("image folder %s: class %s: %w", shown, class, err)
		}
		if len(found) == 0 {
			return List{}, fmt.Errorf("image folder %s: class %s has no images", shown, class)
		}
		for _, p := range found {
			list.Items = append(list.Items, Item{Path: p, Label: label})
		}
	}
	return list, nil
}

// maxDepth stops at a symbolic link that leads back up.
const maxDepth = 32

// imagesBelow returns the images below dir, ordered by folder and then by name:
// the order of ImageFolder, which sorts os.walk's folders and their files.
func imagesBelow(fsys fs.FS, dir string, depth int) ([]string, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: more than %d folders deep; is there a link to a folder above it?", dir, maxDepth)
	}
	folders := map[string][]string{}
	if err := walk(fsys, dir, depth, folders); err != nil {
		return nil, err
	}
	order := make([]string, 0, len(folders))
	for f := range folders {
		order = append(order, f)
	}
	sort.Strings(order)
	var all []string
	for _, f := range order {
		names := folders[f]
		sort.Strings(names)
		for _, n := range names {
			all = append(all, path.Join(f, n))
		}
	}
	return all, nil
}

func walk(fsys fs.FS, dir string, depth int, folders map[string][]string) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d folders deep; is there a link to a folder above it?", dir, maxDepth)
	}
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if sub := path.Join(dir, name); isDir(fsys, sub, e) {
			if err := walk(fsys, sub, depth+1, folders); err != nil {
				return err
			}
		} else if IsImage(name) {
			folders[dir] = append(folders[dir], name)
		}
	}
	return nil
}

// isDir follows symbolic links, as data sets are often linked into place.
func isDir(fsys fs.FS, p string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := fs.Stat(fsys, p)
	return err == nil && info.IsDir()
}

// IsImage tells by the ending whether a file's name is that of an image.
func IsImage(name string) bool { return imageEndings[strings.ToLower(path.Ext(name))] }

// Check looks whether every image of the list is there as a regular file,
// without opening any. Its error names the list, how many are missing and the
// first of them.
func (l List) Check(ctx context.Context) error {
	const shown = 5
	var first []error
	missing := 0
	for i, item := range l.Items {
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := statRegular(l.FS, item.Path); err != nil {
			if missing++; len(first) < shown {
				first = append(first, err)
			}
		}
	}
	if missing == 0 {
		return nil
	}
	err := fmt.Errorf("image list %s: %d of %d images cannot be read", l.Name, missing, len(l.Items))
	if missing > shown {
		err = fmt.Errorf("%w; the first %d", err, shown)
	}
	return errors.Join(append([]error{err}, first...)...)
}

func statRegular(fsys fs.FS, name string) (int64, error) {
	var info fs.FileInfo
	var err error
	if fsys == nil {
		info, err = os.Stat(name)
	} else {
		info, err = fs.Stat(fsys, name)
	}
	if err != nil {
		return 0, err
	}
	// A pipe or device would hang or never end.
	if !info.Mode().IsRegular() {
		return 0, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	return info.Size(), nil
}

// readFile reads a whole file of at most limit bytes, into buf's memory when it
// is large enough.
func readFile(fsys fs.FS, name string, limit int64, buf []byte) ([]byte, error) {
	size, err := statRegular(fsys, name)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%d bytes, above the limit of %d", size, limit)}
	}
	var f io.ReadCloser
	if fsys == nil {
		f, err = os.Open(name)
	} else {
		f, err = fsys.Open(name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if int64(cap(buf)) < size {
		buf = make([]byte, size+size/4)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(f, buf); err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("cut off while reading: %w", err)}
	}
	return buf, nil
}

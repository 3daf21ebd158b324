package imageset

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Read lists the images of a folder (see ReadFolder), of a tar archive or a folder
// of them (see ReadShards), or of a list: lines of "path" or "path label", relative
// to root, or to the list's folder if root is empty.
func Read(path, root string) (List, error) {
	info, err := os.Stat(path)
	if err != nil {
		return List{}, fmt.Errorf("images: %w", err)
	}
	if info.IsDir() {
		archives, err := shardsIn(path)
		if err != nil {
			return List{}, fmt.Errorf("images: %w", err)
		}
		if len(archives) > 0 {
			list, err := ReadShards(archives...)
			list.Name = listName(path)
			return list, err
		}
		return ReadFolder(path)
	}
	if isShard(path) {
		return ReadShards(path)
	}
	data, err := readFile(nil, path, maxListFile, nil)
	if err != nil {
		return List{}, fmt.Errorf("image list: %w", err)
	}
	items, err := parseList(data, func(p string) (string, error) { return join(nil, rootOf(path, root), p) }, anyLine)
	if err != nil {
		return List{}, fmt.Errorf("image list %s: %w", path, err)
	}
	if len(items) == 0 {
		return List{}, fmt.Errorf("image list %s: no images in it", path)
	}
	return List{Name: listName(path), Items: items}, nil
}

func rootOf(list, root string) string {
	if root == "" {
		return filepath.Dir(list)
	}
	return root
}

// Find yields the images of all places one by one: image files, folders with all
// that is below them, tar archives, and lists as Read takes them. Memory does not grow
// with their number, except for the names in one folder. In a folder order is by name.
// Paths are for a Shards. An error ends the sequence.
func Find(shards *Shards, root string, places ...string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, p := range places {
			if !find(shards, root, p, yield) {
				return
			}
		}
	}
}

func find(shards *Shards, root, place string, yield func(Item, error) bool) bool {
	info, err := os.Stat(place)
	switch {
	case err != nil:
		yield(Item{}, err)
		return false
	case info.IsDir():
		return findBelow(shards, place, 0, yield)
	case isShard(place):
		return findMembers(shards, place, yield)
	case IsImage(place):
		return yield(Item{Path: place, Label: Unlabelled}, nil)
	}
	f, err := os.Open(place)
	if err != nil {
		yield(Item{}, err)
		return false
	}
	defer f.Close()
	r := bufio.NewReader(f)
	// A text has no NUL byte, an image has one in its header, if no ending.
	if head, _ := r.Peek(512); strings.IndexByte(string(head), 0) >= 0 {
		return yield(Item{Path: place, Label: Unlabelled}, nil)
	}
	for item, err := range FindLines(r, rootOf(place, root)) {
		if err != nil {
			err = fmt.Errorf("image list %s: %w", place, err)
		}
		if !yield(item, err) || err != nil {
			return false
		}
	}
	return true
}

// FindLines yields the images of a list, as Find does.
func FindLines(r io.Reader, root string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			item, err := parseLine(lines.Text(), n, anyLine)
			if err == nil && item.Path != "" {
				item.Path, err = join(nil, root, item.Path)
			}
			if err != nil {
				err = fmt.Errorf("line %d: %w", n, err)
			}
			if (item.Path != "" || err != nil) && !yield(item, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Item{}, err)
		}
	}
}

func findMembers(shards *Shards, archive string, yield func(Item, error) bool) bool {
	items, err := shards.Items(archive)
	if err != nil {
		yield(Item{}, err)
		return false
	}
	for _, item := range items {
		if !yield(item, nil) {
			return false
		}
	}
	return true
}

func findBelow(shards *Shards, dir string, depth int, yield func(Item, error) bool) bool {
	names, err := visibleNames(dir)
	if err == nil && depth > maxDepth {
		err = fmt.Errorf("%s: more than %d folders deep; is there a link to a folder above it?", dir, maxDepth)
	}
	if err != nil {
		yield(Item{}, err)
		return false
	}
	for _, name := range names {
		p := filepath.Join(dir, name)
		switch {
		case IsImage(name):
			if !yield(Item{Path: p, Label: Unlabelled}, nil) {
				return false
			}
		case isShard(name) && regular(p):
			if !findMembers(shards, p, yield) {
				return false
			}
		default:
			if info, err := os.Stat(p); err == nil && info.IsDir() && !findBelow(shards, p, depth+1, yield) {
				return false
			}
		}
	}
	return true
}

func regular(name string) bool {
	_, err := statRegular(nil, name)
	return err == nil
}

// visibleNames returns the names in a folder, sorted, without those that begin with a
// dot.
func visibleNames(dir string) (names []string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for {
		some, err := f.Readdirnames(1024)
		for _, n := range some {
			if !strings.HasPrefix(n, ".") {
				names = append(names, n)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

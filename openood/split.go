package openood

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"nac/coverage"
	"nac/imageset"
	"nac/internal/atomicfile"
)

// TrainSplit are the two lists that a benchmark's training list is split into.
type TrainSplit struct {
	// MainFile is the list to fit on, SubFile that of the overfitting check.
	MainFile, SubFile     string
	MainImages, SubImages int
	// Kept tells that both lists were there and are just these.
	Kept bool
}

// ErrOtherSplit is wrapped when other lists are where a split is to be written.
var ErrOtherSplit = errors.New("there are other lists already")

// SplitTrain splits train_NAME.txt in the folder of a benchmark's lists into
// sub_train_NAME.txt, about n images and as many of each class, and
// main_train_NAME.txt, the rest: the reference's split for that seed, see
// coverage.Split. Lists that are there and differ are replaced only if that is
// asked for.
func SplitTrain(dir, name string, n int, seed uint32, replace bool) (TrainSplit, error) {
	file := func(prefix string) string { return filepath.Join(dir, prefix+"train_"+name+".txt") }
	s := TrainSplit{MainFile: file("main_"), SubFile: file("sub_")}
	list, err := imageset.ReadList(file(""), "")
	if err != nil {
		return s, err
	}
	data, err := os.ReadFile(file(""))
	if err != nil {
		return s, err
	}
	lines := listLines(data)
	if len(lines) != len(list.Items) {
		return s, fmt.Errorf("image list %s changes while it is read", file(""))
	}
	labels := make([]int, len(lines))
	for i, item := range list.Items {
		if labels[i] = item.Label; item.Label < 0 {
			return s, fmt.Errorf("image list %s: %s has label %d; training images have a class", file(""), item.Path, item.Label)
		}
	}
	sub, main := coverage.Split(labels, n, seed)
	s.MainImages, s.SubImages = len(main), len(sub)
	if s.SubImages == 0 || s.MainImages == 0 {
		return s, fmt.Errorf("image list %s: %d of its %d images cannot be split off, as many of each class: %d and %d would be left",
			file(""), n, len(lines), len(sub), len(main))
	}
	subData, mainData := pick(lines, sub), pick(lines, main)
	sameSub, err := holds(s.SubFile, subData)
	if err != nil && (!replace || !errors.Is(err, ErrOtherSplit)) {
		return s, err
	}
	sameMain, err := holds(s.MainFile, mainData)
	if err != nil && (!replace || !errors.Is(err, ErrOtherSplit)) {
		return s, err
	}
	if s.Kept = sameSub && sameMain; s.Kept {
		return s, nil
	}
	// Where the main list is, the other one belongs to it.
	if err := os.Remove(s.MainFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{s.SubFile, subData}, {s.MainFile, mainData}} {
		if err := atomicfile.Write(f.name, func(w io.Writer) error {
			_, err := w.Write(f.data)
			return err
		}); err != nil {
			return s, err
		}
	}
	return s, nil
}

// listLines returns a list's lines without those that are empty.
func listLines(data []byte) (lines [][]byte) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines
}

// text is the content of a list of those lines.
func text(lines [][]byte) []byte {
	var b []byte
	for _, l := range lines {
		b = append(append(b, l...), '\n')
	}
	return b
}

func pick(lines [][]byte, indices []int) []byte {
	picked := make([][]byte, len(indices))
	for i, j := range indices {
		picked[i] = lines[j]
	}
	return text(picked)
}

// holds tells whether the file has that content; one with another is an error.
func holds(file string, content []byte) (bool, error) {
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !bytes.Equal(text(listLines(old)), content) {
		return false, fmt.Errorf("%s: %w", file, ErrOtherSplit)
	}
	return true, nil
}

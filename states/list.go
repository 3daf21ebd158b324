package states

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"nac/shard"
)

// Item is one image of a List.
type Item struct {
	Path  string // relative to the data's folder, so that both may move
	Bytes int64  // size of the file; -1 if there is none
	Label int    // class, negative for none
}

// List names the images of a set, in the order in which they are kept.
type List struct {
	// Name is the set's: letters, digits, '.', '-' and '_'.
	Name string
	// Group says what the set is for: train, sub_train, val, test, val_ood, near,
	// far, csid or images.
	Group string
	Items []Item
	// Part is set if Items are a shard of a longer list; see List.Shard.
	Part *Part

	hash string // of items whose sizes are not known; empty if it is to be computed
}

// Part says which images of a longer list a list has.
type Part struct {
	shard.Shard
	First    int    `json:"first"`       // position of the first image
	Images   int    `json:"images"`      // of the whole list
	ListHash string `json:"list_sha256"` // of the whole list
}

// Shard returns the shard's images; there may be none, and a cache takes no such list.
func (l List) Shard(s shard.Shard) (List, error) {
	if err := s.Validate(); err != nil {
		return l, err
	}
	first, last := s.Range(len(l.Items))
	l.Part = &Part{s, first, len(l.Items), l.Hash()}
	l.Items = l.Items[first:last]
	return l, nil
}

// Hash is the SHA-256, in hexadecimal, of paths, file sizes and labels in order.
func (l List) Hash() string {
	if l.hash != "" {
		return l.hash
	}
	h := sha256.New()
	w := bufio.NewWriter(h)
	for _, i := range l.Items {
		fmt.Fprintf(w, "%q %d %d\n", i.Path, i.Bytes, i.Label)
	}
	w.Flush()
	return hex.EncodeToString(h.Sum(nil))
}

func (l List) validate() error {
	if !goodName(l.Name) {
		return fmt.Errorf("states: %q cannot be a set's name: use letters, digits, '.', '-' and '_'", l.Name)
	}
	if len(l.Items) == 0 {
		return fmt.Errorf("states: set %s: no images", l.Name)
	}
	const most = 1<<31 - 1 // positions are kept in 32 bits
	if len(l.Items) > most {
		return fmt.Errorf("states: set %s: %d images are too many", l.Name, len(l.Items))
	}
	return nil
}

func goodName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return name != "" && len(name) <= 100 && name[0] != '.' && strings.Trim(name, allowed) == ""
}

func (l List) write(w io.Writer) error {
	for _, i := range l.Items {
		if _, err := fmt.Fprintf(w, "%s %d\n", i.Path, i.Label); err != nil {
			return err
		}
	}
	return nil
}

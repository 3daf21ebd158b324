package download

import (
	"bytes"
	_ "embed"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	yaml "go.yaml.in/yaml/v3"
)

// Kind tells what an item is; a mirror is set for a kind.
type Kind string

// The kinds of items.
const (
	Lists       Kind = "lists"       // lists of images, a zip archive
	Datasets    Kind = "datasets"    // images, a zip archive
	Checkpoints Kind = "checkpoints" // checkpoints of OpenOOD, a zip archive
	Weights     Kind = "weights"     // one checkpoint of torchvision
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Lists, Datasets, Checkpoints, Weights} }

// Item is something that can be fetched by name.
type Item struct {
	Name  string `yaml:"name"`
	About string `yaml:"about"`
	Kind  Kind   `yaml:"kind"`
	// Folder is where the item goes, with slashes, below the destination.
	Folder string `yaml:"folder"`
	// Drive is a Google Drive id, URL an address; one of the two is set.
	Drive string `yaml:"drive"`
	URL   string `yaml:"url"`
	// File is the name of the file that is transferred, also on a mirror; empty means
	// NAME.zip or, for weights, the end of the URL.
	File string `yaml:"file"`
	// Holds are entries of the unpacked folder without which it is incomplete.
	Holds []string `yaml:"holds"`
	// MiB is a rounded size for display, 0 if unknown.
	MiB float64 `yaml:"mib"`

	// What the file must be, where it is known. SHA256 may be its first digits.
	Bytes  int64  `yaml:"bytes"`
	SHA256 string `yaml:"sha256"`
	MD5    string `yaml:"md5"`
}

// archive tells whether the item is unpacked.
func (it Item) archive() bool { return it.Kind != Weights }

func (it Item) file() string {
	if it.File != "" {
		return it.File
	}
	if it.archive() {
		return it.Name + ".zip"
	}
	return path.Base(it.URL)
}

// Path is where the item ends up, with slashes, below the destination: a folder
// for an archive, else a file.
func (it Item) Path() string {
	if it.archive() {
		return path.Join(it.Folder, it.Name)
	}
	return path.Join(it.Folder, it.file())
}

// Group is a name for several items.
type Group struct {
	Name  string   `yaml:"name"`
	About string   `yaml:"about"`
	Items []string `yaml:"items"`
}

//go:embed catalogue.yaml
var catalogueYAML []byte

type catalogue struct {
	Groups []Group `yaml:"groups"`
	Items  []Item  `yaml:"items"`
}

// hashInName is how torchvision puts the first digits of a file's SHA-256 in its
// name.
var hashInName = regexp.MustCompile(`-([0-9a-f]{8,64})\.pth$`)

var known = sync.OnceValue(func() catalogue {
	var c catalogue
	dec := yaml.NewDecoder(bytes.NewReader(catalogueYAML))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		panic("download: catalogue.yaml: " + err.Error())
	}
	for i, it := range c.Items {
		if m := hashInName.FindStringSubmatch(it.URL); m != nil && it.SHA256 == "" {
			c.Items[i].SHA256 = m[1]
		}
	}
	return c
})

// Items returns everything that is known by name.
func Items() []Item { return slices.Clone(known().Items) }

// Groups returns the names for several items.
func Groups() []Group { return slices.Clone(known().Groups) }

// Select returns the items that are named, by themselves or by their groups, each
// once. The error for an unknown name says what is like it.
func Select(names ...string) ([]Item, error) {
	c := known()
	var items []Item
	add := func(name string) bool {
		i := slices.IndexFunc(c.Items, func(it Item) bool { return it.Name == name })
		if i < 0 {
			return false
		}
		if !slices.ContainsFunc(items, func(it Item) bool { return it.Name == name }) {
			items = append(items, c.Items[i])
		}
		return true
	}
	for _, name := range names {
		if i := slices.IndexFunc(c.Groups, func(g Group) bool { return g.Name == name }); i >= 0 {
			for _, item := range c.Groups[i].Items {
				add(item)
			}
		} else if !add(name) {
			return nil, unknown(c, name)
		}
	}
	return items, nil
}

// unknown is the error for a name that is none; names that differ in case and
// punctuation alone, or that begin alike, are offered.
func unknown(c catalogue, name string) error {
	plain := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(s))
	}
	var like []string
	offer := func(s string) {
		if a, b := plain(s), plain(name); b != "" && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			like = append(like, s)
		}
	}
	for _, g := range c.Groups {
		offer(g.Name)
	}
	for _, it := range c.Items {
		offer(it.Name)
	}
	if len(like) == 0 {
		return fmt.Errorf("nothing is known by the name %q", name)
	}
	return fmt.Errorf("nothing is known by the name %q; did you mean %s?", name, strings.Join(like, ", "))
}

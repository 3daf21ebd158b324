package download

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Settings say what is fetched from elsewhere than its origin.
type Settings struct {
	// Mirrors has a base address for a kind; the file's name is added to it. A
	// kind that has a mirror is fetched from nowhere else.
	Mirrors map[Kind]string `yaml:"mirrors"`
	// Files says for an item, by name, where it is and what it must be.
	Files map[string]File `yaml:"files"`
}

// File is what Settings say about an item; absent values keep what they are.
type File struct {
	URL    string `yaml:"url"`
	Bytes  int64  `yaml:"bytes"`
	SHA256 string `yaml:"sha256"`
	MD5    string `yaml:"md5"`
}

// ReadSettings reads a YAML or JSON file. Unknown names and addresses that are not
// http or https are errors that name the file.
func ReadSettings(name string) (Settings, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Settings{}, fmt.Errorf("download: settings: %w", err)
	}
	var s Settings
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Settings{}, fmt.Errorf("download: settings %s: %w", name, err)
	}
	if err := s.Validate(); err != nil {
		return Settings{}, fmt.Errorf("download: settings %s: %w", name, err)
	}
	return s, nil
}

var (
	sha256Form = regexp.MustCompile(`^([0-9a-f]{8,64})?$`)
	md5Form    = regexp.MustCompile(`^([0-9a-f]{32})?$`)
)

// Validate returns an error for settings that make no sense.
func (s Settings) Validate() error {
	for kind, base := range s.Mirrors {
		if !slices.Contains(Kinds(), kind) {
			return fmt.Errorf("mirrors: no kind %q; there are lists, datasets, checkpoints, weights", kind)
		}
		if err := checkURL(base); err != nil {
			return fmt.Errorf("mirrors: %s: %w", kind, err)
		}
	}
	for name, f := range s.Files {
		if _, err := Select(name); err != nil || isGroup(name) {
			return fmt.Errorf("files: no item %q", name)
		}
		if f.URL != "" {
			if err := checkURL(f.URL); err != nil {
				return fmt.Errorf("files: %s: %w", name, err)
			}
		}
		if f.Bytes < 0 {
			return fmt.Errorf("files: %s: %d bytes", name, f.Bytes)
		}
		if !sha256Form.MatchString(f.SHA256) {
			return fmt.Errorf("files: %s: sha256 %q is not 8 to 64 digits 0-9a-f", name, f.SHA256)
		}
		if !md5Form.MatchString(f.MD5) {
			return fmt.Errorf("files: %s: md5 %q is not 32 digits 0-9a-f", name, f.MD5)
		}
	}
	return nil
}

func isGroup(name string) bool {
	return slices.ContainsFunc(known().Groups, func(g Group) bool { return g.Name == name })
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an http or https address", s)
	}
	return nil
}

// apply returns the item as the settings want it.
func (s Settings) apply(it Item) (Item, error) {
	it.File = it.file() // wherever it comes from, its name and place stay
	if base, ok := s.Mirrors[it.Kind]; ok {
		u, err := url.Parse(base)
		if err != nil {
			return it, fmt.Errorf("mirror of %s: %w", it.Kind, err)
		}
		it.URL, it.Drive = u.JoinPath(it.file()).String(), ""
	}
	f := s.Files[it.Name]
	if f.URL != "" {
		it.URL, it.Drive = f.URL, ""
	}
	if f.Bytes > 0 {
		it.Bytes = f.Bytes
	}
	if f.SHA256 != "" {
		it.SHA256 = f.SHA256
	}
	if f.MD5 != "" {
		it.MD5 = f.MD5
	}
	return it, nil
}

// place names where an item comes from, without passwords and tokens.
func (it Item) place() string {
	if it.Drive != "" {
		return "Google Drive " + it.Drive
	}
	if u, err := url.Parse(it.URL); err == nil {
		u.RawQuery = ""
		return strings.TrimSuffix(u.Redacted(), "?")
	}
	return it.URL
}

package download

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCatalogue(t *testing.T) {
	driveID := regexp.MustCompile(`^1[0-9A-Za-z_-]{32}$`)
	unique := map[string]string{}
	once := func(what, by string) {
		if other, twice := unique[what]; twice {
			t.Errorf("%s and %s share %s", by, other, what)
		}
		unique[what] = by
	}
	for _, it := range Items() {
		once("name "+it.Name, it.Name)
		once("place "+it.Path(), it.Name)
		once("source "+it.place(), it.Name)
		if it.About == "" || !slices.Contains(Kinds(), it.Kind) {
			t.Errorf("%s: about %q, kind %q", it.Name, it.About, it.Kind)
		}
		if (it.Drive == "") == (it.URL == "") || it.Drive != "" && !driveID.MatchString(it.Drive) {
			t.Errorf("%s: drive %q, url %q", it.Name, it.Drive, it.URL)
		}
		if it.Kind == Weights && (len(it.SHA256) < 8 || !strings.HasPrefix(it.URL, "https://download.pytorch.org/models/")) {
			t.Errorf("%s: SHA-256 %q, url %q", it.Name, it.SHA256, it.URL)
		}
		if !filepath.IsLocal(it.Path()) || path.Clean(it.Path()) != it.Path() {
			t.Errorf("%s: path %q", it.Name, it.Path())
		}
		if (it.Kind == Datasets) != strings.HasPrefix(it.Folder, "images_") {
			t.Errorf("%s: folder %q", it.Name, it.Folder)
		}
	}
	for _, g := range Groups() {
		once("name "+g.Name, g.Name)
		items, err := Select(g.Items...)
		if err != nil || len(items) != len(g.Items) || g.About == "" {
			t.Errorf("group %s: %d items, %v", g.Name, len(items), err)
		}
	}
}

func TestSelect(t *testing.T) {
	items, err := Select("cifar10", "cifar-10", "tin")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, it := range items {
		names = append(names, it.Name)
	}
	if want := "cifar10 benchmark_imglist cifar100 tin mnist svhn texture places365"; strings.Join(names, " ") != want {
		t.Errorf("got %v, want %s", names, want)
	}
	for name, says := range map[string]string{
		"cifar":       "cifar-10, cifar-100, cifar10",
		"ImageNet_1K": "imagenet-1k, imagenet_1k",
		"nosuch":      `"nosuch"`,
		"":            `""`,
	} {
		if _, err := Select(name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one with %q", name, err, says)
		}
	}
}

func TestSettings(t *testing.T) {
	read := func(t *testing.T, text string) (Settings, error) {
		name := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSettings(name)
		if err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name the file: %v", err)
		}
		return s, err
	}
	for _, text := range []string{
		"mirrors:\n  datasets: https://mirror.example/openood/\n  weights: http://mirror.example/tv?key=1\nfiles:\n  tin: {url: 'https://other.example/t.zip', bytes: 7, md5: 00112233445566778899aabbccddeeff}\n",
		`{"mirrors": {"datasets": "https://mirror.example/openood", "weights": "http://mirror.example/tv?key=1"}, "files": {"tin": {"url": "https://other.example/t.zip", "bytes": 7, "md5": "00112233445566778899aabbccddeeff"}}}`,
	} {
		s, err := read(t, text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(Options{Settings: s})
		if err != nil {
			t.Fatal(err)
		}
		items, err := Select("cifar10", "tin", "resnet50", "benchmark_imglist")
		if err != nil {
			t.Fatal(err)
		}
		steps, err := c.Plan("d", items)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			url, place, path string
			total            int64
		}{
			{"https://mirror.example/openood/cifar10.zip", "https://mirror.example/openood/cifar10.zip", "d/images_classic/cifar10", -1},
			{"https://other.example/t.zip", "https://other.example/t.zip", "d/images_classic/tin", 7},
			{"http://mirror.example/tv/resnet50-0676ba61.pth?key=1", "http://mirror.example/tv/resnet50-0676ba61.pth", "d/checkpoints/resnet50-0676ba61.pth", -1},
			{"", "Google Drive 1lI1j0_fDDvjIt9JlWAw09X8ks-yrR_H1", "d/benchmark_imglist", -1},
		} {
			got := steps[i]
			if got.Item.URL != want.url || got.From != want.place || filepath.ToSlash(got.Path) != want.path || got.Total != want.total || got.There {
				t.Errorf("step %+v, want %+v", got, want)
			}
		}
		if steps[2].Item.SHA256 != "0676ba61" || steps[1].Item.MD5 == "" {
			t.Errorf("checksums %q, %q", steps[2].Item.SHA256, steps[1].Item.MD5)
		}
	}
	if _, err := read(t, ""); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	for text, says := range map[string]string{
		"mirrors: {images: https://m.example}":       `"images"`,
		"mirrors: {lists: ftp://m.example}":          "ftp://m.example",
		"mirrors: {lists: /srv/mirror}":              "/srv/mirror",
		"mirror: {}":                                 "mirror",
		"files: {nosuch: {bytes: 1}}":                "nosuch",
		"files: {cifar-10: {bytes: 1}}":              "cifar-10",
		"files: {tin: {bytes: -1}}":                  "-1",
		"files: {tin: {sha256: xyz}}":                "xyz",
		"files: {tin: {md5: abc}}":                   "abc",
		"files: {tin: {url: 'https://[::1'}}":        "tin",
		"{":                                          "yaml",
		"files: {tin: {sha256: 'ABCDEF0123456789'}}": "0-9a-f",
	} {
		if _, err := read(t, text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", text, err, says)
		}
	}
	if _, err := ReadSettings(filepath.Join(t.TempDir(), "absent.yaml")); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("absent: %v", err)
	}
}

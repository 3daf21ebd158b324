package imageset

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPillowFiles compares the small files of testdata/pillow, each coded in
// another way, with what Pillow 13 with libjpeg-turbo 3.2 made of them.
func TestPillowFiles(t *testing.T) {
	files, refused := comparePillow(t, filepath.Join("testdata", "pillow", "manifest.txt"), filepath.Join("testdata", "pillow"))
	if files != 129 || refused != 4 {
		t.Errorf("%d files, %d of them refused by both", files, refused)
	}
}

// TestPillow compares whole folders of files with Pillow. The comparison is
// written by testdata/pillow.py and named by NAC_PILLOW.
func TestPillow(t *testing.T) {
	manifest := os.Getenv("NAC_PILLOW")
	if manifest == "" {
		t.Skip("NAC_PILLOW is not set; testdata/pillow.py tells how to make one")
	}
	files, refused := comparePillow(t, manifest, "")
	t.Logf("%d files, %d of them refused by both", files, refused)
}

// comparePillow decodes the files of a manifest and asks for Pillow's bytes.
func comparePillow(t *testing.T, manifest, dir string) (files, refused int) {
	f, err := os.Open(manifest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bad := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p := strings.SplitN(lines.Text(), " ", 4)
		want, path := strings.Join(p[:3], " "), filepath.Join(dir, p[3])
		files++
		got := "error - -"
		img, err := Decode(path)
		if err == nil {
			got = fmt.Sprintf("%d %d %d", crc32.ChecksumIEEE(img.Pix), img.Width, img.Height)
		} else if want == got {
			refused++
		}
		if got != want {
			if bad++; bad <= 50 {
				t.Errorf("%s: got %s (%v), Pillow has %s", path, got, err, want)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d files are not as Pillow has them", bad, files)
	}
	return files, refused
}

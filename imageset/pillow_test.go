package imageset

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"
)

// TestPillow compares whole folders of files with Pillow, to the bit. The
// comparison is written by testdata/pillow.py and named by NAC_PILLOW.
func TestPillow(t *testing.T) {
	manifest := os.Getenv("NAC_PILLOW")
	if manifest == "" {
		t.Skip("NAC_PILLOW is not set; testdata/pillow.py tells how to make one")
	}
	f, err := os.Open(manifest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, errorsEqual, bad := 0, 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p := strings.SplitN(lines.Text(), " ", 4)
		want, path := strings.Join(p[:3], " "), p[3]
		files++
		got := "error - -"
		img, err := Decode(path)
		if err == nil {
			got = fmt.Sprintf("%d %d %d", crc32.ChecksumIEEE(img.Pix), img.Width, img.Height)
		} else if want == got {
			errorsEqual++
		}
		if got != want {
			if bad++; bad <= 50 {
				t.Errorf("%s: got %s (%v), Pillow has %s", path, got, err, want)
			}
		}
	}
	t.Logf("%d files, %d of them refused by both, %d not as Pillow has them", files, errorsEqual, bad)
}

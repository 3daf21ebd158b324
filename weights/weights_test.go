package weights

import (
	"archive/zip"
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/internal/shareddata"
)

// The numbers were read from the files by PyTorch 1.13.
func TestRealResNets(t *testing.T) {
	for _, c := range []struct {
		file                  string
		tensors, values       int
		sum                   float64 // of all values, in float64
		conv, variance, wSum  float64
		firstWeight, lastBias float32
		lastBlock             string
	}{
		{"resnet20-12fca82f.th", 97, 271098, 139.78264955982081, 1.3100982000032673, 10.665690739639103, -0.045627388637512922, -1.0598125457763672, -0.27025941014289856, "layer3.2."},
		{"resnet32-d509ac18.th", 157, 466426, 721.51789002849659, 1.961148000027606, 9.1883876603096724, 0.00059415376745164394, 1.412300705909729, -0.086272798478603363, "layer3.4."},
	} {
		path := shareddata.Path(t, "data", "checkpoints", c.file)
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		names := s.Names()
		if s.Source() != path || len(names) != c.tensors || names[0] != "conv1.weight" || names[len(names)-1] != "linear.bias" {
			t.Errorf("%s: source %s, %d names %q", c.file, s.Source(), len(names), names)
		}
		values, sum := 0, 0.0
		for _, name := range names {
			x, _ := s.Lookup(name)
			values += len(x.Data)
			sum += total(x)
		}
		if values != c.values {
			t.Errorf("%s: %d values, want %d", c.file, values, c.values)
		}
		// The order of summing differs from PyTorch's, the values do not.
		near(t, c.file, sum, c.sum)
		for _, x := range []struct {
			name  string
			shape []int
			sum   float64
		}{
			{"conv1.weight", []int{16, 3, 3, 3}, c.conv},
			{c.lastBlock + "bn2.running_var", []int{64}, c.variance},
			{"linear.weight", []int{10, 64}, c.wSum},
		} {
			got, ok := s.Lookup(x.name)
			if !ok || !slices.Equal(got.Shape, x.shape) {
				t.Errorf("%s: %s has shape %v, want %v", c.file, x.name, got.Shape, x.shape)
			}
			near(t, c.file+" "+x.name, total(got), x.sum)
		}
		weight, _ := s.Lookup("linear.weight")
		bias, _ := s.Lookup("linear.bias")
		if weight.Data[0] != c.firstWeight || bias.Data[9] != c.lastBias {
			t.Errorf("%s: first weight %v, last bias %v", c.file, weight.Data[0], bias.Data[9])
		}
	}
}

// A checkpoint of the zip format, inside an archive of another kind, which is
// itself no checkpoint.
func TestRealMobileNet(t *testing.T) {
	path := shareddata.Path(t, "data", "checkpoints", "mobilenet_v2_1.0_224_dequant.zip")
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "without data.pkl") {
		t.Error(err)
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("checkpoints/mobilenet_v2_1.0_224_dequant.pth")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode("mobilenet", bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	head, ok := s.Lookup("classifier.1.weight")
	if !ok || !slices.Equal(head.Shape, []int{1000, 1280}) {
		t.Errorf("head %v among %q", head.Shape, s.Names())
	}
	sum := 0.0
	for _, name := range s.Names() {
		x, _ := s.Lookup(name)
		sum += total(x)
	}
	near(t, "mobilenet", sum, 37812.808745032526) // by PyTorch 1.13
	if bias, _ := s.Lookup("classifier.1.bias"); len(s.Names()) != 314 || bias.Data[999] != -0.164366663 {
		t.Errorf("%d tensors, last bias %v", len(s.Names()), bias.Data[999])
	}
}

func total(x Tensor) float64 {
	sum := 0.0
	for _, v := range x.Data {
		sum += float64(v)
	}
	return sum
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9*math.Max(1, math.Abs(want)) {
		t.Errorf("%s: sum %.17g, want %.17g", what, got, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ path, want string }{
		{dir, "not a regular file"},
		{filepath.Join(dir, "absent.pth"), "absent.pth"},
		{write("empty", ""), "the file is empty"},
		{write("text", "hello"), "format not recognised"},
		{write("lfs", "version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"},
		{write("html", "\n<!DOCTYPE html>"), "HTML page"},
		{write("gz", "\x1f\x8b\x08"), "gzip"},
		{write("zip", "PK\x03\x04cut off"), "zip archive, cut off or broken"},
		{write("tar", strings.Repeat("\x00", 257)+"ustar"), "tar archive"},
		{write("safetensors", "\xff\x00\x00\x00\x00\x00\x00\x00{"), "a header of 255 bytes in a file of 9"},
		{write("none", "\x02\x00\x00\x00\x00\x00\x00\x00{}"), "holds no tensors"},
		{write("one byte", "\x80"), "cut off"},
	} {
		_, err := Open(c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
}

func BenchmarkOpenResNet20(b *testing.B) {
	path := shareddata.Path(b, "data", "checkpoints", "resnet20-12fca82f.th")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(path); err != nil {
			b.Fatal(err)
		}
	}
}

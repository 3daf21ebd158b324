package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nac/internal/safetensors"
	"nac/metric"
	"nac/openood"
)

// layOut makes the files of a benchmark as OpenOOD lays them out: n made images in
// each list, ID images with the classes in turn.
func layOut(t *testing.T, name string, classes, n int) (dir string) {
	t.Helper()
	b, err := openood.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	put := func(list, root string, id, small bool) {
		if root == "" {
			root = b.Root
		}
		if root == "" {
			root = "images_classic"
		}
		var lines strings.Builder
		for i := range n {
			label := -1
			if id {
				label = i % classes
			}
			path := fmt.Sprintf("%s/%d.png", list, i)
			width, height := 230+random.IntN(60), 230+random.IntN(60)
			if small {
				width, height = 224, 224
			}
			if strings.HasPrefix(name, "cifar") {
				width, height = 32+random.IntN(9), 32
			}
			picture(t, filepath.Join(dir, root, path), width, height, random)
			fmt.Fprintf(&lines, "%s %d\n", path, label)
		}
		file := filepath.Join(dir, "benchmark_imglist", b.Name, list+".txt")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, []byte(lines.String()))
	}
	for _, list := range []string{b.Train[1], b.Val, b.Test} {
		put(list, "", true, false)
	}
	put(b.ValOOD, "", false, false)
	for _, s := range append(slices.Clone(b.Near), b.Far...) {
		put(s.List, s.Root, false, false)
	}
	for _, s := range b.CSID {
		put(s.List, s.Root, true, s.AsIs)
	}
	return dir
}

// picture writes an image of a few waves of colour.
func picture(t *testing.T, path string, width, height int, random *rand.Rand) {
	t.Helper()
	var f [6]float64
	for i := range f {
		f[i] = random.Float64() * 0.2
	}
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			wave := func(a, b float64) uint8 { return uint8(127 + 120*math.Sin(a*float64(x)+b*float64(y))) }
			m.SetNRGBA(x, y, color.NRGBA{wave(f[0], f[1]), wave(f[2], f[3]), wave(f[4], f[5]), 255})
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, b.Bytes())
}

// resnet writes a checkpoint of random weights: a ResNet with basic blocks in
// stages of the given widths, all but the first at half the size; torchvision's
// names, or with names of akamaster's CIFAR ResNet if head is "linear".
func resnet(t *testing.T, path string, stem int, widths []int, blocks int, head string, classes int, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	var tensors []safetensors.Tensor
	fill := func(name string, std, mean float64, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(mean + std*random.NormFloat64())
		}
		tensors = append(tensors, safetensors.Float32(name, shape, v))
	}
	conv := func(name string, out, in, size int) {
		fill(name+".weight", math.Sqrt(2/float64(in*size*size)), 0, out, in, size, size)
	}
	norm := func(name string, c int) {
		for _, p := range []struct {
			name string
			mean float64
		}{{"weight", 1}, {"bias", 0}, {"running_mean", 0}, {"running_var", 1}} {
			fill(name+"."+p.name, 0.01, p.mean, c)
		}
	}
	conv("conv1", widths[0], 3, stem)
	norm("bn1", widths[0])
	in := widths[0]
	for s, out := range widths {
		for b := range blocks {
			name := fmt.Sprintf("layer%d.%d.", s+1, b)
			conv(name+"conv1", out, in, 3)
			norm(name+"bn1", out)
			conv(name+"conv2", out, out, 3)
			norm(name+"bn2", out)
			if in != out && head != "linear" { // whose shortcuts have no weights
				shortcut := "downsample"
				if stem == 3 {
					shortcut = "shortcut"
				}
				conv(name+shortcut+".0", out, in, 1)
				norm(name+shortcut+".1", out)
			}
			in = out
		}
	}
	fill(head+".weight", 1/math.Sqrt(float64(in)), 0, classes, in)
	fill(head+".bias", 0.1, 0, classes)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
}

// Two training runs of ImageNet-200's network with full-spectrum sets.
func TestBenchTrainingRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a ResNet-18 over large images")
	}
	data := layOut(t, "imagenet200", 2, 2)
	runs := filepath.Join(t.TempDir(), "checkpoints")
	for i, seed := range []string{"s0", "s1"} {
		resnet(t, filepath.Join(runs, "imagenet200_resnet18", seed, "best.safetensors"), 7, []int{64, 128, 256, 512}, 2, "fc", 200, uint64(i))
	}
	out := filepath.Join(t.TempDir(), "out")
	code, stdout, stderr := call(t, "bench", "imagenet200", "--checkpoint", runs, "--data", data, "--out", out, "--fsood", "--detectors", "nac,msp", "--batch", "4")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, s := range []string{"run 1 of 2", "s1/best.safetensors", "imagenet_c"} {
		if !strings.Contains(filepath.ToSlash(stderr), s) {
			t.Errorf("stderr does not say %q: %s", s, stderr)
		}
	}
	for _, s := range []string{
		"near ssb_hard", "far openimage_o", "fsood near mean", "Mean ± standard deviation over 2 training runs", "Covariate-shifted ID: accuracy imagenet_v2",
		"weak on near-OOD", "75.90 on CIFAR-100", "those for resnet18_224x224", "ssb_hard 2 of 49,000",
	} {
		if !strings.Contains(stdout, s) {
			t.Errorf("the report does not say %q:\n%s", s, stdout)
		}
	}
	var reports []openood.Report
	for _, s := range []string{"s0", "s1"} {
		r := readReport(t, filepath.Join(out, s))
		reports = append(reports, r)
		// Full-spectrum results are those of test and csID images together.
		for _, m := range r.Methods {
			id := readScores(t, filepath.Join(out, s), "test", m.Key)
			for _, set := range []string{"imagenet_v2", "imagenet_c", "imagenet_r"} {
				id = append(id, readScores(t, filepath.Join(out, s), set, m.Key)...)
			}
			for _, row := range append(m.FullSpectrum.Near, m.FullSpectrum.Far...) {
				want, err := metric.OOD(id, readScores(t, filepath.Join(out, s), row.Set, m.Key))
				if err != nil {
					t.Fatal(err)
				}
				if row.Result != want {
					t.Errorf("%s on %s: %v, the scores give %v", m.Key, row.Set, row.Result, want)
				}
			}
		}
	}
	// The file has OpenOOD's form, and NumPy's mean and std.
	for _, key := range []string{"nac", "msp"} {
		for _, folder := range []string{"ood", "fsood"} {
			rows := readCSV(t, filepath.Join(out, folder, key+".csv"))
			if got := strings.Join(rows[0], ","); got != ",FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC" {
				t.Errorf("%s/%s.csv begins %q", folder, key, got)
			}
			var names []string
			for _, row := range rows[1:] {
				names = append(names, row[0])
			}
			if got := strings.Join(names, ","); got != "ssb_hard,ninco,nearood,inaturalist,textures,openimage_o,farood" {
				t.Errorf("%s/%s.csv has rows %s", folder, key, got)
			}
			at := func(r openood.Report) float64 {
				i := slices.IndexFunc(r.Methods, func(m openood.MethodResult) bool { return m.Key == key })
				if folder == "fsood" {
					return 100 * r.Methods[i].FullSpectrum.Near[1].Result.AUROC
				}
				return 100 * r.Methods[i].Near[1].Result.AUROC
			}
			a, b := at(reports[0]), at(reports[1])
			if want := fmt.Sprintf("%.2f ± %.2f", (a+b)/2, math.Abs(a-b)/2); rows[2][2] != want {
				t.Errorf("%s/%s.csv: AUROC on ninco is %s, want %s", folder, key, rows[2][2], want)
			}
		}
	}

	// One of the runs, fewer csID sets, another network than the settings' own.
	code, stdout, stderr = call(t, "bench", "imagenet", "--arch", "resnet18", "--checkpoint", filepath.Join(runs, "imagenet200_resnet18"), "--runs", "s1",
		"--data", layOut(t, "imagenet", 2, 2), "--fsood=imagenet_c,imagenet_es", "--detectors", "nac,msp", "--quiet")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "accuracy imagenet_c") || strings.Contains(stdout, "imagenet_r") || !strings.Contains(stdout, "those for resnet50") {
		t.Errorf("the report:\n%s", stdout)
	}
}

func TestBenchCIFAR100(t *testing.T) {
	data := layOut(t, "cifar100", 5, 10)
	checkpoint := filepath.Join(t.TempDir(), "c.safetensors")
	resnet(t, checkpoint, 3, []int{16, 32, 64}, 3, "linear", 100, 1)
	out := filepath.Join(t.TempDir(), "out")
	code, stdout, stderr := call(t, "bench", "cifar100", "--arch", "resnet20", "--checkpoint", checkpoint, "--data", data, "--out", out, "--fsood")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, s := range []string{"near cifar10 ", "far places365", "fsood far mean", "accuracy cifar100c", "svhn 10 of 26,032"} {
		if !strings.Contains(stdout, s) {
			t.Errorf("the report does not say %q:\n%s", s, stdout)
		}
	}
	rows := readCSV(t, filepath.Join(out, "ood", "nac.csv"))
	r := readReport(t, out)
	if want := percent(r.Methods[0].NearMean.FPR95); rows[3][0] != "nearood" || rows[3][1] != want {
		t.Errorf("ood/nac.csv has %v, want nearood with FPR@95 %s", rows[3], want)
	}
	// nac split on the same data, and the lists that it makes are used.
	if code, stdout, stderr := call(t, "split", "cifar100", "--data", data, "--images", "5"); code != exitOK || !strings.Contains(stdout, "main_train_cifar100.txt: 5 images (written)") {
		t.Fatalf("split: exit code %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := call(t, "split", "cifar100", "--data", data, "--images", "5"); code != exitOK || !strings.Contains(stdout, "there already") {
		t.Errorf("split again: exit code %d, %s", code, stdout)
	}
	if code, _, stderr := call(t, "split", "cifar100", "--data", data, "--images", "5", "--seed", "9"); code != exitFailure || !strings.Contains(stderr, "--replace") {
		t.Errorf("another split: exit code %d, %s", code, stderr)
	}
	if code, stdout, stderr := call(t, "bench", "cifar100", "--arch", "resnet20", "--checkpoint", checkpoint, "--data", data); code != exitOK || !strings.Contains(stdout, "Fitted on 5 training images") {
		t.Errorf("after the split: exit code %d, %s%s", code, stdout, stderr)
	}
}
